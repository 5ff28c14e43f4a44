"""Leakage: what is counted, and that the real data sets leak as the notes on the paper's method say."""

import os

import pytest

from fcot_lite import tasks
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import Problem
from fcot_lite.tasks.leakage import Overlap, overlap

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test


def asked(question: str, group: str | None = None) -> Problem:
    return Problem("p", question, "1", metadata={} if group is None else {"group": group})


def test_partners_are_counted_by_test_question() -> None:
    train = [asked("Ann has 3 cats."), asked("Ann has 3 cats."), asked("Who is it?")]
    test = [
        asked("Ann has 3 cats."),
        asked("ann  has 3 CATS."),
        asked("Bo has 5 cats."),
        asked("Bo has 5 dogs."),
    ]
    assert overlap(train, test) == Overlap(exact=1, normalised=2, template=2)
    assert overlap([], test) == overlap(train, []) == Overlap(0, 0, 0)


def test_the_task_s_own_groups_come_before_templates() -> None:
    train = [asked("Ann has 3 cats.", "story 1"), asked("Who is it?", "story 2")]
    test = [asked("Ann has 5 cats.", "story 3"), asked("Where is it?", "story 2")]
    assert overlap(train, test) == Overlap(exact=0, normalised=0, template=1)


def test_any_task_has_its_leakage() -> None:
    found = tasks.leakage("chain_arithmetic", options={"terms": [2, 2]})
    assert (found.task, found.by, found.train, found.test, found.left_out) == (
        "chain_arithmetic",
        "paper",
        1100,
        500,
        0,
    )
    assert found.loaded == found.published
    assert (found.loaded.exact, found.loaded.normalised) == (0, 0)
    with pytest.raises(RecipeError, match="no template split"):
        tasks.leakage("chain_arithmetic", "template")
    with pytest.raises(RecipeError, match="did you mean"):
        tasks.leakage("chain_arithmetics")


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_DATA:
        pytest.skip("FCOT_DATA is not set")
    monkeypatch.setenv("FCOT_DATA", REAL_DATA)


# Of the paper's split as published, out of so many test questions. Those that the notes on the method measured, by
# other code: MultiArith 180 of 180 templates and 5 exact pairs, dates 111 of 111, stories 198 of 225, StrategyQA 1.
PUBLISHED = {
    "single_eq": (152, Overlap(0, 0, 26)),
    "addsub": (119, Overlap(0, 0, 20)),
    "multiarith": (180, Overlap(5, 5, 180)),
    "gsm8k": (1319, Overlap(0, 0, 1)),
    "svamp": (300, Overlap(0, 0, 11)),
    "date_understanding": (111, Overlap(0, 0, 111)),
    "tracking_shuffled_objects": (225, Overlap(0, 0, 198)),
    "last_letter_concatenation": (150, Overlap(0, 0, 10)),
    "coin_flip": (150, Overlap(0, 0, 10)),
    "commonsense_qa": (1221, Overlap(0, 0, 0)),
    "strategy_qa": (687, Overlap(1, 1, 4)),
}


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_leakage_of_the_paper_s_split(name: str) -> None:
    found = tasks.leakage(name)
    assert (found.test, found.published) == PUBLISHED[name]
    assert (found.loaded.exact, found.loaded.normalised) == (0, 0)
    assert found.left_out == {"multiarith": 5, "strategy_qa": 1}.get(name, 0)
    # Two MultiArith templates have no other partner in train than the five questions that are left out.
    assert found.published.template - found.loaded.template == {"multiarith": 2, "strategy_qa": 1}.get(name, 0)


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_template_splits_do_not_leak(name: str) -> None:
    found = tasks.leakage(name, "template")
    assert found.loaded == Overlap(0, 0, 0)
    assert found.left_out == (name == "gsm8k")
    assert abs(found.test - PUBLISHED[name][0]) <= 6


@pytest.mark.usefixtures("real_data")
def test_aqua_s_leakage_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="deepmind/aqua_rat"):
        tasks.leakage("aqua")
