"""The checks of a rationale: cases by hand, generated equations, hostile texts, and the labels of real samples.

`python tests/test_rationale.py` prints the table of docs/rationales.md.
"""

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite.rationale import Finding, arithmetic, contradiction, language, repetition
from fcot_lite.records import AnswerKind, Problem
from fcot_lite.stats import wilson

REPOSITORY = Path(__file__).resolve().parent.parent
NUMBER = Problem("p", "How many?", "0")
CHECKS: dict[str, Callable[[str], list[Finding]]] = {
    "arithmetic": arithmetic,
    "contradiction": lambda text: contradiction(text, NUMBER),
    "repetition": repetition,
    "language": language,
}


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7",
        "So he has 3 + 4 = 7.",
        "3 + 4 = 7 + 5 = 12",  # a running total, as pupils write it
        "3 * 5 = 15 + 2 = 17",
        "12 + 3 * 3 = 12 + 9 = 21",
        "30 * (1 - 0.20) = 30 * 0.80 = 24 square inches",
        "3 apples + 4 apples = 7 apples",
        "12 (big garden seeds) + 3 (small garden seeds) = 15 seeds",
        "5 hours/day * 3 days = 15 hours",
        "5 * $3 = $15",
        "$12.50 + $0.25 = $12.75",
        "20% of 50 = 10",
        "20% of $40 is $8",
        "20 percent of 50 = 10",
        "0.2*50 = 10",
        "100% - 20% = 80%",
        "1/5 = 20%",
        "1/5 * 100 = 20%",
        "1 / 3 = 33.33%",
        "$40 - 10% = $36",
        "1/2 of the 60 students = 30",
        "½ * 60 = 30",
        "10/3 = 3.33",
        "20/3 = 6.66",
        "2/3 = 0.667",
        "12.25 * 3 = 36.8",
        "10 / 3 ≈ 3",
        "10 / 3 = about 3",
        "1234 - 247 ≈ 990",
        "56/3 = 18 (rounded down)",
        "17 / 5 = 3 remainder 2",
        "17 % 5 = 2",  # unread
        "10/3 = 3.33. 3.33 * 3 = 10",  # what is computed with a rounded result is not judged
        "2/3 = 67%, 1/3 = 33%, 1/3 * 100 = 33%",
        "Rounding up, 50 / 8 = 7. 50 / 8 = 6 with 2 left over. 17 / 5 = 3. The remainder is 2.",
        "1 hour + 30 minutes = 90 minutes",
        "2 feet + 6 inches = 30 inches",
        "$1 + 50 cents = $1.50",
        "$2 + 50 cents = $2.50",
        "$5 - 75 cents = $4.25",
        "1 km + 500 m = 1500 m",
        "1 year + 6 months = 18 months",
        "10 am + 4 hours = 2 pm",
        "10 a.m. - 4 hours = 6 a.m.",
        "10 o'clock + 4 hours = 2 o'clock",
        "130 / 60 = 2 hours 10 minutes",
        "130 / 60 = 2 hours and 10 minutes",
        "130 / 60 = 2 hours, 10 minutes",
        "2 and 1/2 + 1 = 3 1/2",
        "2 1/2 + 1 = 3.5",
        "Step 2 - 8 * 2 = 16",
        "2 * 3 = 6 = 6 apples",
        "1/2 = 0.5 = 50%",
        "20 / 3 = 6.667 = 6.67",
        "5 * 150 = 750 cents = $7.50",
        "2 * 60 = 120 = 2 hours",
        "3 * 2 = 6 pairs = 12 socks",
        "8 * 15 + 3 = 123 is 5 more than 118",
        "10 + 20 is 3 times as many as 10",
        "10 \\times 555 = 27 \\times \\text{Number of cows}",
        "\\(\\frac{24}{3} = 8\\)",
        "\\frac{24 \\text{ legs}}{4 \\text{ legs/dog}} = 6 \\text{ dogs}",
        "\\[ 5 \\times 8 = 40 \\]",
        "$5 \\cdot 8 = 40$",
        "\\$60 + \\$18 = \\$78",
        "12 \\div 4 = 3",
        "12 ÷ 4 = 3 and 5 × 3 = 15 and 5 x 3 = 15 and 5x3 = 15 and 5·3 = 15",
        "5 − 3 = 2 and 5 – 3 = 2",
        "2^3 = 8, 2**3 = 8, 5² = 25",
        "-5 + 3 = -2",
        "10 - 15 = -5",
        "- 5 + 3 = 8",  # a bullet
        "* 5 + 3 = 8",
        "2. 5 + 3 = 8",
        "**5 + 3 = 8**",
        "**Total:** 5 + 3 = 8",
        "1,200 + 300 = 1,500",
        "48/2 = <<48/2=24>>24 clips",
        "3 plus 4 is 7",
        "3 times 4 equals 12",
        "12 divided by 4 gives us 3",
        "2(3+4) = 14, (2)(3) = 6",
        "7/2 = 3 1/2",
        "20 = 4 * 5",
        "5 + 3\n= 8",
        "5 + 3 &= 8 \\\\ 8 + 2 &= 10",
        "4 * 25 cents = $1.00",
        "2 hours = 2 * 60 = 120 minutes",
        # what is no equation, or cannot be read
        "x + 3 = 9",
        "2x + 3 = 9",
        "3x = 300, so x = 100",
        "f + (f + 4) = 120",
        "f(3) = 4 + 4 = 8",
        "sqrt(16) + 1 = 9",
        "√16 + 1 = 9",
        "5! = 120",
        "|3 - 5| = 2",
        "Total - 3 = 9",
        "the rate * 5 = 9",
        "On 12/24 he had 3 = three",
        "5:30 + 2 = 8",
        "The ratio 3:4 = 6:9",
        "Qwen2.5-0.5B = 1.0",
        "version 1.2.3 + 4 = 9",
        "24 cookies / 12 per dozen = 3 dozen",
        "5 thousand + 3 = 8",
        "8 + 2 is 3 more than 7",
        "Step 3 = 5 + 4 = 9",
        "5 boxes of 3 = 16",
        "2\\frac{1}{3} + 1 = 9",
        "5 / 0 = 0",
        "3 + 4 =",
        "= 7",
        "if a == 5 + 3 == 9",
        "5 + 3 <= 9",
        "5 + 3 = 8 - he then left",
        "5 + 3 = 8 (2 each)",
    ],
)
def test_true_or_unreadable_arithmetic_is_left_alone(text: str) -> None:
    assert arithmetic(text) == []


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("3 + 4 = 8", "7"),
        ("5 - 3 = 2 = 4", "2"),
        ("It rang 256 * 4 = 912 times.", "1024"),
        ("400 - 20 = 240 more beads than the goal", "380"),
        ("So 3 + 4 = 7 = 8.", "7"),
        ("2 * 3 = 6 = 7 apples.", "6"),
        ("3 + 4 = 7 = 8 + 5 = 13", "13"),
        ("He ate a whole pizza. 7 / 2 = 4.", "3.5"),
        ("At the round table 7 / 2 = 4.", "3.5"),
        ("He has a whole week, so 7 / 2 = 4.", "3.5"),
        ("2 / 3 = 66.5%", "2/3"),
        ("2 / 3 = 68%", "2/3"),
        ("5 hours/day * 3 days = 16 hours", "15"),
        ("2 hours + 3 hours = 6 hours", "5"),
        ("8 hours * $15 + 2 hours * $20 = $170", "160"),
        ("$5 + $3 = $9, and 2 hours are left", "8"),
        ("3 + 4 = 8 apples and 8 + 2 = 10", "7"),
        ("3 + 4 = 7 + 5 = 13", "12"),
        ("3 + 4 = 8 + 5 = 13", "7"),
        ("3 apples + 4 apples = 8 apples", "7"),
        ("12 (big seeds) + 3 (small seeds) = 16 seeds", "15"),
        ("5 * $3 = $16", "15"),
        ("$15 + $9 + $24 = $52", "48"),
        ("20% of 50 = 11", "10"),
        ("50% + 25% = 80%", "0.75"),
        ("1/5 = 21%", "0.2"),
        ("10/3 = 3.34", "10/3"),
        ("10/3 = 3", "10/3"),
        ("10 / 3 ≈ 4", "10/3"),
        ("15 / 2 = 7.2", "7.5"),
        ("\\(\\frac{24}{3} = 9\\)", "8"),
        ("\\[ 5 \\times 8 = 41 \\]", "40"),
        ("\\boxed{3 + 4 = 8}", "7"),
        ("36 × 37 = 1120", "1332"),
        ("5x3 = 16", "15"),
        ("5 − 3 = 3", "2"),
        ("2**3 = 9", "8"),
        ("2 + 3 * 4 = 20", "14"),
        ("(2 + 3) * 4 = 14", "20"),
        ("1,200 + 300 = 1,600", "1500"),
        ("<<48/2=25>>25", "24"),
        ("3 times 4 equals 13", "12"),
        ("f + 4 = 58 + 4 = 63", "62"),
        ("20 = 4 * 6", "24"),
        ("- 5 + 3 = 9", "8"),
        ("**5 + 3 = 9**", "8"),
        ("60 miles / 2 hours = 31 miles/hour", "30"),
        ("995 - 177 = 728.", "818"),
        ("100 - 50 - 35 = 25", "15"),
        ("5 + 3 = 9 (see above)", "8"),
        ("2.50 * 4 = 11", "10"),
    ],
)
def test_false_arithmetic_is_found_with_the_true_value(text: str, true: str) -> None:
    (finding,) = arithmetic(text)
    assert finding.check == "arithmetic"
    assert finding.reason.endswith(f": it is {true}")
    assert text[finding.start : finding.end] in text
    assert "=" in text[finding.start : finding.end] or "≈" in finding.reason or "equals" in finding.reason


