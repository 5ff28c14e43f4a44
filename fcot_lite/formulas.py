r"""Formulas as they are stated, and by which two of them count as the same: spelling only, no algebra.

`\dfrac12`, `\frac{1}{2}`, `1/2` and 0.5 are one number; `\left( 3, \frac{\pi}{2} \right)` and `(3,\frac{π}{2})` are one
text. That x+1 is 1+x is for math-verify to find. Searched and rewritten by patterns, never evaluated.
"""

import re
from fractions import Fraction

from fcot_lite.numerals import LEAD, VALUE, Stated, number

LONGEST_FORMULA = 1_000  # characters; the longest gold answer of MATH has under 200
_DELIMITED = re.compile(r"\s{0,8}(?:(?P<dollars>\${1,2})|\\\(|\\\[)")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")
# Around a number: a unit in \text{ } or of two letters or more, degrees, per cent. One letter may be a variable.
_AFTER_NUMBER = re.compile(
    r"""(?: \s | [$.,%°})] | \\[%$,;!] | \\[\])] | \^\{?\\circ\b\}? | \{,\}
          | \\(?:text|mathrm|mbox|textbf)\s?\{(?!\s*(?:or|and)\b)[^{}]{0,60}\}(?:\^\{?[23]\}?)? )*
        (?: [A-Za-z]{2,20}(?:\^\{?[23]\}?)?[\s.$]* )?""",
    re.VERBOSE,
)
# In order: what goes, and what is written in one way.
_SPELLINGS = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])", ""),
        (r"\\(?:text|mathrm|textbf|mathbf|mbox)\s?\{([^{}]*)\}", r"\1"),
        (r"\\[,;:!> ]|~|\\quad|\\qquad", ""),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\\$|\\?%|\$|\^\{?\\circ\}?|°", ""),
        (r"\s+", ""),
        (r"\\frac([0-9])([0-9])", r"\\frac{\1}{\2}"),
        (r"\\sqrt([0-9])", r"\\sqrt{\1}"),
        (r"(?<![\w}./])([0-9]{1,30})/([0-9]{1,30})(?![\w{./])", r"\\frac{\1}{\2}"),
        (r"\{,\}", ","),
        (r"[−–]", "-"),
        (r"π", r"\\pi"),
        (r"∞", r"\\infty"),
        (r"√", r"\\sqrt"),
        (r"\\(le|ge|ne)q?(?![A-Za-z])", r"\\\1q"),
        (r"\\cdot(?![A-Za-z])|×|·|\\times(?![A-Za-z])", "*"),
        (r"\^\{([0-9A-Za-z])\}", r"^\1"),
        (r"\A[A-Za-z]=(?!=)", ""),
        (r"[.,;]+\Z", ""),
    )
]


def read_formula(text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    """The formula stated from `start` on: what stands in the box or between the dollar signs, or the sentence."""
    end = min(end, start + LONGEST_FORMULA)
    written: str
    if text[start - 1] == "{":
        written = text[start:end]
    else:
        while start < end and text[start] in " \t\n:*_":
            start += 1
        opening = _DELIMITED.match(text, start, end)
        if opening:
            closing = opening["dollars"] or ("\\)" if opening.group().endswith("(") else "\\]")
            close = text.find(closing, opening.end(), end)
            if close < 0:
                return None
            written = text[opening.end() : close]
        else:
            stop = _SENTENCE_END.search(text, start, end)
            written = text[start : stop.start() if stop else end]
    written = written.strip(" \t\n*_`")
    if written.startswith("<") or not any(map(str.isalnum, written)):  # "<formula>", or the "$" before a box
        return None
    found = value(written)
    return None if found is None else (found, written)


def value(written: str) -> Fraction | str | None:
    """What a formula stands for: a number where it is one, else its text in one spelling; None where it is empty."""
    exact = number(written) or _number_in(written)
    if exact is not None:
        return exact
    for pattern, to in _SPELLINGS:
        written = pattern.sub(to, written)
    return written or None


def _number_in(written: str) -> Fraction | None:
    """The number of "x = 5", "$5$" and "5\\text{ cm}"; None where more than one number stands there."""
    lead = LEAD.match(written)
    match = VALUE.match(written, lead.end() if lead else 0)
    if not match or not _AFTER_NUMBER.fullmatch(written, match.end()):
        return None
    return number(match.group())
