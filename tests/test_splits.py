"""Splits: nothing of one group on two sides, everything comes back, the paper's test sets row for row."""

import hashlib
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.errors import DataError
from fcot_lite.records import Problem
from fcot_lite.tasks import splits
from fcot_lite.tasks.splits import DataSet, group, hold_out, normalised, parts, permutation, template, without

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
REAL = [name for name, task in tasks.TASKS.items() if task.data is not None and name != "aqua"]


def texts(problems: list[Problem]) -> set[str]:
    return {normalised(problem.question) for problem in problems}


def groups(problems: list[Problem]) -> set[str]:
    return {group(problem) for problem in problems}


@given(st.lists(st.sampled_from([f"Question {i}?" for i in range(60)]), min_size=2, max_size=300))
def test_hold_out_partitions_and_keeps_duplicates_together(questions: list[str]) -> None:
    problems = [Problem(f"t/train/{i}", q if i % 2 else f" {q.upper()}\n", "1") for i, q in enumerate(questions)]
    train, validation = hold_out(problems, "key")
    assert sorted(p.id for p in train + validation) == sorted(p.id for p in problems)
    assert not texts(train) & texts(validation)
    assert hold_out(problems, "key") == (train, validation)


@pytest.mark.parametrize(("n", "expected"), [(7473, 500), (1000, 100), (415, 42), (100, 30), (40, 20), (2, 1), (1, 0)])
def test_validation_is_a_tenth_within_bounds(n: int, expected: int) -> None:
    problems = [Problem(f"t/{i}", f"question {i}", "1") for i in range(n)]
    _, validation = hold_out(problems, "key")
    assert len(validation) == expected
    if n > 2:
        assert texts(validation) != texts(problems[:expected])
        assert texts(validation) != texts(hold_out(problems, "another key")[1])


def test_without_drops_questions_that_differ_in_case_and_space_only() -> None:
    train = [Problem("a", "How  many\u00a0cats? ", "1"), Problem("b", "How many dogs?", "1")]
    assert [p.id for p in without(train, [Problem("c", "how many CATS?", "2")])] == ["b"]


def test_permutations_of_neighbouring_keys_have_nothing_in_common() -> None:
    a, b = permutation("task/0", 500), permutation("task/1", 500)
    assert sorted(a) == sorted(b) == list(range(500))
    assert sum(x == y for x, y in zip(a, b, strict=True)) < 10
    assert sum(x == y for x, y in zip(a[1:], b, strict=False)) < 10


# --- groups


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann has 3 cats and buys 4 more.", "Bo has 12 cats and buys 1,200 more."),
        ("How much did Adam's cat cost him?", "How much did Zoë's cat cost her?"),
        ("For $ 3.50 Mr. Smith got six pens.", "For $ 12 Joan got 2 pens."),
        ("He has 1/2 of a pie", "Maria has 0.25 of a pie"),
        ("Today is 3/5/1973.", "Today is 12/31/1999."),
    ],
)
def test_names_and_numbers_make_no_template(one: str, other: str) -> None:
    assert template(one) == template(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann has 3 cats.", "Ann has 3 dogs."),
        ("Ann has 3 cats. How many more?", "Ann has 3 cats. How many in all?"),
        ("It is the first day of 2007.", "It is the last day of 2007."),
        ("the sheep", "she ep"),
        ("often", "of ten"),
    ],
)
def test_other_words_are_another_template(one: str, other: str) -> None:
    assert template(one) != template(other)


def test_a_group_is_the_task_s_key_or_else_the_question() -> None:
    assert group(Problem("a", "Who  IS it?", "1")) == "who is it?"
    assert group(Problem("a", "Who is it?", "1", metadata={"group": "story 1"})) == "story 1"


def test_a_group_over_a_half_leaves_train_its_problems() -> None:
    problems = [Problem(f"{i}", f"question {i}", "1", metadata={"group": "same"}) for i in range(60)]
    assert hold_out(problems, "key") == (problems, [])


