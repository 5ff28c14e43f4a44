r"""Numbers as people, models and LaTeX write them, each with its exact value.

`1,234` `1{,}234` `1\,234` `1 234` (with a thin or unbreakable space) `1,00,000` `-5` `−5` `–5` `minus 5` `$5` `.5`
`3/4` `\frac{3}{4}` `\frac34` `½` `1 1/2` `1 and 1/2` `1\frac{1}{2}` `1½` `1.5e3` `1.5 × 10^3` `1.5\times10^{3}`, and
where they are stated `1 million`, `10^6` and `five (5)`. A per
cent sign says how a number is written and is no part of it: 50% is 50. Nothing is evaluated: a division is only read
where it is written as one fraction. Digits are 0 to 9 only, at most 1,000 in a row, and exponents have at most three.
"""

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from fcot_lite.endings import DOUBT, NUMBER_WORDS, SCALES, ending, is_plain

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

# A number in running text.
SEPARATE = re.compile(
    # Behind a comma only the last of three: 1,2,3.
    rf"""(?: (?<![A-Za-z0-9.,/^]) | (?<=[0-9],[0-9],) | (?<=[0-9],[0-9]{{2}},) | (?<=[0-9],[0-9]{{3}},) )
      (?: (?<![\w)\]}}])(?=[-−–]) | (?=[^-−–+]) ) {VALUE.pattern} (?![.,:/^eExX]?[0-9])""",
    re.VERBOSE,
)

# What may stand between the statement and its number.
LEAD = re.compile(
    r"""(?: [\s*_`"'“”:=(\[{$€£¥₹₽₩≈] | \\[(\[,!;$\ ] | \\(?:text|textbf|mathbf|mathrm|bf|approx)\b
          | (?i:therefore|thus|then|hence|so|simply|just|only|that
                |there\s{1,3}(?:are|is|were|was)|exactly|also|still|indeed|clearly|now|again
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
# Behind a number: what closes it, and then words that may be its unit: 5 apples, $5/hour, 5 cm^2, 5 eggs a day.
_UNIT_WORDS = re.compile(
    r"""(?:[\s*_`"'“”’)\]}$%¢°€£¥₹₽₩]|\\[)\]%$ ,;!]|\^\{?\\circ\b\}?)*+
        (?P<words>(?:/?\s?[A-Za-zÀ-ɏµμ]+(?:['’-][A-Za-z]+)*(?:\^\{?[23]\}?|[²³])?[\s*_`)\]}$"”’/%°]*)*+)\.?""",
    re.VERBOSE,
)
# A letter alone is a variable, but for units: 5 m is a length, 5 x and 5xy are products. "a" stands before a word.
_VARIABLE = re.compile(r"(?<![\w'’°\\])(?:(?![mgshlLaI](?!\w))[A-Za-z]|[xyz]{2,3}|a(?=\W*\Z))(?!\w)(?![.]m)")
_NO_UNIT = re.compile(r"\W*(?i:is|was|are|were|has|have|and|to|st|nd|rd|th)\b")
_AGAIN = re.compile(rf"{_GAP}(?:,\s?)?[(]?(?:or|i\.e\.,?|that\ is,?)\s{_OPEN}", re.VERBOSE)
_SUM = re.compile(r"[0-9.]+(?:[-+*/×÷=][0-9.]+)+")
_MAGNITUDE = re.compile(r"[ ]{1,2}(?P<word>hundred|thousand|million|billion|trillion)(?![\w'’-])")
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWER_OF_TEN = re.compile(r"10(?:\^|\*\*)(?:\{([0-9]{1,3})\}|([0-9]{1,3}))(?![0-9^*]|\.[0-9])")
_NUMBER_WORD = re.compile(rf"(?i:{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})\b(?!\s(?:of|more|less)\b)")
_IN_DIGITS = re.compile(r"\s?\((?=\$?[0-9])")  # five (5)
# "The answer is Tom has 5 apples.": only where nothing comes after it, or it is the first sentence of a reasoning.
_SOMEBODY_HAS = re.compile(
    r"(?:[A-Z][a-z]{1,20}|he|she|it|they|we|you|I)\s(?:now\s)?(?:has|have|had|needs?|gets?|got)\s(?:only\s)?"
)
FILLS_LINE = re.compile(rf"{_GAP}{_UNITS}(?:[^\S\n]|[*_`.)\]}}$€£¥₹%!\"'’”]|\\[)\]])*+(?:\n|\Z)")


# As most answers are written, " 18." and " $18" to the end of the line: what follows would find nothing else in it.
_BARE = re.compile(r" \$?([0-9]{1,15})\.?(?:\n|\Z)")


