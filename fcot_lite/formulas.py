r"""Formulas as they are stated, and by which two of them count as the same: spelling only, no algebra.

`\dfrac12`, `\frac{1}{2}`, `1/2` and 0.5 are one number; `\left( 3, \frac{\pi}{2} \right)` and `(3,\frac{π}{2})` are one
text. That x+1 is 1+x is for math-verify to find. Searched and rewritten by patterns, never evaluated.
"""

import re
from fractions import Fraction

from fcot_lite.endings import DOUBT, ending, is_plain
from fcot_lite.numerals import Stated, is_alone, number

LONGEST_FORMULA = 1_000  # characters; the longest gold answer of MATH has under 200
_DELIMITED = re.compile(r"\s{0,8}(?:(?P<dollars>\${1,2})|\\\(|\\\[)")
_PRICE = re.compile(r"[0-9][0-9,]{0,20}(?:\.[0-9]{1,20})?")
# "the point (3, 4)"
_CALLED = re.compile(
    r"(?i:the\s(?:point|interval|set|function|polynomial|expression|number|value|ordered\s(?:pair|triple))\s)"
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s*_]|\Z)|\n")
# What may stand behind a number as its unit. Any other letters may be variables: 5xy is no 5.
_UNITS = (
    "mm|cm|dm|km|m|in|inch|inches|ft|foot|feet|yd|yards?|miles?|mph|(?:centi|milli|kilo)?met(?:er|re)s?|mg|kg|g|grams?"
    "|(?:kilo|milli)grams?|lbs?|pounds?|oz|ounces?|tons?|ml|l|lit(?:er|re)s?|gallons?|quarts?|pints?|cups?|ms|s|sec|seconds?"
    "|min|minutes?|hr|hrs|h|hours?|days?|weeks?|months?|years?|dollars?|cents?|euros?|degrees?|radians?|units?|percent"
    "|points?|people|students?|ways?|apples?|square|cubic|sq|per"
)
_WITH_UNIT = re.compile(
    rf"""(?P<number>.*[0-9}}]) (?: (?:\\[,;: ]|~|\s)*
          (?: \\(?:text|mathrm|mbox|textbf)\s?\{{\s*(?:(?:{_UNITS})[\s./]*){{1,3}}\}} | (?:\s(?:{_UNITS})\b){{1,3}}
            | (?:cm|mm|km|kg)\b )
          (?:\^\{{?[23]\}}?|[²³])? ) [\s.]*""",
    re.VERBOSE,
)
_NAME = re.compile(r"([A-Za-z])=(?!=)(?![A-Za-z]\Z)")  # "x=5", but not the equation "x=y"
_COMMAND = re.compile(r"\\(?!text|mbox|textbf|textit)[A-Za-z]+|\\text(?:bf|it)?\{\s*\}")
_WORDS = re.compile(
    r"(?!(?:sin|cos|tan|cot|sec|csc|log|exp|min|max|gcd|lcm|mod|arcsin|arccos|arctan|sqrt|frac|text|textbf|textit"
    r"|mbox)(?![A-Za-z]))"
    r"(?<![A-Za-z])(?:[A-Za-z]{3,}|or|if|is|of|to|in|no|not|[A-Z][a-z])(?![A-Za-z])"
)
_BECAUSE = re.compile(r",?\s(?:because|since|as)\s.*", re.DOTALL)
# In order: what goes, and what is written in one way.
_SPELLINGS = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])", ""),
        (r"\\(?:text|mathrm|textbf|mathbf|mbox)\s?\{([^{}]*)\}", r"\1"),
        (r"\\!", ""),
        (r"\\[,;:> ]|~|\\qquad|\\quad", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\\$|\\?%|\$|\^\{?\\circ\}?|°", ""),
        (r"(?<![0-9])\s+|\s+(?![0-9])", ""),  # "1 2" is not 12
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
        (r"[.,;]+\Z", ""),
    )
]