PROBLEMS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=200)


def made(rows: list[tuple[int, int]]) -> list[Problem]:
    return [
        Problem(str(i), f"question {text}", "1", metadata={"group": f"group {text % (key + 1)}"})
        for i, (text, key) in enumerate(rows)
    ]


@given(PROBLEMS, st.sampled_from(splits.SPLITTINGS))
def test_one_file_is_cut_without_loss_or_overlap(rows: list[tuple[int, int]], by: splits.By) -> None:
    problems = made(rows)
    cut = parts(DataSet("t", lambda file: problems, "file"), by)
    assert sorted(p.id for side in cut.values() for p in side) == sorted(p.id for p in problems)
    assert not texts(cut["train"] + cut["validation"]) & texts(cut["test"])
    assert not groups(cut["train"]) & groups(cut["validation"])
    if by == "template":
        assert not groups(cut["train"] + cut["validation"]) & groups(cut["test"])


@given(PROBLEMS, PROBLEMS, st.sampled_from(splits.SPLITTINGS))
def test_a_test_file_stays_whole(one: list[tuple[int, int]], other: list[tuple[int, int]], by: splits.By) -> None:
    files = {"train": made(one), "test": made(other)}
    cut = parts(DataSet("t", files.__getitem__, "test", "train"), by)
    assert cut["test"] == files["test"]
    assert sorted(p.id for side in ("train", "validation", "left_out") for p in cut[side]) == sorted(
        p.id for p in files["train"]
    )
    assert not texts(cut["train"] + cut["validation"]) & texts(cut["test"])
    of_test = groups(cut["test"]) if by == "template" else set()
    assert not groups(cut["train"] + cut["validation"]) & of_test
    for problem in cut["left_out"]:
        assert group(problem) in of_test or texts([problem]) <= texts(cut["test"])


def test_a_test_file_is_read_alone() -> None:
    def read(file: str) -> list[Problem]:
        if file != "test":
            raise DataError(file)
        return made([(1, 1)])

    data = DataSet("t", read, "test", "train")
    assert [p.id for p in splits.load(data, "template", "test", {}, None)] == ["t/test/0"]
    with pytest.raises(DataError, match="train"):
        splits.load(data, "paper", "train", {}, None)


# --- the real data sets


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_DATA:
        pytest.skip("FCOT_DATA is not set")
    monkeypatch.setenv("FCOT_DATA", REAL_DATA)


