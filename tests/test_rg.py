"""reasoning-gym's datasets as tasks: every item has a seed of its own, splits are disjoint, faults are the recipe's."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcot_lite import tasks
from fcot_lite.answers import final_sentence, grade, number
from fcot_lite.errors import DataError, RecipeError, ResourceError
from fcot_lite.records import Problem, Verdict
from fcot_lite.tasks import rg
from fcot_lite.tasks.splits import normalised

installed = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is missing")
GSM = "rg:gsm_symbolic"
# All that reasoning-gym 0.1.25 has with its default options and answers that are all numbers.
NUMBERS = [
    "aiw", "basic_arithmetic", "binary_alternation", "chain_sum", "circuit_logic", "count_bits", "count_primes",
    "decimal_arithmetic", "decimal_chain_sum", "dice", "gcd", "gsm_symbolic", "largest_island", "lcm",
    "leg_counting", "letter_counting", "maze", "number_format", "number_sequence", "products", "rectangle_count",
    "rotten_oranges", "self_reference", "simple_equations", "simple_geometry"
]  # fmt: skip


def texts(problems: list[Problem]) -> set[str]:
    return {normalised(problem.question) for problem in problems}


def test_the_package_is_imported_only_for_such_a_task() -> None:
    code = (
        "import sys; from fcot_lite import tasks; tasks.load('chain_arithmetic', 'test', limit=1)\n"
        "kind = tasks.task('rg:gsm_symbolic').answer_kind; print(kind, 'reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "number False\n"


@pytest.mark.parametrize("ask", [lambda: tasks.load(GSM, "test"), lambda: tasks.solved_examples(GSM)])
def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ResourceError, match=r"reasoning-gym.*`make setup`.*C compiler"):
        ask()


# --- problems


@pytest.fixture(scope="module")
def problems() -> dict[str, list[Problem]]:
    return {split: tasks.load(GSM, split, limit=600) for split in tasks.SPLITS}


@installed
def test_no_question_stands_in_two_splits_or_twice_in_one(problems: dict[str, list[Problem]]) -> None:
    asked = [texts(p) for p in problems.values()]
    assert [len(a) for a in asked] == [600, 600, 600]
    assert len(set().union(*asked)) == 1800
    assert problems["train"][17].id == "rg:gsm_symbolic/train/17"
    assert len({problem.id for p in problems.values() for problem in p}) == 1800


@installed
def test_a_smaller_limit_is_a_prefix(problems: dict[str, list[Problem]]) -> None:
    for split in tasks.SPLITS:
        assert tasks.load(GSM, split, limit=50) == problems[split][:50]
    assert [len(tasks.load("rg:gcd", split)) for split in tasks.SPLITS] == [1000, 100, 500]


@installed
def test_worked_answers_are_graded_correct(problems: dict[str, list[Problem]]) -> None:
    for problem in problems["train"] + problems["test"]:
        assert "####" not in problem.metadata["solution"]
        assert problem.metadata["solution"].endswith(f"\nThe answer is {problem.target}.")
        assert grade(problem.metadata["solution"], problem).correct, problem
        assert problem.metadata["source_dataset"] == "gsm_symbolic"


@installed
def test_items_are_not_those_of_a_neighbour(problems: dict[str, list[Problem]]) -> None:
    """With reasoning-gym's seed + index, a sequence is the one before it shifted by one."""
    import reasoning_gym

    own = [item["question"] for item in reasoning_gym.create_dataset("gcd", seed=1, size=50)]
    shifted = [item["question"] for item in reasoning_gym.create_dataset("gcd", seed=2, size=50)]
    assert own[1:] == shifted[:-1]  # the trap is real
    a, b = (texts(tasks.load("rg:gcd", "train", options={"max_value": m}, limit=50)) for m in (1000, 999))
    assert len(a & b) < 3
    assert len({problem.question.split(maxsplit=1)[0] for problem in problems["train"]}) > 40  # templates vary


@installed
def test_other_options_cannot_leak_the_test_split() -> None:
    small = {"min_numbers": 2, "max_numbers": 2, "max_value": 40}
    test = texts(tasks.load("rg:gcd", "test", options=small, limit=60))
    for other in ({**small, "max_value": 41}, {**small, "max_value": 45}):
        train = texts(tasks.load("rg:gcd", "train", options=other, limit=700))
        assert not train & test


@installed
def test_a_default_that_is_spelled_out_changes_nothing() -> None:
    plain = tasks.load(GSM, "test", limit=20)
    assert tasks.load(GSM, "test", options={"difficulty": 1.0}, limit=20) == plain
    assert tasks.load(GSM, "test", options={"difficulty": 1}, limit=20) == plain


@installed
def test_a_space_that_is_too_small_ends_in_an_error_that_names_the_options() -> None:
    tiny = {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 6}
    assert len(texts(tasks.load("rg:gcd", "train", options=tiny, limit=15))) == 15
    with pytest.raises(RecipeError, match=r'rg:gcd: no more than \d+ different train problems .*"max_value": 6'):
        tasks.load("rg:gcd", "train", options=tiny)