def test_where_the_false_equation_stands() -> None:
    text = "First 2 + 2 = 4 pens. Then 4 + 5 = 10 pens are left."
    (finding,) = arithmetic(text)
    assert text[finding.start : finding.end] == "4 + 5 = 10 pens are left"[: finding.end - finding.start]
    assert text[finding.start :].startswith("4 + 5 = 10")


SIGNS = {
    "+": ["+", " + ", " plus "],
    "-": ["-", " - ", " − ", " minus "],
    "*": ["*", " * ", " × ", " x ", " \\times ", " \\cdot ", " times "],
    "/": [" / ", " ÷ ", " \\div ", " divided by "],
}
EQUALS = [" = ", "=", " \\approx ", " equals ", " is "]
UNITS = ["", " apples", " red pens", " \\text{ dogs}"]
BEFORE = ["", "So ", "The total is ", "- ", "1. ", "\\( ", "**Result:** ", "In all, she has "]
AFTER = ["", ".", " in all.", " \\)", "\nThen"]


@st.composite
def stated(draw: st.DrawFn) -> tuple[str, str, Fraction, str]:
    """What stands before a result, the result's value, and what stands behind it."""
    unit = draw(st.sampled_from(UNITS))
    left, value = "", Fraction(0)
    for place in range(draw(st.integers(2, 5))):
        number = draw(st.integers(1, 5000))
        written = draw(st.sampled_from([str(number), f"{number:,}", f"{number}.00", f"${number}"]))
        if place == 0:
            left, value = written + unit, Fraction(number)
            continue
        sign = draw(st.sampled_from("+-" if place > 1 else "+-*/"))
        left += draw(st.sampled_from(SIGNS[sign])) + written + unit
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
    return (
        draw(st.sampled_from(BEFORE)) + left,
        draw(st.sampled_from(EQUALS)),
        value,
        unit + draw(st.sampled_from(AFTER)),
    )


