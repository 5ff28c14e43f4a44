"""The last thing in a text that could be its answer, where none is stated."""

import pytest

from fcot_lite.answers import grade
from fcot_lite.records import Problem, Verdict


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        ("eksa", "eksa"),
        ('"eksa".', "eksa"),
        ("It is eksa", "eksa"),
        ("It is **eksa**!", "eksa"),
        ("e-k-s-a", "e-k-s-a"),
        ("So: e, k, s, a.", "e, k, s, a"),
        ("Together that's EKSA\n", "EKSA"),
    ],
)
def test_letters(text: str, extracted: str) -> None:
    assert grade(text, Problem("p", "q", "eksa", "letters"), "flexible") == Verdict(True, extracted, "correct")


@pytest.mark.parametrize(
    ("text", "extracted"), [("It is eks", "eks"), ("that's", "that"), ("eksa or so", "so"), ("5", None)]
)
def test_other_letters(text: str, extracted: str | None) -> None:
    verdict = grade(text, Problem("p", "q", "eksa", "letters"), "flexible")
    assert (verdict.correct, verdict.extracted) == (False, extracted)


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        ("1,2,3", "3"),
        ("10,20,30", "30"),
        ("100,200,30", "30"),
        ("5,6,7,8.", "8"),
        ("1,2,-3", "-3"),
        ("12,345,678", "12,345,678"),
        ("1,00,000", "1,00,000"),
        ("1, 2, 3", "3"),
        ("1,23", None),
        ("1.234,5", None),
        ("1.2.3", None),
    ],
)
def test_lists_of_numbers(text: str, extracted: str | None) -> None:
    assert grade(text, Problem("p", "q", "3"), "flexible").extracted == extracted
