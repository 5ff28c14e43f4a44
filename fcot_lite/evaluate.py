"""The student before and after, on the same problems with the grader that admitted its training data.

An evaluation is a sampling run of one greedy sample a problem, so it lives in the sample store too: it resumes at the
item where it stopped, and a second training seed does not evaluate the untrained student again.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fcot_lite import stats, tasks
from fcot_lite.answers import NOT_JUDGED
from fcot_lite.budget import Fixed
from fcot_lite.engines import Engine
from fcot_lite.files import write_jsonl
from fcot_lite.prompts import Prompt, load_tokenizer, whole_text
from fcot_lite.recipe import TRAINED, Recipe
from fcot_lite.records import Problem, Sample, Verdict
from fcot_lite.store import SampleStore, Use
from fcot_lite.teacher import GIVEN_UP, Progress, Question, draw, drawn_samples, open_campaign, questions, rendered
from fcot_lite.verdicts import judge

Outcome = Literal["correct", "wrong", "truncated", "errored"]


@dataclass(frozen=True, slots=True)
class Student:
    """A model to evaluate. `start` gives an engine that serves it; asked only if an answer is missing."""

    weights_hash: str
    adapter_hash: str | None
    start: Callable[[], Engine]


def outcome(sample: Sample, verdict: Verdict) -> Outcome:
    """Every item is exactly one of the four: they sum to n."""
    if sample.finish_reason in GIVEN_UP or verdict.reason.startswith(NOT_JUDGED):
        return "errored"
    if sample.finish_reason != "stop":  # cut at max_tokens, or ended by repetition detection
        return "truncated"
    return "correct" if verdict.correct else "wrong"


class Evaluation:
    """Answers of students to the recipe's validation and test problems."""

    def __init__(self, recipe: Recipe, store: SampleStore, model_dir: Path, progress: Progress) -> None:
        task = recipe.task
        self._recipe, self._store, self._progress = recipe, store, progress
        self._tokenizer = load_tokenizer(model_dir)
        self.validation = tasks.problems(task, "validation")
        self.test = tasks.problems(task, "test")

    def items(self, student: Student, prompt_name: str, problems: Sequence[Problem], what: str) -> list[dict[str, Any]]:
        """One row per problem, in order: prompt, text, extracted answer, verdict, outcome."""
        recipe, prompt = self._recipe, self._recipe.prompts[prompt_name]
        sampling, engine = recipe.evaluate.sampling, recipe.evaluate.engine
        chats = rendered(recipe.task, prompt, problems)
        asked = questions(self._tokenizer, problems, chats, sampling, engine, prompt.answer_trigger)
        campaign = open_campaign(
            self._store,
            weights_hash=student.weights_hash,
            adapter_hash=student.adapter_hash,
            prompt=prompt,
            sampling=sampling,
            engine=engine,
            tokenizer=self._tokenizer,
            use=Use("student", recipe.student.model, recipe.task.label, prompt_name, recipe.cost.usd_per_hour),
        )
        answers: list[list[Sample]] = [[]]
        while not all(answers):  # again where a stored one turns out to be damaged
            drawn = draw(
                self._store,
                campaign,
                asked,
                Fixed(n=1),
                start_engine=student.start,
                max_num_seqs=engine.max_num_seqs,
                progress=self._progress,
                what=what,
            )
            answers = list(drawn_samples(self._store, campaign, asked, drawn))
        judged = judge(self._store, campaign.hash, asked, prompt, answers)
        return [
            self._item(prompt, question, samples[0], verdicts[0])
            for question, samples, verdicts in zip(asked, answers, judged.verdicts, strict=True)
        ]

    def _item(self, prompt: Prompt, question: Question, sample: Sample, verdict: Verdict) -> dict[str, Any]:
        problem = question.problem
        return {
            "problem_id": problem.id,
            "prompt": self._tokenizer.decode(question.prompt_token_ids),
            "text": whole_text(prompt, sample),
            "target": problem.target,
            "extracted": verdict.extracted,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "outcome": outcome(sample, verdict),
            "finish_reason": sample.finish_reason,
            "num_tokens": sample.num_tokens,
        }


def summary(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, and the four counts."""
    counts = {name: sum(item["outcome"] == name for item in items) for name in get_args(Outcome)}
    low, high = stats.wilson(counts["correct"], len(items))
    return {"accuracy": counts["correct"] / len(items), "ci95": [low, high], "n": len(items), **counts}


def evaluate(
    recipe: Recipe,
    store: SampleStore,
    model_dir: Path,
    before: Student,
    candidates: Mapping[str, Student],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """What result.json has under `methods`, `validation`, `before`, `after`, `difference`, `selection`; items go to
    `folder`.

    The untrained student's prompt is the best of `evaluate.before` on the validation part (the first of equals), and
    the trained student the best of `candidates` there, the first of equals again. The test problems see those only.
    """
    evaluation = Evaluation(recipe, store, model_dir, progress)
    validation_items = {
        name: evaluation.items(before, name, evaluation.validation, f"validation ({name})")
        for name in recipe.evaluate.before
    }
    validation = {name: summary(rows) for name, rows in validation_items.items()}
    best = max(recipe.evaluate.before, key=lambda name: validation[name]["accuracy"])
    items = {best: evaluation.items(before, best, evaluation.test, f"test before ({best})")}
    chosen_items = {
        name: evaluation.items(student, recipe.student.prompt, evaluation.validation, f"validation ({name})")
        for name, student in candidates.items()
        if len(candidates) > 1
    }
    chosen = {name: summary(rows) for name, rows in chosen_items.items()}
    picked = max(candidates, key=lambda name: chosen[name]["accuracy"] if chosen else 0)
    items[TRAINED] = evaluation.items(candidates[picked], recipe.student.prompt, evaluation.test, "test after")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier recipe: another prompt may be the best now
    for name, rows in (validation_items | chosen_items).items():
        write_jsonl(folder / "validation" / f"{name}.jsonl", rows)
    for name, rows in items.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    right = {name: [bool(row["correct"]) for row in rows] for name, rows in items.items()}
    difference, low, high = stats.paired_difference(right[best], right[TRAINED])
    return {
        "methods": {name: summary(rows) for name, rows in items.items()},
        "validation": validation,
        "before": best,
        "after": TRAINED,
        "difference": {"accuracy": difference, "ci95": [low, high]},
        "selection": {"by": recipe.student.select, "picked": picked, "candidates": chosen},
    }