def read_formula(gold: Fraction | str | None, text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    """The formula stated from `start` on: what stands in the box or between the dollar signs, or the sentence.

    A name before it, "x = 5", and a unit behind it, "5 cm", do not count where `gold` has none.
    """
    end = min(end, start + LONGEST_FORMULA)
    written: str
    after: int | None = None
    if text[start - 1] == "{":
        written = text[start:end]
    else:
        while start < end and text[start] in " \t\n:*_":
            start += 1
        if start < end and text[start] != "$" and (called := _CALLED.match(text, start, end)):
            start = called.end()
        opening = _DELIMITED.match(text, start, end)
        if opening:
            closing = opening["dollars"] or ("\\)" if opening.group().endswith("(") else "\\]")
            close = text.find(closing, opening.end(), end)
            if close < 0 and closing == "$" and (price := _PRICE.match(text, opening.end(), end)):  # "$5.00."
                exact = number(price.group())
                return (exact, price.group()) if exact is not None and is_plain(text, price.end(), end) else (None, "")
            if close < 0:
                return None
            written = text[opening.end() : close]
            after = close + len(closing)
        else:
            stop = _SENTENCE_END.search(text, start, end)
            written = _BECAUSE.sub("", text[start : stop.start() if stop else end])
            if stop and stop.group() == "?":
                return None, ""
            if " " in written and DOUBT.search(_COMMAND.sub("", written)):
                return None, ""  # "x^2 or x^3"
    written = written.strip(" \t\n*_`")
    if written.startswith("<") or not any(map(str.isalnum, written)):  # "<formula>", or the "$" before a box
        return None
    found = _as_gold(written, gold)
    if found is None:
        return None
    if after is not None and not _is_alone(text, after, end, found):
        return None, ""
    return found, written


def _is_alone(text: str, after: int, end: int, found: Fraction | str) -> bool:
    if is_plain(text, after, end):
        return True
    if isinstance(found, Fraction):
        return is_alone(text, after, end, found)
    how = ending(text, after, end)
    if how is None or how.words.strip(" *_`\"'”’)]}"):
        return False
    return not (DOUBT.search(how.remark) or re.search(r"[$0-9+/^=×÷<>\\]|\band\b", how.remark))


def _as_gold(written: str, gold: Fraction | str | None) -> Fraction | str | None:
    """What a formula stands for beside a gold answer: without a name or a unit, where that has none."""
    found = value(written)
    name = _NAME.match(found) if isinstance(found, str) else None
    gold_name = _NAME.match(gold) if isinstance(gold, str) else None
    if name and not gold_name and isinstance(found, str):
        written = written[written.index("=") + 1 :]
        found = value(written)
    elif gold_name and not name and isinstance(gold, str) and value(gold[gold_name.end() :]) == found:
        return gold
    if isinstance(found, str) and isinstance(gold, Fraction) and (unit := _WITH_UNIT.fullmatch(written.strip("$ "))):
        exact = value(unit["number"])
        return exact if isinstance(exact, Fraction) else found
    return found


def value(written: str) -> Fraction | str | None:
    """What a formula stands for: a number where it is one, else its text in one spelling; None where it is empty."""
    exact = number(written)
    if exact is not None:
        return exact
    has_list = re.search(r",\s", written) is not None  # "1, 234" is no 1,234
    for pattern, to in _SPELLINGS:
        written = pattern.sub(to, written)
    exact = None if has_list else number(written)
    return exact if exact is not None else written or None


def is_prose(written: str) -> bool:
    """Whether words stand in it: "5 \\text{ or } 6". math-verify reads what it can and leaves out the rest."""
    return _WORDS.search(_COMMAND.sub(" ", written)) is not None


def other_name(target: str, written: str) -> bool:
    """Whether both define something and each another thing: y = 2x and x = 2x."""
    names = [_NAME.match(re.sub(r"\s", "", text)) for text in (target, written.strip("$"))]
    return None not in names and len({name[1] for name in names if name}) == 2