def read_number(text: str, start: int, end: int, must_fill_line: bool) -> Stated | None:
    """The number stated from `start` on, as `readings` says of every reader."""
    if not must_fill_line and (bare := _BARE.match(text, start, end)):
        return _whole(bare[1]), bare[1]
    lead = LEAD.match(text, start, end)
    position = lead.end() if lead else start
    must_fill_line = must_fill_line or "\n" in text[start:position]
    in_words: Fraction | None = None
    ends_text = False
    if not LIKE_A_NUMBER.match(text, position, end):
        if word := _NUMBER_WORD.match(text, position, end):
            bracket = _IN_DIGITS.match(text, word.end(), end)
            if not bracket:
                in_words = Fraction(NUMBER_WORDS[word.group().lower()])
                return (in_words, word.group()) if is_plain(text, word.end(), end) else (None, "")
            in_words = Fraction(NUMBER_WORDS[word.group().lower()])
            position = bracket.end()
        elif text[start - 1 : start] == "s" and (has := _SOMEBODY_HAS.match(text, position, end)):
            position = has.end()
            ends_text = True
            if not LIKE_A_NUMBER.match(text, position, end):
                return None
        else:
            return None
    is_expression = False
    if power := _POWER_OF_TEN.match(text, position, end):
        plain = not must_fill_line or FILLS_LINE.match(text, power.end(), end)
        ten = Fraction(10) ** int(power[1] or power[2])
        return (ten, power.group()) if plain and is_alone(text, power.end(), end, ten) else (None, "")
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
    exact = _value(match)
    if is_expression or exact is None or (in_words is not None and exact != in_words):
        return None, ""
    value = exact
    magnitude = _MAGNITUDE.match(text, after, end)
    if magnitude:
        after = magnitude.end()
        value *= 10 ** _MAGNITUDES[magnitude["word"]]
    if text[start - 1 : start] == "{" and text[after : after + 1] == "!":
        return None, ""
    if not is_alone(text, after, end, value) or (ends_text and text[after:end].strip().find(". ") >= 0):
        return None, ""
    return value, text[match.start() : after]


def is_alone(text: str, after: int, end: int, value: Fraction) -> bool:
    """Whether what follows a number leaves it one plain number: an end, a unit, a reason, a remark without another."""
    if is_plain(text, after, end):
        return True
    if again := _AGAIN.match(text, after, end):  # "3/2 or 1.5"
        match = VALUE.match(text, again.end(), end)
        return match is not None and _value(match) == value and is_plain(text, match.end(), end)
    found = ending(text, after, end)
    if found is None or text[after] == "(" or (text[after] == "," and text[after + 1 : after + 2].isnumeric()):
        return False
    words = found.words
    unit = _UNIT_WORDS.fullmatch(words)
    if not unit:
        return False
    if unit["words"] and (_NO_UNIT.match(words) or _is_more(words)):
        return False
    if found.words.startswith("m") and text[after - 1].isdigit() and "$" in text[max(0, after - 30) : after]:
        return False  # $5m
    return not found.remark or _is_remark(found.remark, value)


def _is_more(words: str) -> bool:
    return any(pattern.search(words) is not None for pattern in (DOUBT, SCALES, _VARIABLE))


def _is_remark(remark: str, value: Fraction) -> bool:
    word = re.sub(r"[^a-z]", "", remark.lower())
    if NUMBER_WORDS.get(word) == value:  # 5 (five)
        return True
    written = re.sub(r"\\(?:times|cdot)\b", "×", remark)
    if any(map(str.isdigit, written)):
        if re.search(r"\b(?:and|to|plus|minus|over)\b", written) or DOUBT.search(written) or SCALES.search(written):
            return False
        terms = re.sub(r"(?<=[0-9])[,.](?=[^0-9]|\Z)|[^0-9.+*/×÷=−-]|[-.](?![0-9\s$(])", "", written).replace("−", "-")
        if not _SUM.fullmatch(terms):  # "(2 + 3 = 5)", but also ", that is 5 apples"
            return number(terms.strip(".")) == value and "," not in written[1:]
        return "=" not in terms or number(terms.rpartition("=")[2].strip(".")) == value
    return not (_is_more(written) or re.search(r"[+/^=×÷<>\\]|[^\x00-\u024f‘’“”–—]", written))


def numbers_in(text: str, start: int, end: int) -> Iterator[Fraction]:
    """The numbers of running text, from the left."""
    for match in SEPARATE.finditer(text, start, end):
        value = number(match.group())
        if value is not None:
            yield value


@lru_cache(maxsize=4096)  # a gold answer is read again for every completion
def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else, else None: "1,080" is 1080."""
    match = VALUE.fullmatch(text.strip())
    return _value(match) if match else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of VALUE; None where it divides by nothing or is mixed with more than a whole: 2 3/2."""
    written = match.group()
    if written.isascii() and written.isdigit():  # as nearly all are, and ten times as fast
        return _whole(written)
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


@lru_cache(maxsize=4096)
def _whole(digits: str) -> Fraction:
    return Fraction(int(digits))


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