def as_text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.2f}"


@given(stated())
@settings(max_examples=500)
def test_a_true_equation_in_any_form_is_never_called_wrong(parts: tuple[str, str, Fraction, str]) -> None:
    before, equals, value, after = parts
    assert arithmetic(before + equals + as_text(value) + after) == []


@given(stated(), st.integers(1, 900))
@settings(max_examples=500)
def test_a_false_equation_in_any_form_is_always_found(parts: tuple[str, str, Fraction, str], off: int) -> None:
    before, equals, value, after = parts
    # 1234 is called 1200 by right: see "≈".
    equals = equals.replace("\\approx", "=")
    text = before + equals + as_text(value + off) + after
    assert arithmetic(text), text


def problem(kind: AnswerKind, target: str, question: str = "", choices: tuple[str, ...] = ()) -> Problem:
    return Problem("p", question, target, kind, {"choices": choices} if choices else {})


EGGS = problem("number", "18", "How many eggs does Ann have left?")
COIN = problem("yes_no", "yes", "A coin is heads up. Is the coin still heads up?")
CHOICE = problem("choice", "A", choices=("the red ball", "the blue ball", "the green ball"))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("4 + 8 = 12 songs. The answer is 2.", NUMBER),
        ("So Faye bought 12 + 12 = 24 songs.\n#### 2\nThe answer is: 2", NUMBER),
        ("So she has 24 songs. The answer is 2.", problem("number", "2", "How many songs does she have?")),
        ("Therefore, 5 boxes are needed. The answer is 4.", problem("number", "5", "How many boxes are needed?")),
        ("Therefore, 5 big boxes are needed. The answer is 4 boxes.", NUMBER),
        ("So she has 9 eggs. The answer is 18.", EGGS),
        ("6 + 3 = 9 eggs. The answer is 18.", EGGS),
        ("6 + 3 = 9. The answer is 18.", EGGS),
        ("The total is 840000 + 640000 = 1480000.\nThe answer is 148000.", NUMBER),
        ("The answer is 425.\nThe answer is 87.", NUMBER),
        ("So the coin is tails up. The answer is yes.", COIN),
        ("The coin is no longer heads up. The answer is yes.", COIN),
        ("It is flipped twice. The coin is heads up. The answer is no.", COIN),
        ("So, no, that cannot be. The answer is yes.", problem("yes_no", "yes")),
        ("So it is (B). The answer is (C).", CHOICE),
        ("Therefore Alice has the blue ball. The answer is (A).", CHOICE),
        ("Therefore Alice has the blue ball. The answer is the red ball.", CHOICE),
    ],
)
def test_another_conclusion_than_the_answer_is_found(text: str, asked: Problem) -> None:
    assert [finding.check for finding in contradiction(text, asked)] == ["contradiction"]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("4 + 8 = 12 songs. The answer is 12.", NUMBER),
        ("4 + 8 = 12 songs.", NUMBER),
        ("The answer is 12.", NUMBER),
        ("So 24 / 5 = 4.8 boxes. The answer is 5.", NUMBER),
        ("So 5 - 8 = -3. The answer is 3.", NUMBER),
        ("So 5 - 8 = -3. The answer is 0.", NUMBER),
        ("So 2 * 60 = 120 minutes. The answer is 2.", NUMBER),
        ("3 * 8 = 24 dollars. 5 * 8 = 40 dollars. The answer is 64.", NUMBER),  # the last sum is left unsaid
        ("She has 72 - 5 = 67 left. The answer is 67 - 5 = 62.", NUMBER),
        ("Ann has 3 + 4 = 7. Bob has 7 - 5 = 2. The answer is 7.", NUMBER),
        ("So she has 5 of 8 pens. The answer is 5.", NUMBER),
        ("So there are 2 groups. The answer is 18.", EGGS),
        ("So there are 2 groups of eggs. The answer is 18 eggs.", EGGS),
        ("Thus she sold 9 eggs. The answer is 18.", problem("number", "18", "How much does she earn?")),
        ("9 + 9 = 18 eggs. So each sold 9 eggs. The answer is 18.", EGGS),
        ("Therefore it took Tom 3 days to earn it all. The answer is 18.", NUMBER),
        ("Check: 18 / 2 = 9. The answer is 18.", EGGS),
        ("We can verify: 18 / 2 = 9. The answer is 18.", EGGS),
        ("36 / 2 = 18. So 18 / 6 = 3 hens. The answer is 18.", EGGS),
        ("So 18 / 6 = 3 hens. The answer is 18.", EGGS),
        ("We divide 20 by 4. The answer is 5.", NUMBER),
        ("First \\boxed{28} are left. Then 28 / 4 = 7. So \\boxed{7} remain.", NUMBER),
        ("So x is 5. Check: 5 + 3 = 8. The answer is 5.", NUMBER),
        ("So the coin is heads up. The answer is yes.", COIN),
        ("The coin started heads up. The answer is no.", COIN),
        ("The coin was heads up, then tails up, then heads up. The answer is yes.", COIN),
        ("So it is (C). The answer is (C).", CHOICE),
        ("So it is not (B). The answer is (C).", CHOICE),
        ("So Alice and Bob swapped (A) and (B). The answer is (C).", CHOICE),
        ("Therefore Alice has the blue ball. The answer is (B) the blue ball.", CHOICE),
        ("So 2. The answer is 3.", problem("letters", "ab")),
    ],
)
def test_no_contradiction(text: str, asked: Problem) -> None:
    assert contradiction(text, asked) == []


