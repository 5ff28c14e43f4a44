"""The grader: one line per case that could be confused, then texts nobody would write."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite.answers import accepted, grade, number
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import Problem, Verdict


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
        ("The answer is five.", "5"),
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
        ("The answer is 2 1/2", "2"),
        ("The answer is 5½", "5"),
        ("The answer is 5²", "5"),
        ("The answer is 10^3", "10"),
        ("The answer is 1,23", "123"),
        ("The answer is 1,23", "1"),
        ("The answer is 1,234,5", "1234"),
        ("The answer is 1.2.3", "1.2"),
        ("The answer is 5:30", "5"),
        ("The answer is 1/2/3", "0.5"),
        ("The answer is 5/0", "5"),
        ("The answer is 5 million", "5"),
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
    with pytest.raises(RecipeError, match="flexible"):
        grade("The answer is 5.", Problem("p", "q", "5"), "flexible")  # type: ignore[arg-type]


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


MEGABYTE = 10**6


@pytest.mark.parametrize(
    "unit",
    ["a", "answer", "The answer is 5. ", "answer:1", "answer" + " " * 9, "#", "#### 1\n", "1", "\\", "\\boxed{", "\n",
     "\\boxed{\\frac{1}{2}}", "answer: " + "so " * 20, "answer: 5 ab ab ab ", "answer: 5 ))))))))",
     "answer: " + "a" * 19 + "=", "answer:" + "9" * 1000, "1+", "1/", "1 ab ab ab +", "1,234", "so ", "* ", "$"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "The answer is "])
def test_a_megabyte_takes_milliseconds(unit: str, start: str) -> None:
    text = start + (unit * (MEGABYTE // len(unit) + 1))[:MEGABYTE]
    seconds = []
    for _ in range(3):
        began = time.process_time()
        graded(text, "5")
        seconds.append(time.process_time() - began)
    # Measured 1 to 30 ms; a pattern that is not linear takes minutes. 0.2 leaves room for a slow machine.
    assert min(seconds) < 0.2


@pytest.mark.parametrize(
    "text", ["The answer is 12, or rather 13.", "The answer is 12; no, 13.", "The answer is 12 less 3."]
)
def test_an_answer_that_is_taken_back_does_not_count(text: str) -> None:
    assert not grade(text, Problem("p", "q", "12")).correct
