r"""Equations in free text, recomputed exactly: "3 apples + 4 = 7 apples", "\(\frac{24}{3} = 8\)", "20% of 50 is 10".

A text is cut into tokens once; around each "=", "≈" or "is" at most MOST_TOKENS of them are read to the left and to the
right, so time grows linearly. Nothing is evaluated but sums of this grammar, in fractions of bounded size.

An equation is judged only where both sides are numbers and operators throughout, with units between them, and one side
has an operator, or repeats the result of one that has. A variable, an unknown symbol, a missing operand, a time of day,
a dozen, a mixed number, two measures of one kind ("1 hour + 30 minutes") or a second quantity behind the result leave
it alone: what cannot be read is not called wrong. What counts as right:

- the same value; or, of a running total as pupils write it, "3 + 4 = 7 + 5 = 12", the value of the side's first term;
- decimals, and whole per cents, that are the true value's, rounded or cut off: "10 / 3 = 3.33", "2 / 3 = 67%". A whole
  number only where the text says so: "≈" rounds, and beside "rounded" or "remainder" it may be off by less than one;
- a percentage as a hundredth, as itself beside another ("100% - 20% = 80%", "1 / 5 * 100 = 20%"), or of what it is
  added to ("$40 - 10% = $36");
- a change of units: "4 * 25 cents = $1".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MOST_TOKENS = 64  # of one side: twice as many as the longest generated chain has
MOST_UNIT_WORDS = 4
MOST_BITS = 4096  # of a power; all other values are bounded by the tokens and their digits

_COMMA = r"(?:,|\{,\}|\\,)"
TOKEN = re.compile(
    rf"""(?P<space>(?:[^\S\n]|\\[()\[\],;!:\ ]|\\(?:left|right|quad|qquad|displaystyle|boxed)(?![A-Za-z])|[&`])+)
       | (?P<newline>\n|\\\\)
       | (?P<words>\\(?:text|textbf|mathrm|mathbf|mbox)\{{[^{{}}\n]{{0,80}}\}}
                 | \([A-Za-z][A-Za-z'’\ -]{{1,60}}\) | [0-9]{{1,4}}(?:st|nd|rd|th)\b)
       | (?P<bad>[0-9]{{31,}}+ | [0-9]++(?:\.[0-9]++){{2,}}+ | [0-9]++(?::[0-9]++)++ | [0-9]++[eE][-+]?[0-9]++
               | [0-9]++[ ]?[AaPp](?:\.[Mm]\b\.?|[Mm]\b)
               | (?!(?<=[0-9])[xX][0-9])[^\W\d]\w*[\d_]\w* )
       | (?P<number>(?P<currency>\\?[$€£¥₹][ ]?)?+ (?=\.?[0-9])
           (?:[0-9]{{1,3}}(?:{_COMMA}[0-9]{{3}}){{1,9}}(?![0-9])|[0-9]{{1,30}}+)?+
           (?:\.(?P<decimals>[0-9]{{1,30}}+))?+ (?P<percent>[ ]?\\?%(?![ ]?[0-9])|[ ]percent\b)?+ )
       | (?P<fraction>\\[dtc]?frac(?=[ ]?\{{))
       | (?P<relation>=(?![=>]) | ≈ | ≅ | ≃ | \\approx(?![A-Za-z]) | \\simeq(?![A-Za-z])
           | (?:which[ ]|that[ ])?(?:is|are|equals?|gives|makes|yields)\b
             (?:[ ](?:equal[ ])?to\b|[ ](?:us|you|her|him|me)\b)?
             (?=[^\S\n]*(?:(?:about|approximately|roughly|around|only|exactly|still|a[ ]total[ ]of)[ ])?
                [\\(]{{0,2}}[-−$£€]?[$]?\.?[0-9]))
       | (?P<apart>[=!<>+*/:-]={{1,3}}>? | -{{1,9}}> | =>| → | << | >>
           | \\(?:rightarrow|Rightarrow|implies|to|neq?|leq?|geq?)(?![A-Za-z]))
       | (?P<power>\*\*(?=[ ]?[0-9(]) | \^)
       | (?P<operator>[-−–—+*×·⋅•∙÷/∗] | \\(?:times|div|cdot|ast)(?![A-Za-z])
           | (?:plus|minus|times)\b(?=[^\S\n]*[-−(\\$£€]{{0,3}}\.?[0-9]) | (?:multiplied|divided)[ ]by\b
           | [xX](?=[^\S\n]?[(\\$]{{0,2}}\.?[0-9])
           | of\b(?:[ ](?:the|his|her|their|its|those|these|all)\b)?(?=[ ][(\\]{{0,2}}[$]?\.?[0-9]))
       | (?P<open>\\?[({{\[]) | (?P<close>\\?[)}}\]])
       | (?P<word>[^\W\d_]{{2,}}+(?=/[A-Za-z])/)
       | (?P<plain>[^\W\d_]+(?:['’-][^\W\d_]+)*)
       | (?P<stop>[.,;:!?"“”<>#~|'’‘]) | (?P<symbol>.)""",
    re.VERBOSE,
)
_OPERATORS = {"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "•": "*", "∙": "*", "∗": "*", "÷": "/"}
_OPERATORS |= {"\\times": "*", "\\cdot": "*", "\\ast": "*", "\\div": "/", "plus": "+", "minus": "-", "times": "*"}
_OPERATORS |= {"multiplied by": "*", "divided by": "/", "of": "*", "x": "*", "X": "*"}


def _words(written: str) -> frozenset[str]:
    return frozenset(written.split())


_UNIT_LETTERS = frozenset("mglshLaI")  # other single letters are variables
_ABOUT = _words("about approximately roughly around approx nearly almost")
_FILLER = _words("only exactly still a an total of the just") | _ABOUT
# What makes the number before it another one.
_UNREADABLE = _words("dozen dozens hundred hundreds thousand thousands million millions billion k K M o'clock o’clock")
# "Step 2 - 8 * 2 = 16"
_LABELS = _words("step part day week month year question problem case option round level")
# What may stand before a number that "= 4 * 5" follows; any other word makes it a name: "Day 3 = 5 + 4".
_CONCLUDES = _words("so thus then hence therefore that is get gives have total and")
_DIMENSIONS = [
    _words("second sec minute min hour hr day week month year decade century"),
    _words("inch inche foot feet ft yard yd mile meter metre kilometer centimeter millimeter cm mm km m"),
    _words("kg g gram kilogram milligram mg ounce oz pound lb ton"),
    _words("cup pint quart gallon liter litre ml teaspoon tablespoon"),
    _words("cent penny pennie nickel dime quarter dollar buck"),
]
_FACTORS = frozenset(
    [2, 3, 4, 5, 7, 8, 10, 12, 16, 20, 24, 25, 30, 36, 52, 60, 100, 144, 365, 1000, 3600, 1440, 5280]
)  # between units
_MEASURES = frozenset[str]().union(*_DIMENSIONS)
# Said of the equation itself: "a whole pizza" or "a round table" rounds nothing.
_ROUNDING = (
    r"\b(?:round(?:ed|ing)|rounds?(?: \w+){0,3} (?:up|down|off|to)|nearest|whole numbers?|remainder|left ?over|floor\w*"
    r"|ceil\w*|trunc\w*|estimat\w*)\b"
)
_ROUNDED_BEFORE = re.compile(rf"(?i){_ROUNDING}[^.!?\n]{{0,60}}\Z")
_ROUNDED_BEHIND = re.compile(
    rf"(?i)(?:[^.!?\n]{{0,60}}?|[.,;]? (?:with |and |so )?(?:the |a |it )?(?:\w+ )?){_ROUNDING}"
)
_ABOUT_BEFORE = re.compile(r"(?i)(?:\b(?:approx\w*|roughly)\b[^.!?\n]{0,60}|≈[^.!?\n]{0,60}|\babout )\Z")
_ABOUT_BEHIND = re.compile(r"(?i)[^.!?\n]{0,60}?(?:\b(?:approx|roughly)|≈)")

Kind = Literal["number", "operator", "open", "close", "fraction", "word", "bad", "stop", "newline", "relation"]


_KINDS: dict[str, Kind] = {
    "relation": "relation", "newline": "newline", "open": "open", "close": "close", "fraction": "fraction", "bad": "bad"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int = 0
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation: numbers, operators and parentheses, the units taken out."""

    tokens: tuple[Token, ...]
    measures: frozenset[str]
    has_unit: bool
    is_name: bool  # "Day 3"
    start: int
    end: int

    @property
    def lone(self) -> bool:
        return len([token for token in self.tokens if token.kind == "number"]) == 1 and not any(
            token.kind == "fraction" or (token.kind == "operator" and token.text != "-") for token in self.tokens
        )

    @property
    def is_sum(self) -> bool:
        return any(token.kind == "operator" and token.text in "+-" for token in self.tokens)

    @property
    def has_percent(self) -> bool:
        return any(token.percent for token in self.tokens)

    def __str__(self) -> str:
        """Without spaces and units, numbers in their shortest form: "2*3.5"."""
        written = "".join(_number_as_text(token) for token in self.tokens)
        written = written.replace("}{", ")/(").replace("{", "(").replace("}", ")").replace("[", "(").replace("]", ")")
        return re.sub(r"\(([0-9.]+)\)/\(([0-9.]+)\)", r"\1/\2", written)


@dataclass(frozen=True, slots=True)
class Equation:
    """`about` where the text calls it an approximation."""

    left: Side
    right: Side
    about: bool

    @property
    def start(self) -> int:
        return self.left.start

    @property
    def end(self) -> int:
        return self.right.end


def equations(text: str) -> Iterator[Equation]:
    """Every link of two readable sides with an operator in one of them, and every repeat of its result ("= 2 = 4"), in
    the order of the text."""
    tokens = _tokens(text)
    result = -1  # where the result of the last link stands
    for at, token in enumerate(tokens):
        if token.kind != "relation":
            continue
        left = _left(tokens, at)
        if left is None:
            continue
        begin = at + 1
        about = token.text[0] in "≈≅≃\\"
        while begin < len(tokens) and tokens[begin].kind == "word" and tokens[begin].text in _FILLER:
            about = about or tokens[begin].text in _ABOUT
            begin += 1
        right = _right(tokens, begin)
        if right is None:
            continue
        worded = token.text[0].isalpha()
        # "8 + 2 is 3 more than 7", "10 + 20 is 3 times as many as 10"
        compares = any(word.text in ("than", "as") for word in tokens[begin + 1 : begin + 4])
        if worded and (left.lone or not right.lone or compares):
            continue
        if left.lone and (left.has_unit or left.has_percent or left.is_name):
            continue
        if left.lone and right.lone and left.start != result:
            continue
        result = right.start
        yield Equation(left, right, about)


def wrong(text: str) -> Iterator[tuple[Equation, Fraction]]:
    """The equations that do not hold, each with the true value of its computed side."""
    rounded: set[Fraction] = set()  # results: what is computed with them is not exact
    for equation in equations(text):
        true = _holds(equation, text, rounded)
        if true is not None:
            yield equation, true


def value(side: Side, percent: Literal["hundredth", "itself", "relative"] = "hundredth") -> Fraction | None:
    """The exact value; None where it is not defined or too large to compute."""
    return _Parser(side.tokens, percent).value()


def _holds(equation: Equation, text: str, rounded: set[Fraction]) -> Fraction | None:
    """None where the equation holds or cannot be judged, else the true value of its computed side."""
    left, right = equation.left, equation.right
    computed, shown = (right, left) if left.lone and not right.lone else (left, right)
    true, stated = value(computed), value(shown)
    if true is None or stated is None or _mixes_measures(computed, shown):
        return None
    before, behind = text[max(0, equation.start - 60) : equation.start], right.tokens[-1].end
    loose = bool(_ROUNDED_BEFORE.search(before) or _ROUNDED_BEHIND.match(text, behind, behind + 90))
    about = equation.about or bool(_ABOUT_BEFORE.search(before) or _ABOUT_BEHIND.match(text, behind, behind + 90))
    for result, target, shift in _readings(computed, shown):
        if result == target:
            return None
        if shown.lone and _rounds(result, target, shown, shift, about, loose):
            rounded.add(target)
            return None
    if any(token.kind == "number" and token.value in rounded for token in computed.tokens):
        return None
    # The running total: "3 + 4 = 7 + 5 = 12", and in a chain "= 8 = 8 * 12".
    first = _first(right)
    if not right.lone and first is not None:
        reached = value(left)
        if reached is not None and (reached == first.value or _rounded_to(reached, first.value, first.decimals)):
            return None
    if shown.lone and stated and true and shown.measures - computed.measures:
        ratio = abs(true / stated)
        if ratio in _FACTORS or 1 / ratio in _FACTORS:
            return None
    return true


def _mixes_measures(computed: Side, shown: Side) -> bool:
    """Whether a sum adds two measures of one kind, hours and minutes, or its result is in another."""
    for dimension in _DIMENSIONS:
        inside, outside = computed.measures & dimension, shown.measures & dimension
        if len(inside | outside) > 1 and (computed.is_sum or outside - inside):
            return True
    return False


def _readings(computed: Side, shown: Side) -> Iterator[tuple[Fraction, Fraction, int]]:
    """What the two sides may mean, with how many more decimals `shown` has in that meaning."""
    hundredth, stated = value(computed), value(shown)
    if hundredth is None or stated is None:
        return
    yield hundredth, stated, 2 if shown.has_percent else 0
    if shown.has_percent and shown.lone:
        yield hundredth / 100, stated, 2
    if computed.has_percent:
        additive = all(token.percent for token in computed.tokens if token.kind == "number")
        additive = additive and not any(t.kind == "operator" and t.text not in "+-" for t in computed.tokens)
        itself, plain = value(computed, "itself"), value(shown, "itself")
        if itself is not None and plain is not None and (shown.has_percent or additive):
            yield itself, plain, 0
        relative = value(computed, "relative")
        if relative is not None:
            yield relative, stated, 0


def _rounds(result: Fraction, target: Fraction, shown: Side, shift: int, about: bool, loose: bool) -> bool:
    decimals = next(token.decimals for token in shown.tokens if token.kind == "number")
    if _rounded_to(result, target, decimals + shift):
        return True
    if loose and abs(result - target) < 1 and not decimals + shift:
        return True
    zeros = 0
    if about and target.denominator == 1 and target and not decimals:
        digits = str(abs(target.numerator))
        zeros = len(digits) - len(digits.rstrip("0"))
    return about and abs(result - target) * 2 <= Fraction(10) ** (zeros - decimals - shift)


def _rounded_to(result: Fraction, target: Fraction, decimals: int) -> bool:
    """Rounded half either way, or cut off."""
    unit = Fraction(1, 10**decimals)
    error = abs(result - target)
    return decimals > 0 and (error * 2 <= unit or (error < unit and abs(result) > abs(target)))


def _first(side: Side) -> Token | None:
    first = side.tokens[0]
    return first if first.kind == "number" and not first.percent else None


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    words = 0  # since the last operand
    for match in TOKEN.finditer(text):
        kind, found, start, end = match.lastgroup or "", match.group(), *match.span()
        if match["number"] is not None:
            kind = "number"
        last = tokens[-1] if tokens else None
        operand = last is not None and (
            last.kind in ("number", "close") or (last.kind == "word" and 0 < words <= MOST_UNIT_WORDS)
        )
        if kind == "space":
            continue
        if kind == "symbol" and found in "$°¢_\\":
            continue  # markup
        if kind == "newline" and last is not None and last.kind == "relation":
            continue
        token: Token
        if kind == "number":
            written = re.sub(r"[^0-9.]", "", found)
            decimals = len(match["decimals"] or "")
            token = Token("number", found, start, end, Fraction(written), decimals, match["percent"] is not None)
            words = 0
        elif found.startswith("of") and not (last is not None and last.kind == "number" and _part(tokens)):
            token = Token("word", found, start, end)
        elif kind in ("power", "operator"):
            sign = "^" if kind == "power" else "*" if found.startswith("of") else _OPERATORS.get(found, found)
            spaced = text[end : end + 1].isspace()
            at_line = last is None or last.kind == "newline"
            if at_line and spaced and sign in "-*":
                token = Token("stop", found, start, end)  # a bullet
            elif found == "**" and not operand:
                continue
            elif (
                found == "*"
                and not (operand and _OPERAND.match(text, end))
                and not (spaced and text[start - 1 : start].isspace())
            ):
                continue  # markdown around words
            elif found in ("x", "X") and not operand:
                token = Token("bad", found, start, end)
            else:
                token = Token("operator", sign, start, end)
        elif kind in ("relation", "newline", "open", "close", "fraction", "bad"):
            token = Token(_KINDS[kind], found, start, end)
            while kind == "relation" and tokens and tokens[-1].kind == "newline":
                tokens.pop()
            if kind == "fraction" and last is not None and last.kind == "number" and last.end == start:
                token = Token("bad", found, start, end)  # 2\frac{1}{3} is no product
            if kind == "open" and last is not None and last.kind in ("word", "bad") and last.end == start:
                tokens[-1] = Token("bad", last.text, last.start, last.end)  # a function's name
        elif kind in ("plain", "word", "words"):
            name = found
            if kind == "plain" and len(name) == 1 and name not in _UNIT_LETTERS:
                token = Token("bad", name, start, end)  # a variable
            elif name in _UNREADABLE and operand:
                token = Token("bad", name, start, end)
            else:
                token = Token("word", name, start, end)
        elif kind in ("apart", "stop"):
            token = Token("stop", found, start, end)
        else:
            token = Token("bad", found, start, end)
        if token.kind == "word":
            words += 1
        elif token.kind != "bad":
            words = 0
        tokens.append(token)
    return tokens


_OPERAND = re.compile(r"[^\S\n]{0,3}[-−]?[(\\$£€]{0,3}\.?[0-9(\\]")


def _left(tokens: list[Token], at: int) -> Side | None:
    """The longest expression that ends at the relation `at`."""
    begin, depth = at, 0
    while begin > 0 and at - begin < MOST_TOKENS:
        token, follows = tokens[begin - 1], tokens[begin] if begin < at else None
        if token.kind in ("stop", "newline", "relation"):
            break
        if token.kind == "close":
            depth += 1
        elif token.kind == "open":
            if depth == 0:
                if begin >= 2 and tokens[begin - 2].kind == "bad":
                    return None
                break
            depth -= 1
        if follows is not None and _apart(token, follows) and depth == (1 if token.kind == "close" else 0):
            if token.kind == "number":
                return None  # a mixed number
            break
        begin -= 1
    if at - begin >= MOST_TOKENS:
        return None
    before = tokens[begin - 1] if begin else None
    if before is not None and before.text.lower() in _LABELS and tokens[begin + 1].text == "-":
        return None
    if begin > 1 and tokens[begin - 1].text == "and" and tokens[begin - 2].kind == "number":
        return None  # "2 and 1/2"
    return _side(tokens[begin:at], before)


def _apart(token: Token, follows: Token) -> bool:
    r"""Whether an expression ends between two neighbours; 2(3 + 4), (2)(3) and \frac{1}{2} go on."""
    if token.kind not in ("number", "close", "word") or follows.kind not in ("number", "open", "fraction"):
        return False
    if follows.kind == "open" and token.kind != "word":
        return token.end != follows.start and not (token.text == "}" and follows.text == "{")
    return True


def _part(tokens: list[Token]) -> bool:
    """Whether the last number is a share, as in "20% of" and "1/2 of"."""
    share = tokens[-1].percent
    return share or (len(tokens) > 1 and tokens[-2].kind == "operator" and tokens[-2].text == "/")


def _right(tokens: list[Token], begin: int) -> Side | None:
    """The longest expression that begins there."""
    end, depth = begin, 0
    while end < len(tokens) and end - begin < MOST_TOKENS:
        token, before = tokens[end], tokens[end - 1] if end > begin else None
        if token.kind in ("stop", "newline", "relation"):
            break
        if token.kind == "open":
            depth += 1
        elif token.kind == "close":
            if depth == 0:
                break
            depth -= 1
        if before is not None and _apart(before, token) and depth == (1 if token.kind == "open" else 0):
            break
        if token.kind == "word" and before is not None and before.kind == "operator":
            break
        end += 1
    if end - begin >= MOST_TOKENS:
        return None
    while end > begin and tokens[end - 1].kind in ("word", "operator"):
        if tokens[end - 1].kind == "operator" and tokens[end - 1].text != "-":
            return None
        end -= 1
    units = end
    while units < len(tokens) and tokens[units].kind == "word" and units - end < MOST_UNIT_WORDS:
        units += 1
    if _second_quantity(tokens, end, units):
        return None
    return _side(tokens[begin:units], None)


def _second_quantity(tokens: list[Token], end: int, units: int) -> bool:
    """Whether another number belongs to the result: "2 hours 10 minutes", "3 1/2", "5 feet, 3 inches"."""
    at = units
    if at < len(tokens) and tokens[at].text == "," and at > end:
        at += 1
        at += at < len(tokens) and tokens[at].text == "and"
    if at >= len(tokens) or tokens[at].kind != "number":
        return False
    if units == end:
        return True
    measured = at + 1 < len(tokens) and tokens[at + 1].kind == "word" and _measure(tokens[at + 1].text) in _MEASURES
    return measured and any(_measure(token.text) in _MEASURES for token in tokens[end:units])


def _side(tokens: list[Token], before: Token | None) -> Side | None:
    """The tokens without units; None where they are no expression."""
    kept: list[Token] = []
    measures: set[str] = set()
    words = 0
    for token in tokens:
        if token.kind == "bad":
            return None
        if token.kind == "word":
            words += 1
            if not kept or kept[-1].kind not in ("number", "close") or words > MOST_UNIT_WORDS:
                return None
            measures.update(_measure(word) for word in re.findall(r"[A-Za-z]+", token.text))
            continue
        words = 0
        if token.kind == "number" and token.text[0] in "$€£\\":
            measures.add("dollar")
        kept.append(token)
    if not kept or (kept[0].kind == "operator" and kept[0].text != "-"):
        return None
    if kept[0].kind == "operator" and before is not None and before.kind in ("word", "bad", "number", "close"):
        return None  # its first operand is a name
    if not any(token.kind == "number" for token in kept):
        return None
    end = max(token.end for token in tokens)
    has_unit = any(token.kind == "word" for token in tokens)
    is_name = before is not None and before.kind == "word" and before.text.lower() not in _CONCLUDES
    return Side(tuple(kept), frozenset(measures & _MEASURES), has_unit, is_name, kept[0].start, end)


def _measure(word: str) -> str:
    word = word.lower()
    return word if word in _MEASURES else word.removesuffix("s")


def _number_as_text(token: Token) -> str:
    if token.kind == "fraction":
        return ""
    if token.kind != "number":
        return token.text.lstrip("\\")
    return plain(token.value) + "%" * token.percent


def plain(number: Fraction) -> str:
    """As a decimal where it has an end, else as a fraction."""
    if number.denominator == 1:
        return str(number.numerator)
    scaled = number
    for decimals in range(1, 31):
        scaled *= 10
        if scaled.denominator == 1:
            digits = str(scaled.numerator).rjust(decimals + 1, "0")
            return f"{digits[:-decimals]}.{digits[-decimals:]}"
    return str(number)


class _Parser:
    """Recursive descent over one side's tokens; each method gives None where they are no expression."""

    def __init__(self, tokens: tuple[Token, ...], percent: str) -> None:
        self.tokens, self.at, self.percent = tokens, 0, percent

    def value(self) -> Fraction | None:
        result = self.sum()
        return result if self.at == len(self.tokens) else None

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def operator(self, signs: str) -> str | None:
        token = self.peek()
        if token is None or token.kind != "operator" or token.text not in signs:
            return None
        self.at += 1
        return token.text

    def sum(self) -> Fraction | None:
        total = self.product()
        while total is not None and (sign := self.operator("+-")):
            begin = self.at
            term = self.product()
            if term is None:
                return None
            alone = self.at == begin + 1 and self.tokens[begin].percent
            if alone and self.percent == "relative":
                term *= total
            total = total + term if sign == "+" else total - term
        return total

    def product(self) -> Fraction | None:
        result = self.signed()
        while result is not None:
            sign = self.operator("*/")
            token = self.peek()
            if sign is None and (token is None or token.kind not in ("open", "fraction")):
                return result
            factor = self.signed()
            if factor is None:
                return None
            if sign == "/" and not factor:
                return None
            result = result / factor if sign == "/" else result * factor
        return None

    def signed(self) -> Fraction | None:
        sign = self.operator("+-")
        result = self.signed() if sign else self.power()
        return -result if sign == "-" and result is not None else result

    def power(self) -> Fraction | None:
        base = self.atom()
        if base is None or not self.operator("^"):
            return base
        exponent = self.signed()
        if exponent is None or exponent.denominator != 1 or (not base and exponent < 0):
            return None
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        return base ** int(exponent) if size * abs(exponent) <= MOST_BITS else None

    def atom(self) -> Fraction | None:
        token = self.peek()
        if token is None:
            return None
        self.at += 1
        if token.kind == "number":
            return token.value / 100 if token.percent and self.percent != "itself" else token.value
        if token.kind == "fraction":
            top, bottom = self.atom(), self.atom()
            return top / bottom if top is not None and bottom else None
        if token.kind != "open":
            return None
        inner = self.sum()
        token = self.peek()
        if token is None or token.kind != "close":
            return None
        self.at += 1
        return inner