def digest(name: str, by: splits.By) -> str:
    rows = [
        [problem.id, problem.question, problem.target]
        for split in tasks.SPLITS
        for problem in tasks.load(name, split, by=by)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


# Pinned: a problem that changes its text or its side is another problem, and every sample bought for it is lost.
# Sizes are those of train, validation and test.
PINNED: dict[str, dict[splits.By, tuple[list[int], str]]] = {
    "single_eq": {
        "paper": ([320, 36, 152], "9e52af2787b97c81"),
        "template": ([320, 36, 152], "6a10328fb833c057"),
    },
    "addsub": {
        "paper": ([246, 30, 119], "c428c34232b666f6"),
        "template": ([246, 30, 119], "86902e707fac136c"),
    },
    "multiarith": {
        "paper": ([373, 42, 180], "626e1434ebdbb7ec"),
        "template": ([377, 42, 181], "95be09a2ee43db7d"),
    },
    "gsm8k": {
        "paper": ([6973, 500, 1319], "7bb9c07508a8f924"),
        "template": ([6972, 500, 1319], "9f866448c2e4a782"),
    },
    "svamp": {
        "paper": ([630, 70, 300], "5bf9fa4a87a2b717"),
        "template": ([628, 70, 302], "b091d095ecaaadab"),
    },
    "date_understanding": {
        "paper": ([228, 30, 111], "e980ac9ed71f1113"),
        "template": ([216, 36, 117], "1a37409121201442"),
    },
    "tracking_shuffled_objects": {
        "paper": ([472, 53, 225], "b93ccba24e708ee5"),
        "template": ([471, 54, 225], "9c55a3c99f5815b2"),
    },
    "last_letter_concatenation": {
        "paper": ([315, 35, 150], "760b079acb553907"),
        "template": ([309, 41, 150], "fd680d361a564170"),
    },
    "coin_flip": {
        "paper": ([315, 35, 150], "b6b890058a4b26cc"),
        "template": ([315, 35, 150], "2f15cd8189b3e059"),
    },
    "commonsense_qa": {
        "paper": ([9241, 500, 1221], "33a44b4d65eaff56"),
        "template": ([9241, 500, 1221], "33a44b4d65eaff56"),
    },
    "strategy_qa": {
        "paper": ([1442, 160, 687], "1fb6bc6e9f93caf9"),
        "template": ([1443, 160, 687], "6ac6f2047767bd45"),
    },
}


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("by", splits.SPLITTINGS)
@pytest.mark.parametrize("name", REAL)
def test_real_splits_are_pinned(name: str, by: splits.By) -> None:
    sizes = [len(tasks.load(name, split, by=by)) for split in tasks.SPLITS]
    assert (sizes, digest(name, by)) == PINNED[name][by]


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("by", splits.SPLITTINGS)
@pytest.mark.parametrize("name", REAL)
def test_real_validation_shares_no_group_with_train(name: str, by: splits.By) -> None:
    train, validation, test = (tasks.load(name, split, by=by) for split in tasks.SPLITS)
    assert not groups(train) & groups(validation)
    assert not texts(train + validation) & texts(test)
    if by == "template":
        assert not groups(train + validation) & groups(test)
    num_train = len(train) + len(validation)
    wanted = min(500, max(30, round(0.1 * num_train)))
    assert wanted <= len(validation) <= wanted + 8
    assert len({p.id for p in train + validation + test}) == num_train + len(test)


@pytest.mark.usefixtures("real_data")
def test_real_groups_are_what_the_paper_s_tasks_are_made_of() -> None:
    count = {}
    for name in ("multiarith", "date_understanding", "tracking_shuffled_objects", "coin_flip"):
        data = tasks.TASKS[name].data
        assert data is not None
        count[name] = len(groups(data.read(data.test_file)))
    # 41 contexts of dates, of which two pairs differ in a year or in a name only.
    assert count == {
        "multiarith": 120, "date_understanding": 39, "tracking_shuffled_objects": 250, "coin_flip": 472
    }  # fmt: skip


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", ["coin_flip", "last_letter_concatenation"])
def test_real_names_stand_on_one_side_and_no_question_is_lost(name: str) -> None:
    names = {}
    for split in tasks.SPLITS:
        questions = [problem.question for problem in tasks.load(name, split, by="template")]
        names[split] = [names_in(question) for question in questions]
    assert sum(map(len, names.values())) == 500
    sides = [set().union(*found) for found in names.values()]
    assert sum(map(len, sides)) == len(set().union(*sides)) > 1900


def names_in(question: str) -> set[str]:
    found = re.findall(r"[.] ([^.]+?) (?:flips|does not flip) the coin", question) or question.split('"')[1:2]
    return {word for name in found for word in name.split()}


@pytest.mark.usefixtures("real_data")
def test_real_ids_name_the_same_question_however_it_is_split() -> None:
    for name in REAL:
        by_row: dict[tuple[str, ...], set[str]] = {}
        data = tasks.TASKS[name].data
        assert data is not None
        for by in splits.SPLITTINGS:
            for split in tasks.SPLITS:
                for problem in tasks.load(name, split, by=by):
                    _, side, row = problem.id.rsplit("/", 2)
                    key = (row, str(side == "test")) if data.train_file else (row,)
                    by_row.setdefault(key, set()).add(problem.question)
        assert {len(questions) for questions in by_row.values()} == {1}
