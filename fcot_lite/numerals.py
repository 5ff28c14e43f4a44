r"""Numbers as people, models and LaTeX write them, each with its exact value.

`1,234` `1{,}234` `1\,234` `1 234` (with a thin or unbreakable space) `1,00,000` `-5` `−5` `–5` `minus 5` `$5` `.5`
`3/4` `\frac{3}{4}` `\frac34` `½` `1 1/2` `1 and 1/2` `1\frac{1}{2}` `1½` `1.5e3` `1.5 × 10^3` `1.5\times10^{3}`. A per
cent sign says how a number is written and is no part of it: 50% is 50. Nothing is evaluated: a division is only read
where it is written as one fraction. Digits are 0 to 9 only, at most 1,000 in a row, and exponents have at most three.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

MOST_STEPS = 32  # as many terms as the longest generated chain has
Stated = tuple[Fraction | str | None, str]

_SIGN = r"[-−–‐‑+]"
CURRENCY = r"\\?[$€£¥₹₽₩]"
_COMMA = r"(?:,|\{,\}|,?\\[,!])"  # 1,234 and, in LaTeX, 1{,}234, 1\,234 and 1,\!234
# At most 1,000 digits: Python itself refuses to convert more than 4,300, and no task has an answer near either.
# "0,123" is no grouping: there the comma is a decimal point.
_WHOLE = rf"""(?: [1-9][0-9]{{0,2}}+ (?:{_COMMA}[0-9]{{3}}){{1,300}}+
      | [1-9][0-9]{{0,2}}+ (?:[\u00a0\u2009\u202f][0-9]{{3}}){{1,300}}+
      | [1-9][0-9]?+ (?:,[0-9]{{2}}(?![0-9])){{1,100}}+ ,[0-9]{{3}}
      | [0-9]{{1,1000}}+ )"""
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]{{1,1000}}+)?+|\.[0-9]{{1,1000}}+)(?![0-9])"
_FRAC = r"\\[dtc]?frac"
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_SMALL = r"[0-9]{1,9}(?![0-9])"
_IN_FRAC = rf"\s?\{{\s?(?P<{{sign}}>[-−–]?+)\s?(?P<{{name}}>{_NUMBER})\s?\}}"
_ABOVE = _IN_FRAC.replace("{sign}", "above_sign").replace("{name}", "above")
_BELOW = _IN_FRAC.replace("{sign}", "below_sign").replace("{name}", "below")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
# Three digits of an exponent are more than any answer has, and 10**999 is made in no time: 10**999999999 is not.
_EXPONENT = r"""(?: [eE](?P<e>[-−+]?+[0-9]{1,3}+)(?![0-9])
      | [ ]?(?:[×xX*·]|\\times|\\cdot)[ ]?10[ ]?
        (?: (?:\^|\*\*)[ ]?\{?[ ]?(?P<power>[-−–+]?+[0-9]{1,3}+)(?!\.?[0-9])\}?+
          | (?P<raised>⁻?+[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}+) ) )"""
VALUE = re.compile(
    rf"""(?P<sign>(?:{_SIGN}|(?:minus|negative)[ ](?=[\d$.\\]))?+) (?:{CURRENCY})?+
      (?: (?P<whole>{_WHOLE}) (?![0-9])
            (?: (?:[ ]{{1,2}}|[ ]and[ ]|\\[ ,;!]) (?P<n>{_SMALL}) [/⁄] (?P<d>{_SMALL})
              | (?:[ ]|\\[ ,;!])?+ {_FRAC}
                (?: \{{(?P<fn>{_SMALL})\}}\{{(?P<fd>{_SMALL})\}} | (?P<un>[0-9])(?P<ud>[0-9])(?![0-9]) )
              | [ ]?+ (?P<part>[{_VULGAR}]) )
        | (?P<a>{_NUMBER}) (?: [/⁄](?P<b>{_NUMBER}) | {_EXPONENT} )?+
        | (?P<alone>[{_VULGAR}])
        | {_FRAC} (?: {_ABOVE}{_BELOW} | [ ]?(?P<up>[0-9])[ ]?(?P<down>[0-9])(?![0-9]) ) )""",
    re.VERBOSE,
)
LIKE_A_NUMBER = re.compile(
    rf"(?:{_SIGN}|(?:minus|negative)[ ])?+(?:{CURRENCY})?+(?:\.?+[0-9]|{_FRAC}(?![A-Za-z])|[{_VULGAR}])"
)

# What may stand between the statement and its number.
LEAD = re.compile(
    r"""(?: [\s*_`"'“”:=(\[{$€£¥₹₽₩≈] | \\[(\[,!;$\ ] | \\(?:text|textbf|mathbf|mathrm|bf|approx)\b
          | (?i:therefore|thus|then|hence|so|simply|just|exactly|also|still|indeed|clearly|now|again
                |approximately|about|around|roughly|equal\s{1,3}to|equals|a\s{1,3}total\s{1,3}of)\b [,:]?+
          | (?:USD|EUR|GBP|INR|US)(?![a-z]) | Rs\b\.?+ | [A-Za-z]{1,20}+\s?+=(?!=) ){0,40}+""",
    re.VERBOSE,
)
_GAP = r"(?:[^\S\n]|[*_`)}$€£¥₹%°]|\\[)\]%$ ,;!]|\^\{?\\circ\b\}?){0,8}"  # closes markdown and LaTeX around a number
_POWER = r"(?:\^\{?[23]\}?|[²³])?+"
# As LaTeX writes a unit, unless it says \text{ or }.
_LATEX_UNIT = rf"\\(?:text|textbf|mathrm|mathbf|mbox|rm)\s?\{{(?!\s*(?:or|and|to)\b)[^{{}}\n]{{0,60}}+\}}{_POWER}"
_UNITS = rf"(?:(?:(?:/[^\S\n]?)?+(?!(?:or|and)\b)[A-Za-z°µ]{{1,20}}+{_POWER}|{_LATEX_UNIT})[^\S\n]{{0,3}}+){{0,3}}"
_OPEN = r"(?:[^\S\n]|[*_`({$]|\\[(\[]|[A-Za-z]{1,20}\s?=\s?){0,8}"
# A further term: 12 [+] 3, 12 apples [=] 15 apples.
STEP = re.compile(
    rf"""{_GAP} {_UNITS} {_GAP} (?P<operator> = | [-+−–*×·•÷/^≈~±] | \*\* | \\(?:times|div|cdot|approx|pm)\b
         | [xX](?=[\W\d]) | (?:plus|minus|times|over|mod|(?:multiplied|divided)[ ]by)\b )
         {_OPEN} (?={LIKE_A_NUMBER.pattern})""",
    re.VERBOSE,
)
# Words after which another number has nothing to do with this one: "5 because 2 + 3 = 5", "5 on day 3".
_REASONS = "because|since|as|so|for|from|with|when|after|if|before|by|until|that|which|while|where|in|on|at|the|times"
# What makes a number more than one plain number.
GOES_ON = re.compile(
    rf"""[A-Za-z_]{{0,20}}[0-9] | (?:{_COMMA}|[.:'’/])[0-9] | [eE][-−+][0-9] | {_GAP}:[ ]?[0-9]
      | {_GAP}\?
      | (?:st|nd|rd|th)\b
      | {_GAP}(?:[xyzπ√∛]\b|π|√|∛|\\(?:sqrt|pi)\b|pi\b) | [abeijnqru]\b
      | {_GAP}{_UNITS}{_GAP} (?: [+±×÷] | \^(?!\{{?\\circ) | \\(?:times|cdot|pm|div)\b )
      | [^\S\n]\*[^\S\n][A-Za-z(\\] | \([0-9] | [^\S\n]?/[^\S\n]?\(
      | (?:[kKMB]|bn|mn)\b | {_GAP} (?i:hundred|thousand|million|billion|trillion|lakh|crore)s?\b
      | {_GAP} {_UNITS} {_GAP} (?: [(,]?[ ]?\bor\b | \\(?:text|mathrm|mbox)\s?\{{\s?(?:or|and|to)\b )
      | {_GAP} {_UNITS} {_GAP} (?:[,;&]|\b(?:or|and|to|of|per|than|less|more|not|no|rather|wait|actually)\b)
        (?:[^\S\n]{{0,3}}(?:[,;]|\b(?:or|no|not|rather|wait|actually|than)\b)){{0,4}}+ {_OPEN}
        (?={LIKE_A_NUMBER.pattern})
      | {_GAP} (?: {_LATEX_UNIT} {_GAP} | (?: (?!(?:{_REASONS})\b)[A-Za-z]{{1,20}}+ {_GAP} )?+ (?<=\s) )
        (?={LIKE_A_NUMBER.pattern})""",
    re.VERBOSE,
)
FILLS_LINE = re.compile(rf"{_GAP}{_UNITS}(?:[^\S\n]|[*_`.)\]}}$€£¥₹%!\"'’”]|\\[)\]])*+(?:\n|\Z)")


