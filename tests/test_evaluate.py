"""Evaluation: the prompt is chosen on validation, the test problems see no other, and nothing is asked twice."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_engine import Answer, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.answers import grade
from fcot_lite.engines import Request
from fcot_lite.evaluate import Outcome, Student, evaluate, outcome, summary
from fcot_lite.files import read_jsonl
from fcot_lite.recipe import Recipe, build
from fcot_lite.records import FinishReason, Problem, Sample
from fcot_lite.store import SampleStore

RECIPE = build(
    {
        "name": "quick",
        "task": {"name": "chain_arithmetic", "validation": 5, "test": 7},
        "prompts": {
            "plain": {},
            "steps": {"template": "{question} Step by step."},
            "twin": {"template": "{question} Think."},
        },
        "teacher": {
            "model": "t", "prompt": "plain", "n": 1, "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 900},
        },
        "curate": {"max_length": 900},
        "student": {"model": "s", "prompt": "plain"},
        "evaluate": {
            "before": ["plain", "steps", "twin"], "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 900},
        },
    },
    "here",
)  # fmt: skip
PROBLEMS = {part: tasks.load("chain_arithmetic", part, limit=limit) for part, limit in (("validation", 5), ("test", 7))}


class Bench:
    """A store, and students that solve the first `skill[prompt]` problems of either part."""

    def __init__(self, store: SampleStore, tokenizer: Any, model_dir: Path, folder: Path) -> None:
        self.store, self.tokenizer, self.model_dir, self.folder = store, tokenizer, model_dir, folder
        self.engines: dict[str, FakeEngine] = {}

    def student(self, skill: dict[str, int], adapter: str | None = None) -> Student:
        def start() -> FakeEngine:
            # One engine a student, as the stage keeps it.
            return self.engines.setdefault(adapter or "untrained", FakeEngine(self._answers(skill)))

        return Student("w", adapter, start)

    def asked(self, request: Request) -> tuple[str, str, int]:
        """Prompt, part and index of the problem that this request is about."""
        chat = self.tokenizer.decode(request.prompt_token_ids)
        prompt = "steps" if "Step by step." in chat else "twin" if "Think." in chat else "plain"
        found = [(part, i) for part, row in PROBLEMS.items() for i, p in enumerate(row) if p.question in chat]
        return prompt, *found[0]

    def history(self, student: str) -> Counter[tuple[str, str]]:
        """How many requests there were for each prompt and part."""
        engine = self.engines.get(student)
        return Counter(self.asked(request)[:2] for request in engine.submitted) if engine else Counter()

    def evaluate(self, before: Student, after: Student, recipe: Recipe = RECIPE) -> dict[str, Any]:
        self.engines.clear()
        return evaluate(recipe, self.store, self.model_dir, before, {"last": after}, self.folder, lambda *_: None)

    def _answers(self, skill: dict[str, int]) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            prompt, part, index = self.asked(request)
            right = index < skill[prompt]
            return Answer(f"The answer is {PROBLEMS[part][index].target if right else 100_000}.", num_tokens=4)

        return answer


@pytest.fixture
def bench(tokenizer: Any, model_dir: Path, tmp_path: Path) -> Iterator[Bench]:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        yield Bench(store, tokenizer, model_dir, tmp_path / "eval")


WEAK = {"plain": 1, "steps": 2, "twin": 2}
TRAINED = {"plain": 6, "steps": 0, "twin": 0}


def test_the_best_prompt_on_validation_meets_the_test_and_no_other_does(bench: Bench) -> None:
    result = bench.evaluate(bench.student(WEAK), bench.student(TRAINED, "a"))
    assert result["before"] == "steps"  # as good as twin, and named before it
    assert result["after"] == "trained"
    assert bench.history("untrained") == {
        ("plain", "validation"): 5,
        ("steps", "validation"): 5,
        ("twin", "validation"): 5,
        ("steps", "test"): 7,
    }
    assert bench.history("a") == {("plain", "test"): 7}  # the trained student keeps the prompt it was trained with
    assert all(request.use_adapter for request in bench.engines["a"].submitted)
    assert not any(request.use_adapter for request in bench.engines["untrained"].submitted)
    assert {name: row["correct"] for name, row in result["validation"].items()} == WEAK
    assert {name: row["correct"] for name, row in result["methods"].items()} == {"steps": 2, "trained": 6}
    assert result["difference"]["accuracy"] == pytest.approx(4 / 7)
    assert bench.store.spent().num_tokens == 4 * (15 + 7 + 7)


def test_a_prompt_that_shines_on_the_test_alone_is_not_chosen(bench: Bench) -> None:
    skill = {"plain": 3, "steps": 2, "twin": 1}
    before = bench.student(skill)
    result = bench.evaluate(before, bench.student(TRAINED, "a"))
    assert result["before"] == "plain"
    # Before and after share prompt and problems here; they are kept apart by the adapter.
    assert {name: row["correct"] for name, row in result["methods"].items()} == {"plain": 3, "trained": 6}


def test_one_student_is_evaluated_without_a_choice(bench: Bench) -> None:
    result = bench.evaluate(bench.student(WEAK), bench.student(TRAINED, "a"))
    assert result["selection"] == {"by": "last", "picked": "last", "candidates": {}}


def test_the_best_epoch_on_validation_meets_the_test_and_no_other_does(bench: Bench) -> None:
    """The third would shine on the test part, whose last problems nobody else can solve."""
    recipe = RECIPE.model_copy(update={"student": RECIPE.student.model_copy(update={"select": "validation_accuracy"})})
    skills = {"epoch-1": 2, "epoch-2": 4, "epoch-3": 4, "epoch-4": 3}
    candidates = {name: bench.student({"plain": skill}, name) for name, skill in skills.items()}
    result = evaluate(
        recipe, bench.store, bench.model_dir, bench.student(WEAK), candidates, bench.folder, lambda *_: None
    )
    selection = result["selection"]
    assert (selection["by"], selection["picked"]) == ("validation_accuracy", "epoch-2")  # as good as the third
    assert {name: row["correct"] for name, row in selection["candidates"].items()} == skills
    asked = {name: bench.history(name) for name in skills}
    assert asked.pop("epoch-2") == {("plain", "validation"): 5, ("plain", "test"): 7}
    assert all(history == {("plain", "validation"): 5} for history in asked.values())
    assert result["methods"]["trained"]["correct"] == 4
    assert len(read_jsonl(bench.folder / "validation" / "epoch-4.jsonl")) == 5


def test_the_items_say_everything_and_come_in_order(bench: Bench) -> None:
    result = bench.evaluate(bench.student(WEAK), bench.student(TRAINED, "a"))
    for name, method in result["methods"].items():
        items = read_jsonl(bench.folder / f"{name}.jsonl")
        assert [item["problem_id"] for item in items] == [problem.id for problem in PROBLEMS["test"]]
        for item, problem in zip(items, PROBLEMS["test"], strict=True):
            assert problem.question in item["prompt"]
            assert item["target"] == problem.target
            assert item["correct"] == (item["extracted"] == problem.target) == (item["outcome"] == "correct")
        assert summary(items) == method


def test_a_second_evaluation_asks_nothing(bench: Bench) -> None:
    students = bench.student(WEAK), bench.student(TRAINED, "a")
    first = bench.evaluate(*students)
    assert bench.evaluate(*students) == first
    assert bench.engines == {}


def test_another_adapter_is_evaluated_anew_and_the_untrained_student_is_not(bench: Bench) -> None:
    bench.evaluate(bench.student(WEAK), bench.student(TRAINED, "a"))
    result = bench.evaluate(bench.student(WEAK), bench.student({"plain": 3}, "b"))
    assert bench.history("b") == {("plain", "test"): 7}
    assert bench.history("untrained") == {}
    assert result["methods"]["trained"]["correct"] == 3


def test_an_evaluation_goes_on_where_it_stopped(bench: Bench) -> None:
    whole = bench.evaluate(bench.student(WEAK), bench.student(TRAINED, "a"))
    with SampleStore(bench.store.path.with_name("other.sqlite")) as store:
        other = Bench(store, bench.tokenizer, bench.model_dir, bench.folder)
        after = other.student(TRAINED, "a")
        stopped = FakeEngine(other._answers(WEAK), interrupted_at_poll=5)
        with pytest.raises(KeyboardInterrupt):
            other.evaluate(Student("w", None, lambda: stopped), after)
        finished = len(stopped.submitted) - len(stopped.cancelled)
        assert 0 < finished < 22
        assert other.evaluate(other.student(WEAK), after) == whole
        assert sum(other.history("untrained").values()) == 22 - finished


FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


@given(
    st.lists(st.tuples(st.sampled_from(FINISH_REASONS), st.sampled_from(["The answer is 7.", "The answer is 8.", ""])))
)
def test_every_item_is_exactly_one_of_four(answers: list[tuple[FinishReason, str]]) -> None:
    problem = Problem("p", "?", "7")
    items = []
    for finish_reason, text in answers:
        sample = Sample("p", 0, text, None, finish_reason, 1, 1, 0)
        verdict = grade(text, problem, "strict", finish_reason=finish_reason)
        kind = outcome(sample, verdict)
        assert verdict.correct == (kind == "correct")
        items.append({"outcome": kind})
    if not items:
        return
    figures = summary(items)
    assert figures["n"] == len(items) == sum(figures[kind] for kind in get_args(Outcome))
    assert figures["correct"] == sum(finish == "stop" and "7" in text for finish, text in answers)
    assert figures["errored"] == sum(finish in ("abort", "error") for finish, _ in answers)
    assert figures["truncated"] == sum(finish in ("length", "repetition", "unknown") for finish, _ in answers)
    assert figures["ci95"][0] <= figures["accuracy"] == figures["correct"] / len(items) <= figures["ci95"][1]