@pytest.mark.parametrize(
    "text",
    [
        "The tree will grow 10% more each year, so it is 10.\n" * 4,
        "#### 10\n" * 12,
        "It is the number of goats from the number of goats from the number of goats from the farm.",
        "".join(f"The time it takes Tim to ride his skateboard is {n} seconds. " for n in range(540, 300, -20)),
        "640 hours of work = 640 hours of work * 2 = " + "1280 hours of work = 1280 hours of work * 2 = " * 12,
        "This means 16 * 100% = " + "16 * 100% = " * 20,
    ],
)
def test_a_loop_is_found(text: str) -> None:
    assert {finding.check for finding in repetition(text)} == {"repetition"}


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7. 7 + 5 = 12. 12 - 2 = 10. 10 + 1 = 11. 11 + 9 = 20. The answer is 20.",
        "2 apples + 3 apples + 4 apples + 5 apples = 14 apples",
        "5 + 5 + 5 + 5 + 5 + 5 = 30",
        "The total cost is $5.\nThe total cost is $5.",
        "1. Find the number of pens.\n2. Find the number of pencils.\n3. Add the number of pens and of pencils.",
        "Monday: 5 * 3 = 15 pages.\nTuesday: 5 * 4 = 20 pages.\nFriday: 5 * 2 = 10 pages.",
        "",
        "\n\n\n\n\n\n\n\n",
    ],
)
def test_no_loop(text: str) -> None:
    assert repetition(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Let's use Python.\n```python\nx = 3\n```",
        "def total(a, b):\n    return a + b",
        "print(3 + 4)",
        "import math\n7",
        "total_cost = 3 * 4",
        "for i in range(3):\n    pass",
        "#include <stdio.h>",
        "首先，我们计算苹果的数量。答案是 7。",
        "She has 3 apples. 所以答案是七个苹果，谢谢大家。",
        "Сначала сложим яблоки. Ответ 7.",
        "Primero, la niña tiene 3 manzanas y su hermano tiene 4, por lo que en total hay 7 manzanas en la mesa.",
        "Zuerst hat das Kind 3 Äpfel und der Bruder hat 4, also sind es in der Schale 7 und nicht 8 Äpfel.",
    ],
)
def test_code_or_a_foreign_language_is_found(text: str) -> None:
    assert {finding.check for finding in language(text)} == {"language"}