def read_number(text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    """The number stated from `start` on, as `readings` says of every reader."""
    lead = LEAD.match(text, start, end)
    position = lead.end() if lead else start
    if not LIKE_A_NUMBER.match(text, position, end):
        return None
    must_fill_line = must_fill_line or "\n" in text[start:position]
    is_expression = False
    for _ in range(MOST_STEPS):
        match = VALUE.match(text, position, end)
        if not match:
            return None, ""
        step = STEP.match(text, match.end(), end)
        if not step:
            break
        is_expression = step["operator"] != "="
        position = step.end()
    else:
        return None, ""
    after = match.end()
    if must_fill_line and not FILLS_LINE.match(text, after, end):
        return None
    if is_expression or text[after : after + 1].isnumeric() or GOES_ON.match(text, after, end):
        return None, ""
    return _value(match), match.group()


@lru_cache(maxsize=4096)  # a gold answer is read again for every completion
def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else, else None: "1,080" is 1080."""
    match = VALUE.fullmatch(text.strip())
    return _value(match) if match else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of VALUE; None where it divides by nothing or is mixed with more than a whole: 2 3/2."""
    parts = match.groupdict()
    value: Fraction | None
    if whole := parts["whole"]:
        above, below = (parts["n"] or parts["fn"] or parts["un"], parts["d"] or parts["fd"] or parts["ud"])
        part = _part(parts["part"]) if parts["part"] else _over(above, below)
        value = None if part is None or part >= 1 else _decimal(whole) + part
    elif parts["a"]:
        exponent = parts["e"] or parts["power"] or (parts["raised"] or "").translate(_SUPERSCRIPTS)
        value = _over(parts["a"], parts["b"]) if parts["b"] else _decimal(parts["a"])
        if exponent and value is not None:
            value *= Fraction(10) ** int(exponent.replace("−", "-").replace("–", "-"))
    elif parts["alone"]:
        value = _part(parts["alone"])
    elif parts["up"]:
        value = _over(parts["up"], parts["down"])
    else:
        value = _over(parts["above"], parts["below"])
        if value is not None and bool(parts["above_sign"]) != bool(parts["below_sign"]):
            value = -value
    return value if value is None or parts["sign"] in ("", "+") else -value


def _decimal(written: str) -> Fraction:
    whole, _, decimals = written.partition(".")
    digits = re.sub(r"[^0-9]", "", whole) if len(whole) > 3 else whole
    return Fraction(int(digits + decimals), 10 ** len(decimals)) if decimals else Fraction(int(digits))


def _over(above: str, below: str) -> Fraction | None:
    divisor = _decimal(below)
    return _decimal(above) / divisor if divisor else None


def _part(character: str) -> Fraction:
    """The value of one of the characters of _VULGAR, whose decomposition is "1⁄2"."""
    return Fraction(unicodedata.normalize("NFKC", character).replace("⁄", "/"))


# A double prints with 15 to 17 digits: a gold answer with as many was computed, not written. 5/6 came out as
# 0.8333333333333334, and 11/6 as 1.8333333333333335, a step of a double away.
_COMPUTED = re.compile(r"-?(?=(?:\.?[0-9]){15,18}\Z)(?P<whole>[0-9]+)\.[0-9]{10,}")
_LARGEST_DIVISOR = 1000
_NOISE = Fraction(1, 10**14)


def meant(gold: str) -> Fraction | None:
    """What a gold answer stands for that a computer wrote with all the digits of a double: the fraction with a divisor
    up to 1,000 that lies within 1e-14 of it, relatively. None for every other gold answer, which is what it says."""
    if not _COMPUTED.fullmatch(gold):
        return None
    exact = Fraction(gold)
    near = exact.limit_denominator(_LARGEST_DIVISOR)
    return near if near and abs(near - exact) <= _NOISE * abs(near) else None


def says(meaning: Fraction, answer: Stated) -> bool:
    """Whether an answer is `meaning`, with all the digits of a double or rounded to two decimals or more: 0.83 and
    0.8333333333333334 for 5/6, but not 0.8."""
    value, written = answer
    if not isinstance(value, Fraction):
        return False
    places = len(written.partition(".")[2])
    return abs(value - meaning) <= _NOISE * abs(meaning) or (places >= 2 and value == round(meaning, places))
