"""The lenient column: the last thing in a text that could be its answer, wherever it stands.

lm-eval calls it flexible-extract. It shows how many right answers the strict rule misses for their form, and as many
that it rightly refuses: 15 apples at the end of "12 + 3 = 15 apples are left" may be the answer or a step before it.
Never what admits training data. Of a list "1,2,3" the last number counts; "1,23" and "1.234,5", which may be a list or
a decimal comma, are no numbers here as they are none for strict.
"""

import re
from collections import deque
from collections.abc import Sequence

from fcot_lite.formulas import value
from fcot_lite.numerals import SEPARATE, Stated, number
from fcot_lite.readings import LETTERS, trimmed

WINDOW = 10_000  # characters that are searched: a megabyte of digits or letters is judged in milliseconds as well
LONGEST_NUMBER = 3_000  # characters before the last digit in which the last number is looked for
_DIGIT = re.compile("[0-9½¼¾⅓⅔]")
# Stands in no number as VALUE has them, so that what is behind it can be read by itself.
_NO_PART = re.compile("[=:?()%bhjklpqwyzA-DF-WYZ]")
_YES_NO = re.compile(r"(?<![\w'’-])(?i:yes|no)(?![\w'’-])")
_WORD = re.compile(rf"(?<![\w'’])(?:{LETTERS.pattern})")
# "A" before a word in small letters is an article, "I" a person.
_LETTER = re.compile(r"[(\[](?P<closed>[A-Za-z])[)\]]|(?<![\w'’.-])(?P<bare>[A-Z])(?![\w'’-])(?!(?<=[AI])\s+[a-z])")
_FORMULA = re.compile(r"\$([^$\n]{1,2000}+)\$|\\\(((?:[^\\\n]|\\[^()\n]){1,2000}+)\\\)")


def last_number(text: str) -> Stated | None:
    backwards = text[::-1]
    digit = _DIGIT.search(backwards)
    if not digit:
        return None
    end = len(text) - digit.start()
    start = max(0, end - LONGEST_NUMBER)
    near = _NO_PART.search(backwards, digit.end(), len(text) - start)
    for begin in (len(text) - near.start() if near else start, start):
        found = deque(SEPARATE.finditer(text, begin, min(len(text), end + 1)), maxlen=1)
        if found:
            written = found[0].group()
            exact = number(written)
            return None if exact is None else (exact, written)
    return None


def last_choice(choices: Sequence[str], text: str) -> Stated | None:
    """The last letter of an option that stands alone or in brackets, else the option whose text comes last."""
    window = text[-WINDOW:]
    letters = [match["closed"] or match["bare"] for match in _LETTER.finditer(window)]
    for letter in reversed(letters):
        if ord(letter.upper()) - ord("A") < len(choices):
            return letter.upper(), letter
    last = (-1, 0, 0)  # where it ends, how long it is, which option it is
    casefolded = window.casefold()
    for i, choice in enumerate(choices):
        if choice.casefold() not in casefolded:
            continue  # the search takes far longer
        for match in re.finditer(rf"(?<!\w){re.escape(choice)}(?!\w)", window, re.IGNORECASE):
            last = max(last, (match.end(), len(choice), i))
    end, length, option = last
    return (chr(ord("A") + option), window[end - length : end]) if length else None


def last_yes_no(text: str) -> Stated | None:
    words = [match.group() for match in _YES_NO.finditer(text[-WINDOW:])]
    return (words[-1].lower(), words[-1]) if words else None


def last_letters(text: str) -> Stated | None:
    """The last word, or the last letters that stand apart: "It is eksa", "e-k-s-a"."""
    words = [match.group() for match in _WORD.finditer(text[-WINDOW:])]
    return (re.sub(r"[\W\d_]", "", words[-1]).lower(), words[-1]) if words else None


def last_line(text: str) -> str:
    """The last line that is not empty, without the markdown around it."""
    return trimmed(text[-WINDOW:].rstrip().rpartition("\n")[2])


def last_formula(text: str) -> Stated | None:
    formulas = [match[1] or match[2] for match in _FORMULA.finditer(text[-WINDOW:])]
    found = value(formulas[-1]) if formulas else None
    return last_number(text) if found is None else (found, formulas[-1])
