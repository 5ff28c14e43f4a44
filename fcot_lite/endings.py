r"""What may follow a stated answer without being part of it: a list of what may, so that nothing else can.

Behind "The answer is 5" only these leave it a plain answer: the end of the sentence, words that may be its unit, a
reason ("because 2 + 3 = 5") and a remark that a comma, a bracket or a dash opens and that holds no second answer. All
else, "5 or six", "5∕2", "5 and a half", "(B)?", makes it no plain answer. `numerals`, `readings` and `formulas` say
what a second answer of their kind is; this file has the words that all of them share. Nothing is evaluated.
"""

import re
from typing import NamedTuple

LONGEST_SENTENCE = 1_000  # characters behind an answer that are read
# Closes markdown, quotes and LaTeX around an answer.
CLOSE = r"(?:[^\S\n]|[*_`\"'“”‘’)\]}$]|\\[)\]]){0,8}+"
_PLAIN = re.compile(rf"{CLOSE}(?:[.!]{CLOSE})?(?:[.!]{{0,2}}+\Z|\n)")
STOP = re.compile(r"\n|(?<![.!…])[.!]{1,2}(?![.!\w'’,;:…-])(?<!\b[ap]\.m\.)|\?")
_OPENS = re.compile(rf"{CLOSE}(?:[,;:(\[{{]|[–—-]{{1,2}}[^\S\n])")
_REASON = re.compile(
    r"(?:\A|(?<=[\s,;(–—*_$)-]))(?i:because|since|as(?!\s+(?:many|much|well|of|an?)\b)|given\s+that|due\s+to)\b"
)
_LATEX = [
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|rm)\s?\{([^{}\n]*)\}"), r" \1"),
    (re.compile(r"\^\{?\\circ\b\}?"), "°"),
    (re.compile(r"\\[,;: !]"), " "),
    (re.compile(r"\\([%$)\]])"), r"\1"),
]
# Words that offer another answer or take this one back.
DOUBT = re.compile(
    r"""\b(?i: or|nor|x?or\s+else|maybe|perhaps|possibly|probably|either|neither|but|however|although|though|unless|if
      | otherwise|else|except|wrong|incorrect|mistaken?|false|untrue|invalid|wait|oops|actually|rather|instead
      | sorry|hmm+
      | never|versus|vs|should|alternatively|could|might|also|too|likewise|equally|then|unsure|uncertain|doubt|guess
      | until|whereas|while|cannot )\b | \b(?i:not|no)\b | n['’]t\b | [?&|<>~≈±∨∪…] | \.\.\.""",
    re.VERBOSE,
)
# In a reason "not", "or" and "if" speak of the question: these words speak of the answer.
TAKES_BACK = re.compile(
    r"\b(?i:wrong|incorrect|mistaken?|wait|oops|actually|hmm+|sorry|maybe|perhaps|however|but|alternatively|"
    r"should\s+(?:be|have))\b|\?"
)

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {word: i for i, word in enumerate(ONES)} | {word: 10 * i for i, word in enumerate(TENS, 2)}
# What multiplies, divides or goes on with the number before it.
SCALES = re.compile(
    rf"""\b(?i: {"|".join(NUMBER_WORDS)} | (?:hundred|thousand|lakh|crore|dozen|score|ten)s? | gross|grand|mil|mill
      | [a-z]{{1,8}}illi(?:on|ard|one|onen)e?s? | k|m{{2}}|bn|mn|tn|trn|mio|mrd
      | hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?
      | (?:[a-z]{{3,9}}t(?:een|ie)|ten)ths?
      | (?:hundred|thousand|milli?on|billion)ths? | squared?(?=\W*\Z)|cubed?(?=\W*\Z)|doubled?|tripled?|halved
      | factorial|mille|millones|mln|doz|dz|twelfths?
      | at\s+(?:least|most)|twice|thrice|plus|minus|negative|multiplied|divided|mod|modulo|modulus
      | pairs?|couples?|trios?|twins|triplets?|in\s+debt|short(?=\W*\Z)
      | remainder|roots?|sqrt|power|raised|base
      | point(?=\s+[a-z0-9])|sin|cos|tan|log|ln|exp|pi|dot|infinity
      | times(?!\s+as\s+(?:many|much)\b|\s+(?:an?|per|each|every)\s|\W*\Z)
      )\b | \bMM\b""",
    re.VERBOSE,
)


class Ending(NamedTuple):
    """How the sentence of an answer goes on: plain words, then a remark or a reason, any of them empty."""

    words: str
    remark: str
    reason: str


def is_plain(text: str, position: int, end: int) -> bool:
    """Whether the line, or the text, ends here but for a full stop, closing quotes, markdown and LaTeX."""
    return _PLAIN.match(text, position, end) is not None


def ending(text: str, position: int, end: int) -> Ending | None:
    """How the sentence goes on from `position`; None where it is a question or runs into another statement of doubt."""
    limit = min(end, position + LONGEST_SENTENCE)
    stop = STOP.search(text, position, limit)
    if stop and stop.group() == "?":
        return None
    sentence = text[position : stop.start() if stop else limit]
    if "\\" in sentence:
        for pattern, to in _LATEX:
            sentence = pattern.sub(to, sentence)
    reason = _REASON.search(sentence)
    if reason:
        sentence, because = sentence[: reason.start()], sentence[reason.end() :]
        if TAKES_BACK.search(because):
            return None
    else:
        because = ""
    opening = _OPENS.search(sentence)
    if not opening:
        return Ending(sentence, "", because)
    return Ending(sentence[: opening.start()], sentence[opening.end() - 1 :], because)


