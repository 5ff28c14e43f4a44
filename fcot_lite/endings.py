r"""What may follow a stated answer without being part of it: a list of what may, so that nothing else can.

Behind "The answer is 5" only these leave it a plain answer: the end of the sentence, words that may be its unit, a
reason ("because 2 + 3 = 5") and a remark that a comma, a bracket or a dash opens and that holds no second answer. All
else, "5 or six", "5∕2", "5 and a half", "(B)?", makes it no plain answer. `numerals`, `readings` and `formulas` say what
a second answer of their kind is; this file has the words that all of them share. Nothing is evaluated.
"""

import re
from typing import NamedTuple

LONGEST_SENTENCE = 1_000  # characters behind an answer that are read
# Closes markdown, quotes and LaTeX around an answer.
CLOSE = r"(?:[^\S\n]|[*_`\"'“”‘’)\]}$]|\\[)\]]){0,8}+"
_PLAIN = re.compile(rf"{CLOSE}(?:[.!]{CLOSE})?(?:[.!]{{0,2}}+\Z|\n)")
_STOP = re.compile(r"\n|[.!]{1,2}(?![.!\w'’,;:…-])(?<!\b[ap]\.m\.)|\?")
_OPENS = re.compile(rf"{CLOSE}(?:[,;:(\[{{]|[–—-]{{1,2}}[^\S\n])")
_REASON = re.compile(
    r"(?:\A|(?<=[\s,;(–—*_$)-]))(?i:because|since|as(?!\s+(?:many|much|well|of|an?)\b)|given\s+that|due\s+to)\b"
)
_LATEX = [
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|rm)\s?\{([^{}\n]*)\}"), r" \1 "),
    (re.compile(r"\^\{?\\circ\b\}?"), "°"),
    (re.compile(r"\\[,;: !]"), " "),
    (re.compile(r"\\([%$])"), r"\1"),
]
# Words that offer another answer or take this one back.
DOUBT = re.compile(
    r"""\b(?i: or|nor|x?or\s+else|maybe|perhaps|possibly|probably|either|neither|but|however|although|though|unless|if
      | otherwise|else|except|wrong|incorrect|mistaken?|false|untrue|invalid|wait|oops|actually|rather|instead|sorry|hmm+
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
    rf"""\b(?i: {"|".join(NUMBER_WORDS)} | hundred|thousand|lakh|crore|dozen|score|gross|grand|mil|mill|couple
      | [a-z]{{1,8}}illi(?:on|ard|one|onen)e? | k|m{{2}}|bn|mn|tn|trn|mio|mrd
      | hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|(?:[a-z]{{3,9}}t(?:een|ie)|ten)ths?
      | (?:hundred|thousand|milli?on|billion)ths? | squared?(?=\W*\Z)|cubed?(?=\W*\Z)|doubled?|tripled?|halved|factorial
      | twice|thrice|plus|minus|negative|multiplied|divided|mod|modulo|modulus|remainder|roots?|sqrt|power|raised|base
      | point|sin|cos|tan|log|ln|exp|pi|dot|infinity|times(?!\s+as\s+(?:many|much)\b|\s+(?:an?|per|each|every)\s|\W*\Z)
      )(?:s|es)?\b | \bMM\b""",
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
    stop = _STOP.search(text, position, limit)
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