@pytest.mark.real
@installed
def test_every_process_makes_the_same_problems() -> None:
    same_in_two_processes(NUMBERS)


def same_in_two_processes(names: list[str]) -> None:
    code = (
        "import sys; from fcot_lite import tasks\n"
        "for name in sys.argv[1:]:\n"
        "    print(ascii((name, [(p.question, p.target) for p in tasks.load('rg:' + name, 'test', limit=3)])))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code, *names],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ("0", "12345")
    )
    assert len(first) == len(names)  # nothing else was printed
    assert [a for a, b in zip(first, second, strict=True) if a != b] == []


@installed
def test_the_first_problems_are_pinned(problems: dict[str, list[Problem]]) -> None:
    # A problem that changes its text is another problem, and every sample bought for it is lost.
    rows = [(p.id, p.question, p.target) for split in tasks.SPLITS for p in problems[split][:20]]
    assert (
        hashlib.sha256(repr(rows).encode()).hexdigest()
        == "90f194a432a11c3068c75b4168357520007b32c5098d5fe3c5fb83a9058ae4e0"
    )


# --- which datasets, which options


@installed
@pytest.mark.parametrize(
    ("name", "kind"),
    [("gcd", "number"), ("syllogism", "yes_no"), ("caesar_cipher", "text"), ("rotate_matrix", "text"),
     ("sudoku", "scorer"), ("calendar_arithmetic", "scorer"), ("graph_color", "scorer")],
)  # fmt: skip
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_the_kind_follows_from_the_dataset_whatever_the_limit(name: str, kind: str, split: tasks.Split) -> None:
    for limit in (1, 3):
        for problem in tasks.load(f"rg:{name}", split, limit=limit):
            scorer = {f"rg:{name}"} if kind == "scorer" else set()
            assert problem.answer_kind == ("text" if kind == "scorer" else kind)
            assert {problem.metadata[key] for key in ("scorer",) if key in problem.metadata} == scorer


@installed
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arc_agi", "rg:arc_agi cannot be used: its items depend on Python's hash seed"),
        ("word_ladder", "hash seed"),
        ("intermediate_integration", "can take for ever"),
        ("boxnet", "no gold answer"),
        ("rush_hour", "no gold answer"),
        ("dice_", "did you mean 'rg:dice'"),
    ],
)
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_some_are_refused_with_the_reason(name: str, message: str, split: tasks.Split) -> None:
    with pytest.raises(RecipeError, match=message):
        tasks.load(f"rg:{name}", split, limit=1)


def datasets() -> list[str]:
    import reasoning_gym

    return sorted(reasoning_gym.factory.DATASETS)


ODD = [
    "",
    "x",
    "0",
    "-1",
    "[]",
    "{}",
    "null",
    "(((",
    "1/0",
    "9**9**9**9**9",
    "1e999999999",
    "\0",
    "\ud800",
    "[[[[",
    "{1: 2}",
    "A=B",
    "R9999999999",
    "lambda: 0",
    "x" * 20_000,
    "[" * 5_000,
    "_",
    "0 1\n1 0",
    "½",
    "٣",
    "()",
    "a b",
    "\n",
    "0x",
    "1_0",
]


KINDS = {"number": 27, "scorer": 50, "text": 15, "yes_no": 1}
REFUSED = sorted(rg.REFUSED)
# Another problem's gold answer is right here as well: a colouring, a conclusion, a plan of pouring may fit both.
SEVERAL_ANSWERS = {"graph_color", "jugs", "propositional_logic"}


@pytest.mark.real
@installed
def test_every_dataset_works_or_is_refused() -> None:
    """Gold answers are right, other problems' gold answers and nonsense are not, and nothing takes long."""
    kinds, refused, taken = Counter[str](), [], []
    for name in datasets():
        if name in REFUSED:
            with pytest.raises(RecipeError, match=f"rg:{name}"):
                tasks.load(f"rg:{name}", "test", limit=3)
            refused.append(name)
            continue
        problems = tasks.load(f"rg:{name}", "test", limit=3)
        kinds["scorer" if "scorer" in problems[0].metadata else problems[0].answer_kind] += 1
        for problem in map(through_json, problems):
            gold = final_sentence(problem)
            assert grade(gold, problem, scorer=rg.score).correct, problem
            assert grade(f"Some steps.\n{gold}", problem, scorer=rg.score).correct, problem
            assert not grade(problem.target, problem, scorer=rg.score).correct
            assert not grade(gold, problem, finish_reason="length", scorer=rg.score).correct
            others = [final_sentence(other) for other in problems if other.target != problem.target]
            odd = [f"The answer is {text}" for text in ODD if problem.answer_kind != "number"]
            began = time.process_time()
            for text in odd + (others if name not in SEVERAL_ANSWERS else []):
                if grade(text, problem, scorer=rg.score).correct:
                    taken.append((name, text, problem.target))
            assert time.process_time() - began < 3, problem
    assert taken == []
    assert (refused, kinds) == (REFUSED, KINDS)
    assert len(datasets()) == len(refused) + kinds.total() == 106