# Around a box: -\boxed{5}, 2\boxed{5}, \frac{\boxed{5}}{2}, x + \boxed{5} and \boxed{5}^2, \boxed{5} + 1,
# \boxed{5} million are no plain 5. A bullet, "- \boxed{5}", and words are no part of it.
_BEFORE_BOX = re.compile(
    r"""(?: [0-9][,.] | [0-9A-Za-z)}\]!√π][$({\[]{0,2} | [+−*/^×÷·±<>~≠][\s$({\[]{0,4} | [0-9]\s{1,2}\$?(?!\n)
          | -[$({\[]{0,2}
          | [0-9A-Za-z)}\]]\s{0,2}[-–]\s?[$({\[]{0,2} (?<![A-Za-z]{2}\s[-–]\s)
          | \{\s?
          | \\(?:times|cdot|div|pm|neg|frac|sqrt)\s?\$?
          | \b(?i:minus|negative|plus|times|over|not|isn['’]t|never|n['’]t)\s{1,2}\$?) \Z""",
    re.VERBOSE,
)
_BEHIND_BOX = re.compile(
    r"""[})]?(?: [0-9A-Za-z^_({\[!] | [.,][0-9] | \\(?![)\]%$,;!\ ]|text|quad|end|\\) )
      | (?:[^\S\n]|[*_`)\]}$%°]|\\[)\]%$,;!\ \\]){0,8}+ (?: [+−*/^×÷·±<>=~≈&|?] | [-–](?!\s[A-Za-z]{2})
          | \\(?:times|cdot|div|pm|approx|sqrt|pi)\b
          | (?:,|\b(?:and|or|to)\b)\s{0,2}\\?[$(]?[0-9] )""",
    re.VERBOSE,
)
_WORDS_BEHIND = re.compile(
    r"(?:[^\S\n]|[*_`)\]}$%°({,]|\\(?:[)\]%$,;! ]|text\b|mathrm\b)){0,8}+(?:[A-Za-z'’-]+[^\S\n]{0,2}){0,3}"
)
_NESTED = re.compile(r"(?:\\(?:boxed|fbox|text|mathbf|mathrm|textbf)\s?\{)+\Z")
_VARIABLE = re.compile(r"(?<![\w'’°\\-])(?![mgshlLaAI]\b)[A-Za-z](?![\w'’])")


def box_is_alone(text: str, start: int, end: int) -> bool:
    """Whether the box whose backslash is at `start` and whose closing brace is at `end` is no part of an expression."""
    line = text[max(0, text.rfind("\n", 0, start) + 1, start - 40) : start]
    line = _NESTED.sub("", line)
    if line.strip() not in ("", "-", "*", "$", "\\[", "\\(") and _BEFORE_BOX.search(line):
        return False
    if line.endswith("-"):
        return False
    after = end + 1
    if text[after : after + 1] != "!" and is_plain(text, after, len(text)):
        return True
    if _BEHIND_BOX.match(text, after):
        return False
    words = _WORDS_BEHIND.match(text, after)
    said = words.group() if words else ""
    return not (SCALES.search(said) or DOUBT.search(said) or _VARIABLE.search(said))


# "The answer is 5. But that is wrong." "Yes. No." "5. = 6"
_TURNS = re.compile(
    r"""[\s*_`"'“”‘’)\]}$]{0,8}+ (?: (?i:but|however|although|though|hmm+|or|nor|alternatively|otherwise|unless
          |except|maybe|perhaps|possibly|not|nope|wrong|incorrect|false|oh|uh|er|no(?=[\s]?[.,;:!?–—-])|wait|oops
          |actually(?=,?\s(?:[0-9$(]|it\b)))\b
      | (?:and|plus|minus|times|point|over)\b )""",
    re.VERBOSE,
)
_OPERATOR = re.compile(r"[^\S\n]{0,3}[=+*/^×÷~≈±|%&∨∪][^\S\n*]")


def turns(text: str, position: int, end: int) -> bool:
    """Whether what comes after the sentence of an answer begins by taking it back or goes on with it."""
    limit = min(end, position + LONGEST_SENTENCE)
    stop = STOP.search(text, position, limit)
    if not stop:
        return False
    after = stop.end()
    return _TURNS.match(text, after, end) is not None or (
        stop.group() != "\n" and _OPERATOR.match(text, after, end) is not None
    )


def next_sentence(text: str, position: int, end: int) -> tuple[int, int] | None:
    """Where the sentence stands that follows the sentence of an answer on its line."""
    stop = STOP.search(text, position, min(end, position + LONGEST_SENTENCE))
    if not stop or stop.group() == "\n":
        return None
    after = STOP.search(text, stop.end(), min(end, stop.end() + 100))
    return (stop.end(), after.start() if after else min(end, stop.end() + 100))


def below(text: str, position: int, end: int) -> tuple[int, int] | None:
    """Where the line stands that follows the line of an answer, without an empty one between them."""
    here = text.find("\n", position, end)
    if here < 0 or here + 1 >= end or here - position > LONGEST_SENTENCE:
        return None
    there = text.find("\n", here + 1, min(end, here + 200))
    if there < 0:
        there = end if end - here < 200 else here + 1
    return (here + 1, there) if text[here + 1 : there].strip() else None