@pytest.mark.parametrize(
    "text",
    [
        "She has 3 apples and 4 pears, so she has 3 + 4 = 7 fruits. The answer is 7.",
        "Let \\( x = 5 \\). Then \\( x + 3 = 8 \\).",
        "Total = 3 + 4 = 7",
        "```\n3 + 4 = 7\n```",
        "for each of the 3 boxes: 5 pens, which return to the class in the end",
        "import taxes are 5% of the price",
        "The angle θ is 30°, and π ≈ 3.14.",
        "Renée and José share a piñata at the café.",
        "3 + 4 = 7",
        "",
    ],
)
def test_prose_and_formulas_are_no_code(text: str) -> None:
    assert language(text) == []


HOSTILE = (
    "= (){}[]/*+-^%$\\frac{\\text 0 1 9 . , ½ ² \0 \ud800 \u2028 apples is plus The answer is \\boxed{ "
    "heads def x_y 10**10**10 1e999999999 5! ≈ about\n\n ```python \\\\ << >>"
)
PARTS = HOSTILE.split(" ")


@given(st.one_of(st.text(), st.lists(st.sampled_from(PARTS), max_size=60).map(" ".join)))
@settings(max_examples=500)
def test_no_text_makes_a_check_raise(text: str) -> None:
    for name, check in CHECKS.items():
        for finding in check(text):
            assert finding.check == name
            assert 0 <= finding.start <= finding.end <= len(text)
            assert "\n" not in finding.reason
    for asked in (COIN, CHOICE):
        contradiction(text, asked)


