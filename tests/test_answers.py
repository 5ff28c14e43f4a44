"""The grader: one line per case that could be confused, then texts nobody would write."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite.answers import LONGEST_READ, Mode, accepted, answer_start, final_sentence, grade, number
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import AnswerKind, Problem, Verdict


def graded(text: str, target: str) -> str:
    return grade(text, Problem("p", "q", target)).reason


@pytest.mark.parametrize(
    ("text", "target"),
    [
        # how an answer is stated
        ("The answer is 5", "5"),
        ("The answer is: 5.", "5"),
        ("so the answer is therefore 5", "5"),
        ("The Answer Is 7!", "7"),
        ("ANSWER: 7", "7"),
        ("**Answer:** 18", "18"),
        ("### Final answer:\n\n72", "72"),
        ("The answer to the question is 7", "7"),
        ("#### 18", "18"),
        ("\\[ \\boxed{18} \\]", "18"),
        ("The answer is $\\boxed{\\$18}$.", "18"),
        ("The answer is 5. The answer is 5.0.", "5"),
        ('Write "The answer is <number>".\n2 + 3 = 5\nThe answer is 5.', "5"),
        ("The answer is not 6. The answer is 5.", "5"),
        ("The answer is x = 5", "5"),
        # how a number is written
        ("The answer is 1,234.", "1234"),
        ("The answer is 1234", "1,234"),
        ("The answer is 1\\,234,567", "1234567"),
        ("The answer is $18", "18"),
        ("The answer is -$5", "-5"),
        ("The answer is $-5", "-5"),
        ("The answer is −5", "-5"),
        ("The answer is –5", "-5"),
        ("The answer is 50%.", "50"),
        ("The answer is 50 %", "50"),
        ("The answer is 5 apples.", "5"),
        ("The answer is $12/hour", "12"),
        ("The answer is 5kg", "5"),
        ("The answer is 3.0", "3"),
        ("The answer is 3", "3.00"),
        ("The answer is .5", "0.5"),
        ("The answer is 3/4", "0.75"),
        ("\\boxed{-\\dfrac{3}{4}}", "-0.75"),
        ("The answer is **18**.", "18"),
        ("The answer is \\(18\\).", "18"),
        ("\\boxed{5\\text{ apples}}", "5"),
        ("The answer is " + "7" * 900, "7" * 900),
        # what follows a number
        ("The answer is 12 + 3 = 15", "15"),
        ("The answer is 12 apples + 3 apples = 15 apples", "15"),
        ("The answer is $12 + $3 = $15.", "15"),
        ("The answer is 15 gallons * 8 pints / gallon = 120 pints", "120"),
        ("The answer is (12 + 3) * 2 = 30", "30"),
        ("The answer is 5 because 2 + 4 = 6", "5"),
        ("The answer is $5.50 ($2 + $3.50)", "5.5"),
        ("The answer is 5 - that is it", "5"),
        ("The answer is 5 times as many", "5"),
        ("The answer is 5\n6 apples were eaten", "5"),
    ],
)
def test_correct(text: str, target: str) -> None:
    assert graded(text, target) == "correct"


@pytest.mark.parametrize(
    ("text", "number_in_it"),
    [
        ("She has 5 apples. 2 + 3 = 5.", "5"),
        ("The answer is <number>", "5"),
        ("the answer is not 5", "5"),
        ("the answer isn't 5", "5"),
        ("The answer is 12 + 3", "12"),
        ("The answer is 12*3", "12"),
        ("The answer is 12 x 3", "12"),
        ("The answer is 5-6", "5"),
        ("The answer is 5 divided by 3", "5"),
        ("The answer is 12 + 3 = fifteen", "3"),
        ("The answer is 5 or 6", "5"),
        ("The answer is **5** or **6**", "5"),
        ("\\boxed{5, 6}", "5"),
        ("The answer is 5 hours 30 minutes", "5"),
        ("The answer is 2 3/2", "2"),
        ("The answer is 5²", "5"),
        ("The answer is 1,23", "123"),
        ("The answer is 1,23", "1"),
        ("The answer is 1,234,5", "1234"),
        ("The answer is 1.2.3", "1.2"),
        ("The answer is 5:30", "5"),
        ("The answer is 1/2/3", "0.5"),
        ("The answer is 5/0", "5"),
        ("The answer is 5 dozen", "5"),
        ("The answer is 5k", "5"),
        ("The answer is 1e999999999", "1"),
        ("The answer is ５", "5"),
        ("The answer is ٥", "5"),
        ("The answer is __import__('os').system('echo 5')", "5"),
        ("#### 2. Add them up", "2"),
        ("Answer:\n1. First, add.", "1"),
        ("The answer is " + "7" * 5000, "7"),
        ("four correct answers * 2 points/answer = 8", "8"),
        ("", "5"),
    ],
)
def test_no_answer(text: str, number_in_it: str) -> None:
    assert graded(text, number_in_it) == "no answer"


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 6. No, the answer is 5.",
        "The answer is 5. No, the answer is 6.",
        "The answer is 6.\n#### 5",
        "\\boxed{6} so the answer is 5",
        "The answer is 5. So the answer is 12 + 3.",
        "The answer is 5. Wait, the answer is not 5.",
        "The answer is 5. The answer is -5.",
    ],
)
def test_two_different_answers_are_never_correct(text: str) -> None:
    assert graded(text, "5") == "conflicting answers"


@pytest.mark.parametrize(
    ("text", "target"),
    [("The answer is 25", "5"), ("The answer is 5", "25"), ("The answer is -5", "5"), ("The answer is 50%", "0.5"),
     ("The answer is 10^3", "10"), ("The answer is 5 million", "5"),
     ("The answer is 123456789012345678901", "123456789012345678900"), ("The answer is 0.3333", "1/3")],
)  # fmt: skip
def test_wrong(text: str, target: str) -> None:
    assert graded(text, target) == "wrong"


def test_the_answer_is_kept_as_it_was_written() -> None:
    assert grade("The answer is $1,234.00 a year.", Problem("p", "q", "1234")).extracted == "1,234.00"


@pytest.mark.parametrize("finish_reason", ["length", "abort", "error", "repetition"])
def test_a_text_that_was_cut_off_never_counts(finish_reason: str) -> None:
    verdict = grade("The answer is 5.", Problem("p", "q", "5"), finish_reason=finish_reason)  # type: ignore[arg-type]
    assert verdict == Verdict(False, None, "unfinished")
    assert not accepted(finish_reason, Verdict(True, "5", "correct"))  # type: ignore[arg-type]


def test_accepted_is_finished_and_correct() -> None:
    assert accepted("stop", Verdict(True, "5", "correct"))
    assert not accepted("stop", Verdict(False, "5", "wrong"))


@pytest.mark.parametrize("target", ["", "five", "1,23", "5 apples", "1/0", "nan", "inf", "<<5>>"])
def test_a_gold_answer_that_is_no_number_is_an_error_not_a_wrong_answer(target: str) -> None:
    with pytest.raises(DataError, match=r"problem train/7"):
        grade("The answer is 5.", Problem("train/7", "q", target))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(RecipeError, match="'lenient' is unknown; choose one of strict, flexible, paper, paper-v1"):
        grade("The answer is 5.", Problem("p", "q", "5"), "lenient")  # type: ignore[arg-type]


fragments = st.sampled_from(
    ["The answer is ", "answer:", "####", "\\boxed{", "\\frac{", "}", "{", " not ", "\n", " ", "5", "12", ",", ".", "/",
     "-", "−", "$", "%", "*", "=", "+", "e", "so ", "x", "or", "\0", "\ud800", "\u2028", "٣", "²", "½", "１", "0"]
)  # fmt: skip


@given(st.one_of(st.text(st.characters()), st.lists(fragments, max_size=40).map("".join)))
def test_nothing_raises_and_nothing_is_two_things(text: str) -> None:
    verdict = grade(text, Problem("p", "q", "5"))
    assert verdict.reason in {"correct", "wrong", "no answer", "conflicting answers"}
    assert verdict.correct == (verdict.reason == "correct")
    assert verdict.extracted is None or verdict.extracted in text
    assert not verdict.correct or number(verdict.extracted or "") == 5


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_numbers_are_compared_exactly(stated: int, gold: int) -> None:
    assert graded(f"The answer is {stated:,}.", str(gold)) == ("correct" if stated == gold else "wrong")
    assert graded(f"The answer is {gold}.000.", f"{gold:,}") == "correct"


@given(st.text(st.characters(exclude_characters="\\#")), st.integers(0, 999))
def test_a_text_that_states_nothing_is_never_correct(text: str, gold: int) -> None:
    if "answer" not in text.lower():
        assert graded(f"{text} {gold}", str(gold)) == "no answer"


def seconds(text: str, problem: Problem, mode: Mode) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        grade(text, problem, mode)
        times.append(time.process_time() - began)
    return min(times)


def grows_linearly(start: str, unit: str, problem: Problem) -> None:
    """Eight times the text takes eight times as long; with a quadratic pattern it takes 64 times."""
    for mode in ("strict", "flexible"):
        short, long = (start + (unit * (size // len(unit) + 1))[:size] for size in (25_000, 200_000))
        # A few milliseconds of a busy machine are no growth; a quadratic pattern takes seconds here.
        assert seconds(long, problem, mode) < 24 * seconds(short, problem, mode) + 0.02


NUMBER_UNITS = [
    "a", "answer", "The answer is 5. ", "answer:1", "answer" + " " * 9, "#", "#### 1\n", "1", "\\", "\\boxed{", "\n",
    "\\boxed{\\frac{1}{2}}", "answer: " + "so " * 20, "answer: 5 ab ab ab ", "answer: 5 ))))))))",
    "answer: " + "a" * 19 + "=", "answer:" + "9" * 1000, "1+", "1/", "1 ab ab ab +", "1,234", "so ", "* ", "$", "(",
    "{", "\\frac{", "½", "1 1/2 ", "²", "1\u202f234", "\0", "\ud800", "\u2028", "<answer>", "</", "\\text{a", "1e9",
    "1,00", "10**", "answer: $", "\\(", "answer: 5. Wa", ".", "-", "\\boxed{" + "{" * 900, "\\left(",
    "\\boxed{" + "5{,}" * 200,
    "answer: 1 apple, ", "answer: 1 because ", "if the answer: 1 ", "\\boxed{1} and ", "answer: 1...", "answer: 1\n",
    "answer: one (",
    "answer: 1 x ", "answer: 1 or ", "answer: x = ", "(A)", "x^{",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize("unit", NUMBER_UNITS)
@pytest.mark.parametrize("start", ["", "The answer is ", "\\boxed{"])
def test_long_texts_of_numbers_take_linear_time(kind: AnswerKind, unit: str, start: str) -> None:
    grows_linearly(start, unit, Problem("p", "q", "0.8333333333333334" if kind == "number" else "x+1", kind))


@pytest.mark.parametrize(
    "text",
    ["The answer is " + "7" * 100_000, "The answer is " + "(" * 100_000 + "5",
     "\\boxed{" + "{" * 100_000 + "}" * 100_001,
     "The answer is " + "7" * 5_000, "The answer is 1e999999999", "The answer is 10**10**10",
     "The answer is 9^9^9^9", "The answer is 1.5 × 10^999999999", "\\boxed{\\frac{1}{1e999999999}}"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["number", "math", "text", "choice"])
def test_nothing_is_evaluated(text: str, kind: AnswerKind) -> None:
    target = {"number": "5", "math": "5", "text": "five", "choice": "A"}[kind]
    problem = Problem("p", "q", target, kind, {"choices": ["five", "six"]})
    for mode in ("strict", "flexible"):
        began = time.process_time()
        grade(text, problem, mode)
        assert time.process_time() - began < 5  # 10**999999999 alone takes minutes and 400 MB


@pytest.mark.parametrize(
    "text", ["The answer is 12, or rather 13.", "The answer is 12; no, 13.", "The answer is 12 less 3."]
)
def test_an_answer_that_is_taken_back_does_not_count(text: str) -> None:
    assert not grade(text, Problem("p", "q", "12")).correct


# --- choice, yes_no, letters, text

CHOICES = ["red ball", "blue ball", "dark red ball"]


def problem_of(kind: AnswerKind, target: str, choices: list[str] = CHOICES) -> Problem:
    return Problem("p", "q", target, kind, {"choices": choices} if kind == "choice" else {})


def reason(kind: AnswerKind, text: str, target: str, choices: list[str] = CHOICES) -> str:
    return grade(text, problem_of(kind, target, choices)).reason


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B).", "The answer is B.", "the answer is b", "The answer is (b)", "Answer: B", "ANSWER: [B]",
        "\\boxed{B}", "\\boxed{\\text{B}}", "The answer is $\\boxed{(B)}$.", "#### B", "### Answer\nThe answer is B",
        "The answer is (B) blue ball.", "The answer is B: blue ball", "The answer is B) blue ball",
        "The answer is B. blue ball", "The answer is (B) Blue Ball, because", "The answer is (B), as said.",
        "The answer is blue ball.", "The answer is Blue Ball", "The answer is **(B)**.", "**Answer:** B",
        "The correct answer is option B.", "The answer is therefore the correct choice (B)", "Final answer:\n\n(B)",
        "Answer: The answer is (B). So the final answer is (B).", "The answer is not (A). The answer is (B).",
        'The answer is "B".', "The answer is (B). (A) is red.",
        "The answer is found with care. The answer is (B).", "The answer is <letter>. The answer is (B).",
    ],
)  # fmt: skip
def test_choice_correct(text: str) -> None:
    assert reason("choice", text, "B") == "correct"


@pytest.mark.parametrize(
    "text",
    [
        "", "B", "(B)", "So (B).", "(A) or (B)", "The answer is not (B).", "The answer isn't (B)",
        "The answer is (A) or (B).", "The answer is (B) or (A).", "The answer is B or C", "The answer is B and C",
        "The answer is B, C", "The answer is B/C", "The answer is (B/C)", "The answer is (B)(C)", "\\boxed{B, C}",
        "The answer is (B), no, (A)", "The answer is (B) not (A)", "The answer is B; wait, A",
        "The answer is (B) red ball", "The answer is B: red ball", "The answer is B. Red ball.",
        "The answer is (B) 7", "The answer is B red", "The answer is Blue", "The answer is blue", "The answer is ball.",
        "The answer is a blue ball", "The answer is A blue ball", "The answer is blue ball or red ball",
        "The answer is the letter after A", "The answer is one of (A), (B), (C)", "The answer is <letter>",
        "Answer choices: (B) blue ball", "Answer:\n(B) blue ball\n(C) dark red ball", "#### B is a start",
        "The answer is (\u0412).", "The answer is \uff22.", "The answer is \u0392", "The answer is \u24b7",
        "The answer is Bb", "The answer is B2", "The answer is B's", "The answer is 2.",
    ],
)  # fmt: skip
def test_choice_no_answer(text: str) -> None:
    assert reason("choice", text, "B") == "no answer"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is red ball.", "wrong"),
        ("The answer is dark red ball.", "wrong"),
        ("The answer is (F).", "wrong"),
        ("The answer is (A). The answer is (B).", "conflicting answers"),
        ("The answer is (B). The answer is red ball.", "conflicting answers"),
        ("The answer is (B). So \\boxed{A}", "conflicting answers"),
        ("The answer is (B). No, the answer is (A) or (B).", "conflicting answers"),
        ("The answer is (B). The answer is not (B).", "conflicting answers"),
        ("The answer is 7, so the answer is (B).", "conflicting answers"),
        ("The answer is (B). The answer is blue ball.", "correct"),
    ],
)
def test_choices_that_differ(text: str, expected: str) -> None:
    assert reason("choice", text, "B") == expected


@pytest.mark.parametrize(
    ("text", "target", "choices", "expected"),
    [
        ("The answer is A.", "A", ["b", "a"], "no answer"),  # the letter, or the text of (B)?
        ("The answer is A.", "B", ["b", "a"], "no answer"),
        ("The answer is (A).", "A", ["b", "a"], "correct"),
        ("The answer is A.", "A", ["a", "b"], "correct"),
        ("The answer is 6.", "B", ["5", "6"], "correct"),
        ("The answer is 6.", "B", ["6", "6"], "no answer"),
        ("The answer is (B) 6", "B", ["5", "6"], "correct"),
        ("The answer is (B) 5", "B", ["5", "6"], "no answer"),
        ("The answer is (B) 60", "B", ["5", "6"], "no answer"),
        ("The answer is B: 1,080", "B", ["1", "1,080"], "correct"),
        ("The answer is (B) 1,080", "B", ["1", "1,080"], "correct"),
        ("The answer is $5.", "A", ["$5", "5"], "correct"),
        ("The answer is a vow.", "A", ["a vow", "vow"], "correct"),
        ("The answer is vow.", "A", ["a vow", "vow"], "wrong"),
        ("The answer is St. Louis.", "A", ["St. Louis", "Paris"], "correct"),
        ("The answer is vitamin C.", "A", ["vitamin C", "vitamin"], "correct"),
        ("The answer is C.", "C", ["A", "B", "C"], "correct"),
        ("The answer is red.", "B", ["dark red", "red", "reddish"], "correct"),
        ("The answer is (B) red.", "B", ["dark red", "red", "red wine"], "correct"),
        ("The answer is (B) red wine.", "B", ["dark red", "red", "red wine"], "no answer"),
    ],
)
def test_choices_whose_texts_are_alike(text: str, target: str, choices: list[str], expected: str) -> None:
    assert reason("choice", text, target, choices) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is yes.", "correct"),
        ("The answer is Yes", "correct"),
        ("ANSWER: YES!", "correct"),
        ("Answer: **Yes**", "correct"),
        ('The answer is "yes".', "correct"),
        ("\\boxed{\\text{Yes}}", "correct"),
        ("#### yes", "correct"),
        ("The answer is definitely yes.", "correct"),
        ("The answer is Yes, because no coin was flipped.", "correct"),
        ("The answer is yes because Amy does not flip it", "correct"),
        ("Final answer:\nYes.", "correct"),
        ("The answer is yes. So the answer is Yes.", "correct"),
        ("The answer is not no. The answer is yes.", "correct"),
        ("The answer is no.", "wrong"),
        ("The answer is No, as yes would be odd", "wrong"),
        ("Yes.", "no answer"),
        ("The answer is not yes", "no answer"),
        ("The answer is yes or no", "no answer"),
        ("The answer is Yes and no.", "no answer"),
        ("The answer is yes/no", "no answer"),
        ("The answer is yes, no", "no answer"),
        ("The answer is yes, but", "no answer"),
        ("The answer is yes - no", "no answer"),
        ("The answer is no longer yes", "no answer"),
        ("The answer is yesterday", "no answer"),
        ("The answer is yes-no", "no answer"),
        ("The answer is y\u0435s", "no answer"),
        ("The answer is \uff59es", "no answer"),
        ("The answer is true", "no answer"),
        ("Answer:\nYes is what Amy said", "no answer"),
        ("The answer is no. The answer is yes.", "conflicting answers"),
        ("The answer is yes. The answer is yes or no.", "conflicting answers"),
        ("The answer is yes. The answer is not yes.", "conflicting answers"),
    ],
)
def test_yes_no(text: str, expected: str) -> None:
    assert reason("yes_no", text, "yes") == expected
    assert reason("yes_no", text, "Yes") == expected


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("The answer is nyda.", "nyda", "correct"),
        ("The answer is NYDA!", "nyda", "correct"),
        ("The answer is nyda", "NYDA", "correct"),
        ("The answer is n y d a.", "nyda", "correct"),
        ("The answer is n-y-d-a.", "nyda", "correct"),
        ("The answer is n, y, d, a", "nyda", "correct"),
        ('The answer is "nyda".', "nyda", "correct"),
        ('The answer is "n", "y", "d", "a".', "nyda", "correct"),
        ("The answer is **nyda**", "nyda", "correct"),
        ("\\boxed{\\text{nyda}}", "nyda", "correct"),
        ("#### nyda", "nyda", "correct"),
        ("Answer: The answer is nyda.", "nyda", "correct"),
        ("The answer is nyda, because", "nyda", "correct"),
        ("The answer is <letters>. The answer is nyda", "nyda", "correct"),
        ("The answer is then.", "then", "correct"),
        ("So the answer is so", "so", "correct"),
        ("The answer is because.", "because", "correct"),
        ("The answer is a.", "a", "correct"),
        ("The answer is nydab", "nyda", "wrong"),
        ("The answer is n y d", "nyda", "wrong"),
        ("The answer is adyn", "nyda", "wrong"),
        ("nyda", "nyda", "no answer"),
        ("The answer is not nyda", "nyda", "no answer"),
        ("The answer is the word nyda", "the", "no answer"),
        ("The answer is ny da", "nyda", "no answer"),
        ("The answer is n.y.d.a", "nyda", "no answer"),
        ("The answer is a word", "a", "no answer"),
        ("The answer is nyda or nydb", "nyda", "no answer"),
        ("The answer is n\u0443da", "nyda", "wrong"),
        ("The answer is nyd\u00e0", "nyda", "wrong"),
        ("The answer is nyda2", "nyda", "no answer"),
        ("The answer is nyda_", "nyda", "no answer"),
        ("Answer:\nnyda is said", "nyda", "no answer"),
        ("The answer is nyda. The answer is nydb.", "nyda", "conflicting answers"),
        ("The answer is méyl.", "méyl", "correct"),
        ("The answer is m-é-y-l.", "méyl", "correct"),
        ("The answer is nydb, no, the answer is nyda.", "nyda", "conflicting answers"),
    ],
)
def test_letters(text: str, target: str, expected: str) -> None:
    assert reason("letters", text, target) == expected


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("The answer is Paris.", "Paris", "correct"),
        ("The answer is PARIS", "paris", "correct"),
        ("Answer: **Paris**", "Paris", "correct"),
        ('The answer is: "Paris".', "Paris", "correct"),
        ("The answer is $\\boxed{\\text{Paris}}$.", "Paris", "correct"),
        ("The answer is Paris. It is big.", "Paris", "correct"),
        ("The answer is\nParis", "Paris", "correct"),
        ("Final answer: The answer is Paris.", "Paris", "correct"),
        ("The answer is Paris, so the final answer is Paris.", "Paris", "correct"),
        ("The answer is <text>. The answer is Paris", "Paris", "correct"),
        ("The answer is St. Louis.", "St. Louis", "correct"),
        ("The answer is caf\u00e9.", "cafe\u0301", "correct"),
        ("The answer is STRASSE.", "stra\u00dfe", "correct"),
        ("The answer is: not guilty.", "not guilty", "correct"),
        ("The answer is:\n0 1\n1 0", "0 1\n1 0", "correct"),
        ("The answer is:\n```\n0 1\n1 0\n```\nas shown", "0 1\n1 0", "correct"),
        ("The answer is 0 1\n1 0\n\nDone.", "0 1\n1 0", "correct"),
        ("#### Paris", "Paris", "correct"),
        ("The answer is -5.", "-5", "correct"),
        ("The answer is [1, 2].", "[1, 2]", "correct"),
        ("The answer is St. Louis.", "St", "wrong"),
        ("The answer is 5.", "-5", "wrong"),
        ("The answer is $5", "5", "wrong"),
        ("The answer is Paris, France.", "Paris", "wrong"),
        ("The answer is Paris or Rome", "Paris", "wrong"),
        ("The answer is P\u0430ris", "Paris", "wrong"),
        ("The answer is \uff30aris", "Paris", "wrong"),
        ("The answer is the city Paris", "Paris", "wrong"),
        ("The answer is 0 1 1 0", "0 1\n1 0", "wrong"),
        ("The answer is:\n3\n2\n4", "3", "wrong"),
        ("The answer is:\n3\n\nAs shown.", "3", "correct"),
        ("The answer is ❌✅", "❌✅", "correct"),
        ("The answer is ✅❌", "❌✅", "wrong"),
        ("#### Paris. It is big.", "Paris", "wrong"),
        ("\\boxed{Paris}{Rome} \\boxed{Paris", "Paris", "no answer"),
        ("\\boxed{Paris} \\boxed{Paris", "Paris", "correct"),
        ("\\boxed{Paris", "Paris", "no answer"),
        ("Paris", "Paris", "no answer"),
        ("The answer is not Paris.", "Paris", "no answer"),
        ("The answer is not guilty.", "guilty", "no answer"),
        ("The answer is ...", "Paris", "no answer"),
        ("The answer is Rome. The answer is Paris.", "Paris", "conflicting answers"),
        ("The answer is Paris. The answer is not Paris.", "Paris", "conflicting answers"),
    ],
)
def test_text(text: str, target: str, expected: str) -> None:
    assert reason("text", text, target) == expected


@pytest.mark.parametrize(
    ("kind", "target", "choices"),
    [("choice", "D", CHOICES), ("choice", "b", CHOICES), ("choice", "", CHOICES), ("choice", "A", []),
     ("choice", "AB", CHOICES), ("yes_no", "true", []), ("letters", "a1", []), ("letters", "", []), ("text", " .", []),
     ("letters", "n y", []), ("choice", "blue ball", CHOICES)],
)  # fmt: skip
def test_a_gold_answer_of_another_kind_is_an_error(kind: AnswerKind, target: str, choices: list[str]) -> None:
    problem = problem_of(kind, target, choices)
    with pytest.raises(DataError, match="problem p"):
        grade("The answer is (B).", problem)
    with pytest.raises(DataError, match="problem p"):
        answer_start("The answer is (B).", problem)


TARGETS: list[tuple[AnswerKind, str]] = [
    ("number", "-1,080"), ("math", "3/4"), ("choice", "B"), ("yes_no", "yes"), ("yes_no", "No"), ("letters", "nyda"),
    ("text", "Paris"), ("text", "not guilty"), ("text", "0 1\n1 0"), ("text", "[1, 2]"), ("text", "E.g. so."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "target"), TARGETS)
def test_the_final_sentence_is_graded_correct_and_found(kind: AnswerKind, target: str) -> None:
    problem = problem_of(kind, target)
    sentence = final_sentence(problem)
    assert sentence.startswith("The answer is")
    assert sentence.splitlines()[0].endswith(":" if "\n" in target else ".")
    for text in (sentence, f"Some steps.\n{sentence}", f"{sentence}\n"):
        assert grade(text, problem).correct
        assert answer_start(text, problem) == text.index("answer")
    assert answer_start("Some steps.", problem) is None


def test_the_final_sentences_are_the_agreed_ones() -> None:
    said = [final_sentence(problem_of(kind, target)) for kind, target in TARGETS[:7]]
    assert said == ["The answer is -1,080.", "The answer is 3/4.", "The answer is (B).", "The answer is yes.",
                    "The answer is no.", "The answer is nyda.", "The answer is Paris."]  # fmt: skip


def test_a_scorer_judges_what_was_found() -> None:
    problem = Problem("p", "q", "[3, 4]", "text", {"scorer": "rg:x"})
    seen: list[str] = []

    def scorer(asked: Problem, answer: str) -> bool:
        assert asked is problem
        seen.append(answer)
        return answer == "[4, 3]"

    assert grade("The answer is `[4, 3]`.", problem, scorer=scorer) == Verdict(True, "`[4, 3]`.", "correct (rg:x)")
    assert grade("The answer is [5].", problem, scorer=scorer) == Verdict(False, "[5].", "wrong (rg:x)")
    assert seen == ["`[4, 3]`.", "`[4, 3]`", "[4, 3]", "[5].", "[5]"]
    seen.clear()
    assert grade("[4, 3]", problem, scorer=scorer).reason == "no answer"
    assert grade("The answer is [4, 3]. The answer is [5].", problem, scorer=scorer).reason == "conflicting answers"
    assert grade("The answer is [4, 3]", problem, finish_reason="length", scorer=scorer).reason == "unfinished"
    assert seen == []
    with pytest.raises(DataError, match="only its scorer rg:x can grade it"):
        grade("The answer is [3, 4].", problem)


pieces = st.sampled_from(
    ["The answer is ", "answer:", "####", "\\boxed{", "\\text{", "}", "{", " not ", "\n", " ", "(B)", "B", "(", ")",
     "A", "a", "blue ball", "red ball", "yes", "no", "Yes", ",", ".", "/", "-", "or", "and", "because", "so ", "n", "y",
     "d", "nyda", '"', "“", "*", "\0", "\ud800", "\u2028", "В", "Paris", "\u0130", "ß", "```", "<"]
)  # fmt: skip


@given(st.one_of(st.text(st.characters()), st.lists(pieces, max_size=40).map("".join)), st.sampled_from(TARGETS))
def test_no_kind_raises_or_is_two_things(text: str, asked: tuple[AnswerKind, str]) -> None:
    problem = problem_of(*asked)
    verdict = grade(text, problem)
    not_judged = {"not judged: no verifier"} if asked[0] == "math" else set()
    assert verdict.reason in {"correct", "wrong", "no answer", "conflicting answers"} | not_judged
    assert verdict.correct == (verdict.reason == "correct")
    assert verdict.extracted is None or verdict.extracted in text
    start = answer_start(text, problem)
    if verdict.correct:
        assert start is not None
    # What was right stays right with another line of reasoning before it, and a contradiction never does.
    if verdict.correct:
        assert grade(f"Some steps.\n{text}", problem).correct
        if asked[0] == "choice":
            assert grade(f"{text}\nThe answer is (A).", problem).reason == "conflicting answers"


@given(st.lists(pieces, max_size=12).map("".join))
def test_without_a_statement_there_is_no_answer(text: str) -> None:
    if not any(mark in text.lower() for mark in ("answer", "####", "boxed")):
        for asked in TARGETS:
            assert reason(asked[0], text, asked[1]) == "no answer"


@pytest.mark.parametrize("kind", ["choice", "yes_no", "letters", "text"])
@pytest.mark.parametrize(
    "unit",
    ["a", "The answer is a", "answer:" + " " * 200, "answer: ((((", "answer: **", "answer: (A) ", "answer: A, B, ",
     "answer: yes ,", "answer: n-y-", "answer: the the the ", "so the final ", "\\boxed{", "\\boxed{\\text{", "}", "*",
     "\n", "answer: blue ball. ", "answer: Paris, ", "abc. ", "answer: simply ", "####", "_", ")", "answer: (B))))))",
     "A ", "(A) ", "yes", "no ", "answer: (A), b ", "answer: nyda (n", "answer: yes it ", "answer: b. ", "\u0301",
     "answer: \u0316\u0301", "red ball", "<answer>", "\0", "\ud800"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "The answer is "])
def test_long_texts_of_words_take_linear_time(kind: AnswerKind, unit: str, start: str) -> None:
    target = {"choice": "B", "yes_no": "yes", "letters": "nyda", "text": "Paris"}[kind]
    grows_linearly(start, unit, problem_of(kind, target))


# --- the other modes, and formulas


def test_flexible_reads_unfinished_texts_and_the_last_of_two_answers() -> None:
    problem = Problem("p", "q", "5")
    for text in (
        "The answer is 6. No, the answer is 5.",
        "6 is 5",
        "She has 2 + 3 = 5 apples. The",
        "The answer isn't 5",
    ):
        assert grade(text, problem, "flexible", finish_reason="length").reason == "correct"
    assert grade("The answer is 5. She had 6.", problem, "flexible") == Verdict(True, "5", "correct")
    assert grade("none", problem, "flexible") == Verdict(False, None, "no answer")


def test_flexible_hands_the_last_line_to_the_scorer() -> None:
    problem = Problem("p", "q", "[3, 4]", "text", {"scorer": "rg:x"})
    verdict = grade("So:\n**[4, 3]**", problem, "flexible", scorer=lambda asked, answer: answer == "[4, 3]")
    assert verdict == Verdict(True, "[4, 3]", "correct (rg:x)")


@pytest.mark.parametrize(
    ("task", "target", "text", "template", "expected"),
    [("gsm8k", "18", " 18.", "zs_cot", Verdict(True, "18", "correct")), ("gsm8k", "18", " 17.", "zs_cot", None)],
)
@pytest.mark.parametrize("mode", ["paper", "paper-v1"])
def test_the_papers_modes_ask_the_table_of_the_papers_rules(
    task: str, target: str, text: str, template: str, expected: Verdict | None, mode: Mode
) -> None:
    verdict = grade(text, Problem(f"{task}/test/0", "q", target), mode, template, finish_reason="length")
    assert verdict.correct == (expected is not None)


@pytest.mark.parametrize("template", [None, "lenient"])
def test_the_papers_modes_need_a_template_and_a_task_of_the_paper(template: str | None) -> None:
    with pytest.raises(DataError, match=r"template|zs_cot"):
        grade(" 18.", Problem("gsm8k/test/0", "q", "18"), "paper", template)
    with pytest.raises(DataError, match="chain_arithmetic"):
        grade(" 18.", Problem("chain_arithmetic/test/0", "q", "18"), "paper", "zs_cot")


def test_the_verifier_is_asked_only_where_spelling_does_not_decide() -> None:
    asked: list[tuple[str, str]] = []

    def verifier(target: str, answer: str) -> bool | None:
        asked.append((target, answer))
        return {"1+x": True, "x+2": False}.get(answer)

    problem = Problem("p", "q", "x+1", "math")
    assert grade("\\boxed{x + 1}", problem, verifier=verifier).reason == "correct"
    assert grade("\\boxed{5}", Problem("p", "q", "6", "math"), verifier=verifier).reason == "wrong"
    assert grade("\\boxed{1+x} or \\boxed{x+2}", problem, verifier=verifier).reason == "conflicting answers"
    assert asked == []
    assert grade("\\boxed{1+x}", problem, verifier=verifier) == Verdict(True, "1+x", "correct (math-verify)")
    assert grade("\\boxed{x+2}", problem, verifier=verifier) == Verdict(False, "x+2", "wrong (math-verify)")
    assert grade("\\boxed{2x}", problem, verifier=verifier) == Verdict(False, "2x", "not judged: math-verify")
    assert grade("\\boxed{2x}", problem) == Verdict(False, "2x", "not judged: no verifier")
    assert asked == [("x+1", "1+x"), ("x+1", "x+2"), ("x+1", "2x")]
    with pytest.raises(DataError, match="problem p: target '' is not a formula"):
        grade("\\boxed{5}", Problem("p", "q", "", "math"))


# Every way of writing a whole number that strict accepts.
WAYS = [
    "{0}", "{0:,}", "${0:,}", "{0}.0", "{0}.", "**{0}**", "\\({0}\\)", "$\\boxed{{{0}}}$", "{0}%", "{0}\\%",
    "{0} apples",
    "{0}kg", "{0}e0", "{0}/1", "\\frac{{{0}}}{{1}}", "\\boxed{{\\text{{{0}}}}}", "x = {0}", "{0}\\text{{ cm}}^2",
    "1 + 1 = {0}", "{0}°", "about {0}", "{0}.00 dollars", "({0})", "{0} because 1 + 1 = 2", "{0} × 10^0", "USD {0}",
]  # fmt: skip


@given(st.integers(0, 10**12), st.sampled_from(WAYS), st.sampled_from(["", "-", "−", "–"]))
def test_a_number_is_read_back_however_it_is_written(gold: int, way: str, sign: str) -> None:
    written = way.format(gold)
    written = written.replace(str(gold), f"{sign}{gold}", 1) if "," not in written else f"{sign}{written}"
    target = str(-gold if sign else gold)
    assert graded(f"Some steps.\nThe answer is {written}", target) == "correct"
    assert graded(f"The answer is {written}", str(gold + 1)) == "wrong"
    assert grade(f"The answer is {written}", Problem("p", "q", target), "flexible").correct


@given(st.fractions(-1000, 1000, max_denominator=999))
def test_fractions_and_mixed_numbers_are_read_back(gold: Fraction) -> None:
    sign, whole, part = "-" if gold < 0 else "", abs(gold) // 1, abs(gold) % 1
    above, below = part.numerator, part.denominator
    forms = [f"{gold}", f"{sign}\\frac{{{abs(gold.numerator)}}}{{{gold.denominator}}}"]
    if whole and part:
        forms += [f"{sign}{whole} {above}/{below}", f"{sign}{whole}\\frac{{{above}}}{{{below}}}"]
    for form in forms:
        assert number(form) == gold
        assert graded(f"The answer is ${form}$.", str(gold)) == "correct"


# Golds of AddSub and SingleEq that a computer printed, by id.
@pytest.mark.parametrize(
    ("problem_id", "target", "right", "wrong"),
    [("addsub/train/235", "5.666666666666667", ["17/3", "5 2/3", "5.67", "5.667"], ["5.66", "5.7", "6", "5.65"]),
     ("addsub/train/247", "1.8333333333333335", ["11/6", "1 5/6", "1.83"], ["1.8", "1.84", "2"]),
     ("addsub/train/184", "0.16666666666666666", ["1/6", "0.17", "0.1667"], ["0.2", "0.16", "1/7"]),
     ("addsub/train/216", "0.9166666666666666", ["11/12", "0.92", "0.9167"], ["0.9", "0.91", "1"]),
     ("single_eq/train/331", "0.4166666666666667", ["5/12", "0.42"], ["0.4", "0.41"]),
     ("single_eq/test/341", "0.8888888888888888", ["8/9", "0.89"], ["0.88", "0.9", "1"]),
     ("single_eq/test/356", "10.333333333333334", ["31/3", "10 1/3", "10.33"], ["10.3", "10.34", "10"])],
)  # fmt: skip
def test_a_gold_answer_that_a_computer_printed_is_what_a_person_would_write(
    problem_id: str, target: str, right: list[str], wrong: list[str]
) -> None:
    problem = Problem(problem_id, "q", target)
    for answer in [*right, target]:
        assert grade(f"The answer is {answer}.", problem).reason == "correct"
        assert grade(f"{answer}", problem, "flexible").reason == "correct"
    for answer in wrong:
        assert grade(f"The answer is {answer}.", problem).reason == "wrong"
    assert grade(final_sentence(problem), problem).correct


@given(st.one_of(st.text(st.characters()), st.lists(pieces | fragments, max_size=40).map("".join)))
def test_flexible_never_raises_and_gives_what_strict_gives(text: str) -> None:
    for asked in TARGETS:
        problem = problem_of(*asked)
        strict, flexible = grade(text, problem), grade(text, problem, "flexible")
        assert flexible.reason in {"correct", "wrong", "no answer", "not judged: no verifier"}
        if strict.reason in ("correct", "wrong"):
            assert flexible == strict


def test_of_a_text_longer_than_models_write_only_the_end_is_read() -> None:
    filler = "x " * (LONGEST_READ // 2)
    assert graded(f"The answer is 5. {filler}", "5") == "no answer"
    assert graded(f"The answer is 6. {filler}The answer is 5.", "5") == "correct"
    assert graded(f"The answer is 6. {filler[:-40]}The answer is 5.", "5") == "conflicting answers"
