"""What is stated: one reader a kind of answer. `answers.grade` finds where a text states an answer and calls them.

A reader takes the text, where the statement ended and the next one begins, and whether the answer must fill its line.
It gives a value and the answer as written; (None, "") for what is not one plain answer; None where none follows.
Numbers have a file of their own, numerals.py, and so do formulas, formulas.py.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

from fcot_lite.endings import CLOSE, DOUBT, ending, is_plain
from fcot_lite.numerals import LIKE_A_NUMBER, Stated, number, read_number

Read = Callable[[str, int, int, bool], Stated | None]

# Choices, yes and no, letters.
_CLOSE = CLOSE.removesuffix("+")
WORDS_LEAD = re.compile(
    r"""(?: [\s*_`"'“”‘’:={$] | \((?=(?i:yes|no)\)) | \\[(\[] | \\(?:text|textbf|mathbf|mathrm|bf)\b ){0,40}+
        (?: (?i:therefore|thus|hence|simply|clearly|definitely|most\ likely
                |(?:the\ )?(?:correct\ )?(?:option|choice|letter))\b [,:]?+
            [\s*_`"'“”‘’:={$]{0,8}+ ){0,4}+""",
    re.VERBOSE,
)
# Where an answer of one word ends.
ENDS = re.compile(rf"{_CLOSE}(?:\n|\Z|[.,;:!?](?!\w)|[–—-]\s|(?i:because|since|as)\b)")
YES_NO_ENDS = re.compile(rf"{ENDS.pattern}|[^\S\n]\(")  # a reason may stand in brackets
STOPS = re.compile(rf"{_CLOSE}(?:[.!](?!\w)|\n|\Z)")
ALONE = re.compile(rf"{_CLOSE}[.!]?{_CLOSE}(?:\n|\Z)")
ENDS_LINE = re.compile(r"\.?(?:\n|\Z)")
LETTER = re.compile(
    r"[(\[](?P<closed>[A-Za-z])[)\]]|(?P<half>[A-Za-z])\)|(?P<bare>[A-Z])(?![\w'’])|(?P<small>[a-z])(?![\w'’])"
)
BEFORE_OPTION = re.compile(rf"{_CLOSE}[.,:=(–—-]?{_CLOSE}")
OTHER_LETTER = re.compile(
    rf"""{_CLOSE}(?: \b(?:or|nor)\b
      | (?:[,;/&+]|\b(?:and|not|no|rather|than|wait|actually)\b|[^\S\n]){{0,8}}
        (?: [(\[][A-Za-z][)\]] | (?P<letter>[A-Z])(?![\w'’]) ) )""",
    re.VERBOSE,
)
NOT_LETTER = re.compile(rf"{_CLOSE}(?:,\s|\sand\s|,\sand\s)not\s(?:option\s)?[(\[]?(?P<letter>[A-Z])[)\]]?(?![\w'’])")
# "(B) because (A) and (C) are wrong"
OTHERS_ARE_WRONG = re.compile(
    rf"{_CLOSE},?\s(?:because|since|as)\s(?:(?:,\s|\sand\s|,\sand\s)?[(\[][A-Z][)\]]){{1,5}}"
    r"\s(?:is|are)\s(?:all\s|both\s)?(?:wrong|incorrect|false)"
)
IT_IS = re.compile(r"\s*(?i:it|this|that)\s(?i:is|was)\s(?:(?i:the|an?)\s)?")
# "6, which is (B)"
THEN_LETTER = re.compile(
    rf"{_CLOSE},?\s?(?:(?:which|that)\sis\s)?(?:option\s|choice\s)?(?:[(\[](?P<closed>[A-Z])[)\]]|(?<=option\s)(?P<bare>[A-Z])(?!\w))"
)
ANY_LETTER = re.compile(r"(?<![\w'’])(?P<letter>[A-Z])(?![\w'’])(?!(?<=I)\s[a-z])")
DISMISSED = re.compile(r"[(\[]?\b[A-Z]\b[)\]]?\s(?:is|are|was|were|does|do|did|can)\s?(?:not|n['’]t)\b")
NEXT_OPTION = re.compile(
    r"\s{0,8}[*-]?[^\S\n]{0,3}[(\[]?[A-Za-z][)\].:]"
)  # "(A) red" on a line, "(B) blue" on the next
CLOSED_LETTER = re.compile(r"[(\[][A-Za-z][)\]]")
YES_NO = re.compile(r"(?i:yes|no)(?![\w-]|['’]\w)")
# "yes it is", "yes the coin is still heads up"
SAYS_IT = re.compile(r"(?i:it|the|this|that|he|she|they|we|i|you|there)\b")
NEGATION = re.compile(r"\b(?i:not|no)\b|n['’]t\b")
OPPOSITE_OF_YES = re.compile(r"\b(?i:no|not)\b")
OPPOSITE_OF_NO = re.compile(r"\b(?i:yes)\b")
OTHER_WORD = re.compile(
    rf"{_CLOSE}[,;:/(–—-]?[^\S\n]{{0,3}}(?i:(?P<taken_back>or|and|but|rather|actually|wait)|(?P<word>yes|no))\b"
)
# No filler words: "then" may be the answer.
LETTERS_LEAD = re.compile(r"(?:[\s*_`\"'“”‘’:=(\[{$]|\\text\{){0,40}+")
_LETTER = r"[^\W\d_]"  # of any alphabet: names end in é too
LETTERS = re.compile(
    rf"{_LETTER}(?!{_LETTER})(?:(?:[ \t\"'“”‘’,*`+–-]{{1,4}}|,?\sand\s[\"']?){_LETTER}(?!\w)){{1,63}}"
    rf"|{_LETTER}{{1,64}}+(?!\w)"
)
SPELLED = re.compile(rf"[(,]\s?({LETTERS.pattern})[)\"'\s]*\Z")
# A remark on letters begins as none of them would be written: any other word could be a second answer.
EXPLAINS = re.compile(r",?\s*\(?(?:which|the(?!\sother)|when|by|taking|formed|made|these|this|as|that\sis)\s")

# Texts.
LONGEST_TEXT = 10_000  # characters; a longer line is no answer
TEXT_LEAD = re.compile(r"(?:[\s:]|\*{1,3}(?=\s)|`{3}\w{0,20}\n){0,40}+")
LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\{(.*)\}", re.DOTALL)
WRAPPED = re.compile(r"\(([^()]+)\)[.!]?|\$?\\text\{([^{}]+)\}\$?[.!]?")
BECAUSE = re.compile(r",?\s(?=(?:because|since)\b)")
# Not behind one or two letters: "St. Louis", "J. Doe".
SENTENCE_END = re.compile(r"(?:[^\W\d_]{3}|[\d)\]}\"'”’*`])[.!][*_`)\"'’”]{0,3}(?=\s)")

# Normalizing takes time that grows with the square of a run of combining marks; no word has as many.
_MARKS = re.compile(r"[^\w\x00-\x7f]{31}")


def folded(text: str) -> str:
    """By which two texts count as the same: case, quotes and markdown around them and a last stop do not matter."""
    text = trimmed(text)
    if not (text.isascii() or _MARKS.search(text)):
        text = unicodedata.normalize("NFC", text)
    return "\n".join(line.strip() for line in text.casefold().splitlines())


def trimmed(text: str) -> str:
    return text.strip(" \t\r\n*_`\"'“”‘’«»").rstrip(" \t\r\n*_`\"'“”‘’«».,;:!?")


def read_choice(choices: Sequence[str], text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    lead = WORDS_LEAD.match(text, start, end)
    position = lead.end() if lead else start
    must_fill_line = must_fill_line or "\n" in text[start:position]
    letter = LETTER.match(text, position, end)
    is_sure = letter is not None and bool(letter["closed"] or letter["half"])
    if letter and is_sure and not must_fill_line and ENDS_LINE.match(text, letter.end(), end):  # as most answers
        return (letter["closed"] or letter["half"]).upper(), letter.group()
    if not is_sure:
        for written in _texts(text, start, end, must_fill_line):
            same = _same(choices, written)
            if same and len(folded(written)) > (letter is not None):
                if "?" in written and "?" not in choices[same[0]]:
                    return None, ""
                return (chr(ord("A") + same[0]) if len(same) == 1 else None), written
        named, named_end = _option_at(choices, text, position, end)
        then = THEN_LETTER.match(text, named_end, end) if named else None
        if then and is_plain(text, then.end(), end):
            value = then["closed"] or then["bare"]
            return (value, text[position : then.end()]) if ord(value) - ord("A") in named else (None, "")
    if letter:
        value = (letter["closed"] or letter["half"] or letter["bare"] or letter["small"]).upper()
        own = ord(value) - ord("A")
        after = letter.end()
        gap = BEFORE_OPTION.match(text, after, end)
        named, named_end = _option_at(choices, text, gap.end() if gap else after, end)
        if own in named:
            after = named_end
        against = NOT_LETTER.match(text, after, end)  # "(B), not (C)"
        if against and is_sure and against["letter"] != value and is_plain(text, against.end(), end):
            return value, letter.group()
        if is_sure and (wrong := OTHERS_ARE_WRONG.match(text, after, end)) and is_plain(text, wrong.end(), end):
            others = re.findall(r"[A-Z](?=[)\]])", wrong.group())
            return (None, "") if value in others else (value, letter.group())
        other = OTHER_LETTER.match(text, after, end)
        means_another = (
            bool(named and own not in named)
            or (other is not None and (other["letter"] is None or ord(other["letter"]) - ord("A") < len(choices)))
            or (not is_sure and any(folded(choice) == value.lower() for i, choice in enumerate(choices) if i != own))
        )
        is_whole = (STOPS if letter["small"] and not named else ENDS).match(text, after, end) is not None
        is_marked = is_sure or (letter["bare"] is not None and text.startswith((".", ":"), letter.end()))
        if not any(choices) and is_marked and (must_fill_line or not is_whole):
            # Nobody knows the options' texts: what stands behind the letter is taken for its own.
            line_end = text.find("\n", after, end)
            after, behind = (line_end if line_end >= 0 else end), after
            means_another = means_another or CLOSED_LETTER.search(text, behind, after) is not None
            is_whole = True
        if is_sure or is_whole or means_another:
            if must_fill_line and not _fills_line(text, after, end):
                return None
            if means_another or not is_whole or not _no_other_option(choices, own, text, after, end):
                return None, ""
            return value, letter.group()
    if not LIKE_A_NUMBER.match(text, position, end):
        return None
    if "%" in text[position : min(end, position + 40)]:
        return None, ""
    amount = read_number(text, start, end, must_fill_line)  # "6 apples" is the option 6
    same = [i for i, choice in enumerate(choices) if amount and amount[0] and number(choice) == amount[0]]
    return (chr(ord("A") + same[0]), amount[1]) if amount and len(same) == 1 else (None, "")


def _no_other_option(choices: Sequence[str], own: int, text: str, after: int, end: int) -> bool:
    """Whether the rest of the sentence behind a letter names no other option and does not take it back."""
    if is_plain(text, after, end):
        return True
    found = ending(text, after, end)
    if found is None or found.words.strip(" *_`\"'“”‘’)]}$.") or DOUBT.search(found.remark):
        return False
    if any(_names(choices, own, part) for part in (found.remark, DISMISSED.sub("", found.reason))):
        return False
    if _is_of_another(choices, own, found.reason):
        return False
    remark = found.remark.casefold()
    mine = choices[own].casefold() if own < len(choices) else ""
    return not any(
        choice
        and choice.casefold() in remark
        and choice.casefold() not in mine
        and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", found.remark, re.IGNORECASE)
        for i, choice in enumerate(choices)
        if i != own
    )


def _is_of_another(choices: Sequence[str], own: int, reason: str) -> bool:
    """Whether a reason says "it is" and the text of another option: (B) because it is green."""
    said = IT_IS.match(reason)
    named = _option_at(choices, reason, said.end(), len(reason))[0] if said else set()
    return bool(named) and own not in named


def _names(choices: Sequence[str], own: int, part: str) -> bool:
    letters = (ord(match["letter"]) - ord("A") for match in ANY_LETTER.finditer(part))
    return any(letter != own and letter < len(choices) for letter in letters)


def _same(choices: Sequence[str], written: str) -> list[int]:
    """The options that a text repeats, or else that are the same number: 5,600 is the option 5600."""
    same = [i for i, choice in enumerate(choices) if folded(choice) == folded(written)]
    value = None if same else number(trimmed(written))
    return same if value is None else [i for i, choice in enumerate(choices) if number(trimmed(choice)) == value]


def _option_at(choices: Sequence[str], text: str, start: int, end: int) -> tuple[set[int], int]:
    """The options whose text stands at `start`, of several lengths the longest, and where it ends."""
    lengths = {
        i: len(choice)
        for i, choice in enumerate(choices)
        if choice and text[start : min(start + len(choice), end)].casefold() == choice.casefold()
        if not text[start + len(choice) : start + len(choice) + 1].isalnum()
    }
    longest = max(lengths.values(), default=0)
    return {i for i, length in lengths.items() if length == longest}, start + longest


def _fills_line(text: str, after: int, end: int) -> bool:
    line = ALONE.match(text, after, end)
    return line is not None and not NEXT_OPTION.match(text, line.end(), end)


def read_yes_no(text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    lead = WORDS_LEAD.match(text, start, end)
    position = lead.end() if lead else start
    must_fill_line = must_fill_line or "\n" in text[start:position]
    word = YES_NO.match(text, position, end)
    if not word:
        return None
    value = word.group().lower()
    if must_fill_line and not ALONE.match(text, word.end(), end):
        return None
    other = OTHER_WORD.match(text, word.end(), end)
    if other and (other["taken_back"] or other["word"].lower() != value):
        return None, ""
    if is_plain(text, word.end(), end):
        return value, word.group()
    found = ending(text, word.end(), end)
    if found is None:
        return None, ""
    words = found.words.strip(" *_`\"'“”‘’)]}$")
    if words and not SAYS_IT.match(words):
        return None  # "no coin", "no longer"
    said = f"{words} {found.remark}"
    doubt = DOUBT.search(NEGATION.sub("", said) if value == "no" else said)
    opposite = (OPPOSITE_OF_YES if value == "yes" else OPPOSITE_OF_NO).search(said)
    return (None, "") if doubt or opposite else (value, word.group())


def read_letters(text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    lead = LETTERS_LEAD.match(text, start, end)
    position = lead.end() if lead else start
    must_fill_line = must_fill_line or "\n" in text[start:position]
    letters = LETTERS.match(text, position, end)
    if not letters:
        return None
    after = letters.end()
    value = _joined(letters.group())
    if must_fill_line and not ALONE.match(text, after, end):
        return None
    if is_plain(text, after, end):
        return value, letters.group()
    found = ending(text, after, end)
    if found is None or OTHER_WORD.match(text, after, end):
        return None, ""
    spelled = SPELLED.match(found.remark)
    if found.words.strip(" *_`\"'“”‘’)]}$"):
        return (None, "") if DOUBT.search(found.words) else None
    if not found.remark.strip(" ,;") or (spelled and _joined(spelled[1]) == value) or _explains(found.remark):
        return value, letters.group()
    return None, ""


def _joined(letters: str) -> str:
    return re.sub(r"\band\s|[\W\d_]", "", letters).lower()


def _explains(remark: str) -> bool:
    return EXPLAINS.match(remark) is not None and not DOUBT.search(remark)


def read_text(target: str, text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    written = _texts(text, start, end, must_fill_line, has_lines="\n" in target)
    if len(written) > 1 or "\n" not in text[start : start + 1]:
        written += _without_reason(written[0])
    wanted = folded(target)
    for candidate in written:
        if folded(candidate) == wanted:
            if "?" in candidate and "?" not in target:
                return None, ""
            return wanted, candidate
    # "$" before "\\boxed" is no answer. Some gold answers are pictures, without a letter or a digit.
    says_something = any(character.isalnum() for line in written for character in line) or not any(
        character.isalnum() for character in target
    )
    if not (says_something and any(map(folded, written))) or (
        written[0].startswith("<") and not target.startswith("<")
    ):
        return None
    return folded(written[-1]), written[-1]


def _without_reason(line: str) -> list[str]:
    """The text before ", because", and what stands in brackets or in LaTeX's text."""
    forms = []
    if inner := WRAPPED.fullmatch(line):
        forms.append(inner[1] or inner[2])
    found = BECAUSE.search(line)
    if found and ending(line, found.start(), len(line)) is not None:
        forms.append(line[: found.start()])
    return forms


def _texts(text: str, start: int, end: int, must_fill_line: bool, has_lines: bool = False) -> list[str]:
    """What is stated from `start` on, up to the end of its line and, where it need not fill it, of its sentence."""
    end = min(end, start + LONGEST_TEXT)
    if text[start - 1] == "{":
        content = text[start:end].strip()
        inner = LATEX_TEXT.fullmatch(content)
        return [inner[1] if inner else content]
    lead = TEXT_LEAD.match(text, start, end)
    position = lead.end() if lead else start
    must_fill_line = must_fill_line or "\n" in text[start:position]
    rest = text[position:end]
    # A block below its announcement is the answer as a whole: "3" is not the answer of "Answer:\n3\n2\n4".
    if has_lines or "\n" in text[start:position]:
        return [rest.partition("\n\n")[0].partition("```")[0].rstrip()]
    line = rest.partition("\n")[0].strip()
    sentence = None if must_fill_line else SENTENCE_END.search(line)
    return [line, line[: sentence.end()]] if sentence else [line]