@pytest.mark.slow
@installed
def test_every_process_makes_the_same_problems_of_every_dataset() -> None:
    same_in_two_processes([name for name in datasets() if name not in REFUSED])


def through_json(problem: Problem) -> Problem:
    """As it would come back from a file."""
    return replace(problem, metadata=json.loads(json.dumps(problem.metadata)))


@installed
def test_a_scorer_takes_what_is_as_good_as_the_gold_answer() -> None:
    (problem,) = tasks.load("rg:countdown", "train", limit=1)
    assert grade(f"The answer is ({problem.target}).", problem, scorer=rg.score) == Verdict(
        True, problem.target, "correct (rg:countdown)"
    )
    assert grade(f"The answer is {problem.target} + 1.", problem, scorer=rg.score).reason == "wrong (rg:countdown)"
    with pytest.raises(DataError, match="only its scorer rg:countdown"):
        grade(f"The answer is {problem.target}.", problem)


@installed
def test_options_reach_the_scorer() -> None:
    options = {"max_board_size": 5, "max_difficulty": 1}
    for problem in tasks.load("rg:futoshiki", "train", options=options, limit=3):
        assert problem.metadata["options"] == options
        assert grade(final_sentence(problem), through_json(problem), scorer=rg.score).correct


@installed
@pytest.mark.parametrize("change", [{"question": "other"}, {"target": "1 2"}])
def test_a_problem_of_another_version_is_not_scored(change: dict[str, str]) -> None:
    (problem,) = tasks.load("rg:sudoku", "train", limit=1)
    with pytest.raises(DataError, match=r"problem rg:sudoku/train/0: the installed reasoning-gym .* another problem"):
        rg.score(replace(problem, **change), "1 2")  # type: ignore[arg-type]


@installed
@pytest.mark.parametrize(
    "name",
    ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion", "countdown", "puzzle24", "simple_integration"],
)
def test_no_scorer_runs_a_models_text(name: str, tmp_path: Path) -> None:
    (problem,) = tasks.load(f"rg:{name}", "train", limit=1)
    opened = f"open({str(tmp_path / 'ran')!r}, 'w')"
    powers = ["9**9**9**9**9", "(9**9)**(9**9)**(9**9)", "x**9**9**9"]
    for code in (opened, f"[{opened}]", *powers, "[0 for a in range(10**9)]", "factorial(99999999)"):
        began = time.process_time()
        assert not rg.score(problem, code)
        assert time.process_time() - began < 1
    assert list(tmp_path.iterdir()) == []


@installed
def test_options_can_leave_only_numbers() -> None:
    problems = tasks.load("rg:calendar_arithmetic", "train", options={"tasks": ["count_days"]}, limit=30)
    assert all(number(problem.target) is not None for problem in problems)


@installed
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rg:gsm_symbolik", {}, "did you mean 'rg:gsm_symbolic'"),
        ("rg:GSM-symbolic", {}, "did you mean 'rg:gsm_symbolic'"),
        ("rg:", {}, "`fcot tasks rg:` lists them"),
        ("rg:composite", {}, "it only mixes other datasets; name one of those"),
        (GSM, {"dificulty": 1.0}, "did you mean 'difficulty'"),
        (GSM, {"qqq": 1}, "it has difficulty"),
        (GSM, {1: 1}, "unknown option 1"),
        (GSM, {"seed": 1}, "'seed' is not for recipes"),
        (GSM, {"size": 1}, "'size' is not for recipes"),
        (GSM, {"difficulty": 2.0}, r"assert 1.0 <= self.difficulty <= 1.0"),  # has no message of its own
        (GSM, {"difficulty": "hard"}, "difficulty is 'hard'; give a value like its default, 1.0"),
        (GSM, {"difficulty": True}, "difficulty is True"),
        (GSM, {"difficulty": None}, "difficulty is None"),
        ("rg:gcd", {"min_value": 0}, "min_value must be positive"),
        ("rg:gcd", {"min_value": 2.5}, "min_value is 2.5"),
        ("rg:chain_sum", {"min_terms": 9, "max_terms": 3}, "max_terms must be >= min_terms"),
        ("rg:calendar_arithmetic", {"tasks": ["count_dais"]}, "rg:calendar_arithmetic: .*count_dais"),
        ("rg:calendar_arithmetic", {"tasks": [[]]}, "rg:calendar_arithmetic: "),
    ],
)
def test_wrong_names_and_options_are_the_recipes_fault(name: str, options: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tasks.load(name, "train", options=options, limit=1)
    with pytest.raises(RecipeError):
        tasks.load(name, "train", options=options, limit=1)


@installed
def test_solved_examples_are_our_own_and_check_the_name() -> None:
    assert tasks.solved_examples(GSM) == tasks.solved_examples("gsm8k")
    with pytest.raises(RecipeError, match="did you mean"):
        tasks.solved_examples("rg:gsm_symbolik")
    with pytest.raises(RecipeError, match="dificulty"):
        tasks.solved_examples(GSM, options={"dificulty": 1})
    with pytest.raises(RecipeError, match="5 solved examples"):
        tasks.solved_examples(GSM, count=5)