@pytest.mark.parametrize(
    "part",
    [
        "7",
        "(",
        "=",
        "1+",
        "1=1+",
        "-",
        "*",
        "{",
        "\\frac{",
        " ",
        "\n",
        "a",
        "a_",
        "5 apples + ",
        "So 5. ",
        "漢",
        "10**10**",
    ],
)
def test_time_grows_linearly(part: str) -> None:
    def seconds(size: int) -> float:
        text = (part * size)[:size]
        fastest = float("inf")
        for _ in range(2):
            began = time.process_time()
            for check in CHECKS.values():
                check(text)
            fastest = min(fastest, time.process_time() - began)
        return fastest

    assert seconds(80_000) < 12 * seconds(20_000) + 0.1  # quadratic would be 16 times


# --- real samples ----------------------------------------------------------------------------------------------------

LABELS = [json.loads(line) for line in (REPOSITORY / "tests/data/rationale_labels.jsonl").read_text().splitlines()]
# How many texts were drawn from: those the check flags, and of the others those where a fault is likely and the rest.
POPULATIONS = {
    "arithmetic": (936, 315, 2019),
    "contradiction": (24, 338, 2395),
    "repetition": (58, 62, 852),
    "language": (45, 58, 1890),
}


def table() -> str:
    """Precision is of the flagged texts that were read. Recall weighs what was missed in each stratum by its size; its
    worst case takes the 95 % bound of each share."""
    lines = [
        "| check | read | flagged: faulty / read (of all) | likely, not flagged: missed / read (of all) "
        "| others: missed / read (of all) | precision (95 %) | recall | at worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for check, sizes in POPULATIONS.items():
        read, faulty = [0, 0, 0], [0, 0, 0]
        for row in LABELS:
            if row["check"] == check:
                stratum = 0 if CHECKS[check](row["text"]) else 1 if row["likely"] else 2
                read[stratum] += 1
                faulty[stratum] += row["label"]
        bounds = [wilson(faulty[at], read[at]) for at in range(3)]
        found = sizes[0] * faulty[0] / read[0]
        missed = sum(sizes[at] * faulty[at] / read[at] for at in (1, 2))
        fewest, most = sizes[0] * bounds[0][0], sum(sizes[at] * bounds[at][1] for at in (1, 2))
        strata = " | ".join(f"{faulty[at]} / {read[at]} ({sizes[at]})" for at in range(3))
        low, high = bounds[0]
        lines.append(
            f"| {check} | {sum(read)} | {strata} | {faulty[0] / read[0]:.0%} ({low:.0%}–{high:.0%}) "
            f"| {found / (found + missed):.0%} | {fewest / (fewest + most):.0%} |"
        )
    return "\n".join(lines)


def test_labels_are_enough_and_balanced() -> None:
    for check in CHECKS:
        labels = [row["label"] for row in LABELS if row["check"] == check]
        assert len(labels) >= 25
        assert min(sum(labels), len(labels) - sum(labels)) >= 10
    assert len({(row["check"], row["problem_id"], row["text"]) for row in LABELS}) == len(LABELS)


def test_the_documents_table_is_what_the_labels_give() -> None:
    assert table() in (REPOSITORY / "docs/rationales.md").read_text()


@pytest.mark.parametrize(
    ("check", "precision", "recall"),
    [("arithmetic", 1, 1), ("contradiction", 0.85, 0.9), ("repetition", 1, 0.9), ("language", 1, 1)],
)
def test_precision_and_recall_on_the_labelled_texts(check: str, precision: float, recall: float) -> None:
    rows = [(bool(CHECKS[check](row["text"])), row["label"]) for row in LABELS if row["check"] == check]
    right = sum(flagged and faulty for flagged, faulty in rows)
    assert right / sum(flagged for flagged, _ in rows) >= precision
    assert right / sum(faulty for _, faulty in rows) >= recall


if __name__ == "__main__":
    print(table())
