"""How many tokens each stage of a recipe will generate or train on, and what that rests on.

By an earlier run of the same task where there is one; else by assumptions, each of which the plan prints.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcot_lite.errors import FcotError
from fcot_lite.rates import Run
from fcot_lite.recipe import Recipe, TeacherBlock
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import SPLITS, custom
from fcot_lite.tasks.generated import DEFAULT_SIZE

# Questions of train, validation and test by the paper's split (docs/tasks.md), so that no file has to be here;
# tests/test_plan.py counts them where the files are. AQuA's training file is published nowhere any more.
QUESTIONS: Mapping[str, tuple[int | None, int | None, int]] = {
    "single_eq": (320, 36, 152),
    "addsub": (246, 30, 119),
    "multiarith": (373, 42, 180),
    "gsm8k": (6973, 500, 1319),
    "aqua": (None, None, 254),
    "svamp": (630, 70, 300),
    "date_understanding": (228, 30, 111),
    "tracking_shuffled_objects": (472, 53, 225),
    "last_letter_concatenation": (315, 35, 150),
    "coin_flip": (315, 35, 150),
    "commonsense_qa": (9241, 500, 1221),
    "strategy_qa": (1442, 160, 687),
}
# Assumed where no run tells. A completion fills half of max_tokens: GSM8K's have a median of 248 to 315 tokens where
# 512 are allowed. 72 % of samples become rows: an example's yield, not a measurement. A question has 100 tokens.
SHARE_OF_MAX_TOKENS = 0.5
KEPT = 0.72
PROMPT_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens by stage, None where the number of questions is not known; `rows` are those trained on."""

    questions: Mapping[str, int | None]
    samples: float | None
    rows: float | None
    tokens: Mapping[str, float | None]
    assumptions: tuple[str, ...]


def questions(task: TaskBlock) -> dict[str, int | None]:
    """How many problems each split has, as far as that can be told without a download."""
    here: dict[str, int | None] = dict.fromkeys(SPLITS)
    limits = {"train": task.train, "validation": task.validation, "test": task.test}
    if task.name is not None and task.name in QUESTIONS:
        here = dict(zip(SPLITS, QUESTIONS[task.name], strict=True))
    elif task.path is not None:
        with contextlib.suppress(FcotError):  # `fcot doctor` says what is wrong with the file
            here = {split: len(found) for split, found in custom.read(task).problems.items()}
    elif task.name is not None:  # made on the spot, as many as are asked for
        here = {split: limits[split] or DEFAULT_SIZE[split] for split in SPLITS}
    return {split: _least(limits[split], here[split]) for split in SPLITS}


def workload(recipe: Recipe, runs: Sequence[Run]) -> Workload:
    """What the recipe's stages will have to do."""
    counts, teacher, evaluate = questions(recipe.task), recipe.teacher, recipe.evaluate
    facts, said = _of_runs(recipe, runs)
    samples = rows = None
    if isinstance(teacher, TeacherBlock):
        each = facts.get("tokens_per_sample")
        if each is None:
            each = SHARE_OF_MAX_TOKENS * teacher.sampling.max_tokens
            said.append(f"a rationale has {each:.0f} tokens, half of teacher.sampling.max_tokens")
        per_question = teacher.policy.expected_left(0, 0)
        if counts["train"] is not None:
            samples = per_question * counts["train"]
        if teacher.until is not None:
            said.append(f"{per_question:.1f} samples a question, by the policy's prior on pass rates")
    else:
        each = SHARE_OF_MAX_TOKENS * evaluate.sampling.max_tokens
        if counts["train"] is not None:
            samples = float(counts["train"] * (teacher.n or 1))
        said.append(f"the file holds {teacher.n or 1} rationales a question, of {each:.0f} tokens")
    if samples is not None:
        kept = facts.get("kept")
        if kept is None:
            kept = KEPT
            said.append(f"{kept:.0%} of the samples become training rows")
        rows = samples * kept
        if (most := recipe.curate.max_per_problem) is not None and counts["train"] is not None:
            rows = min(rows, float(most * counts["train"]))
    row = facts.get("tokens_per_row")
    if row is None:
        row = min(PROMPT_TOKENS + each, float(recipe.curate.max_length))
        said.append(f"a training row has {row:.0f} tokens, {PROMPT_TOKENS} of them the question's")
    item = facts.get("tokens_per_item")
    if item is None:
        item = SHARE_OF_MAX_TOKENS * evaluate.sampling.max_tokens
        said.append(f"an answer in the evaluation has {item:.0f} tokens, half of evaluate.sampling.max_tokens")
    items = None
    if counts["validation"] is not None and counts["test"] is not None:
        items = counts["validation"] * len(evaluate.before) + 2 * counts["test"]
    epochs = float(recipe.student.sft.get("num_train_epochs", 3))
    tokens = {
        "sample": None if samples is None else samples * each,
        "train": None if rows is None else rows * row * epochs,
        "evaluate": None if items is None else items * item,
    }
    return Workload(counts, samples, rows, tokens, tuple(said))


def _of_runs(recipe: Recipe, runs: Sequence[Run]) -> tuple[dict[str, float], list[str]]:
    """What the newest run of this task tells of its texts, and a line that says so."""
    of_task = [run for run in runs if run.recipe.task.label == recipe.task.label]
    teacher = recipe.teacher.model if isinstance(recipe.teacher, TeacherBlock) else None
    of_teacher = [run for run in of_task if run.result["teacher"]["model"] == teacher]
    if not of_task:
        return {}, []
    run = (of_teacher or of_task)[0]
    result, evaluate = run.result, run.recipe.evaluate
    facts: dict[str, float] = {}
    if (samples := result["teacher"]["samples"]) and result["teacher"].get("num_tokens"):
        facts["tokens_per_sample"] = result["teacher"]["num_tokens"] / samples
        facts["kept"] = result["curation"]["kept"] / samples
    epochs = float(run.recipe.student.sft.get("num_train_epochs", 3))
    if (kept := result["curation"]["kept"]) and result["student"].get("num_tokens"):
        facts["tokens_per_row"] = result["student"]["num_tokens"] / kept / epochs
    validation = next(iter(result["validation"].values()))["n"]
    items = validation * len(evaluate.before) + 2 * result["methods"][result["after"]]["n"]
    if tokens := result["stages"].get("evaluate", {}).get("num_tokens"):
        facts["tokens_per_item"] = tokens / items  # low where answers of an earlier run were taken from the store
    return facts, [f"lengths and yield as in run {run.recipe.name}" + ("" if of_teacher else ", of another teacher")]


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
