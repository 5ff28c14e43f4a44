"""The model card of an exported student: what it is, what made it, what it can do, whose licences bind it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fcot_lite import models, tasks
from fcot_lite.prompts import Rendered
from fcot_lite.recipe import ImportBlock, Recipe
from fcot_lite.report import duration

BASES = {
    None: "all its weights were trained",
    "unquantised": "the adapter was added to the unquantised bfloat16 weights, as the run evaluated it",
    "nf4": "the adapter was added to the weights that NF4 makes of the base, those that it was trained beside; the run "
    "itself evaluated it on the unquantised base",
}


def upstream(model: str) -> str:
    """A name of the model that means something elsewhere: the starter's origin, the hub id, a directory's own name."""
    if starter := _starter(model):
        return starter.upstream
    return model if models.is_hub_id(model) else Path(model).name


def licence(model: str) -> str | None:
    """As the starters' list gives it; None where nothing here tells."""
    starter = _starter(model)
    return starter.license if starter else None


def _starter(model: str) -> models.Starter | None:
    return models.STARTERS.get(model.removeprefix("starter:")) if model.startswith("starter:") else None


def model_card(recipe: Recipe, result: Mapping[str, Any], record: Mapping[str, Any], shown: Rendered) -> str:
    """README.md as model hubs read it. `record` is what the export says of itself, `shown` the prompt with
    <question> in place of one."""
    student, is_adapter = recipe.student, record["to"] == "adapter"
    head: dict[str, Any] = {"library_name": "peft" if is_adapter else "transformers", "pipeline_tag": "text-generation"}
    if not Path(student.model).expanduser().is_dir():
        head["base_model"] = upstream(student.model)
    if known := licence(student.model):
        head["license"] = known.lower()
    head["tags"] = ["fine-tune-cot", "reasoning-distillation", student.method]
    teacher, curation = result["teacher"], result["curation"]
    imported = isinstance(recipe.teacher, ImportBlock)
    rows = [
        ("before: the untrained student under its best prompt", result["methods"][result["before"]]),
        ("after: this student", result["methods"][result["after"]]),
    ]
    parity = record["parity"]
    starter = " (as the starter's 4-bit file gives its weights)" if student.model.startswith("starter:") else ""
    blocks = [
        "---\n" + yaml.safe_dump(head, sort_keys=False).rstrip() + "\n---",
        f"# {recipe.name}",
        f"{upstream(student.model)}{starter}, fine-tuned ({student.method}) on {curation['kept']:,} rationales for "
        f"{result['task']}, after [Large Language Models Are Reasoning Teachers](https://arxiv.org/abs/2212.10071). "
        + ("This is the adapter." if is_adapter else f"Merged weights in bfloat16: {BASES[record['base']]}."),
        "## Figures",
        f"Test questions of {result['task']}, greedy, strict grading; 95 % intervals.",
        "| | accuracy | interval | n |\n|---|--:|--:|--:|\n"
        + "\n".join(
            f"| {name} | {row['accuracy']:.1%} | {row['ci95'][0]:.1%} … {row['ci95'][1]:.1%} | {row['n']} |"
            for name, row in rows
        ),
        f"Teacher's pass rate on the training questions: {teacher['pass_rate']:.1%} of {teacher['samples']:,} samples. "
        f"The whole run took {duration(result['wall_seconds'])}"
        + ("." if result["cost_usd"] is None else f" and cost {result['cost_usd']:.4f} USD."),
        f"Against {parity['reference']}, on {parity['n']} test questions: {parity['same_answer']} answers are the "
        f"same, accuracy {parity['accuracy_reference']:.1%} there and {parity['accuracy_exported']:.1%} here "
        "(fcot_export.json names the differing ones).",
        "## Use",
        "It was trained on this prompt and this one alone:",
        "```json\n" + json.dumps(shown, indent=1, ensure_ascii=False) + "\n```"
        if not isinstance(shown, str)
        else "```text\n" + shown + "\n```",
        "Greedy decoding; the last sentence states the answer. It has learnt one kind of question: expect nothing of "
        "it elsewhere, and its teacher's habits and errors wherever it is wrong.",
        "## Made from",
        "| | what | licence |\n|---|---|---|\n"
        + "\n".join(
            f"| {part} | {what} | {terms or 'not known here: see its own page'} |"
            for part, what, terms in [
                ("base", upstream(student.model), licence(student.model)),
                (
                    "teacher",
                    "rationales of a file" if imported else upstream(teacher["model"]),
                    None if imported else licence(teacher["model"]),
                ),
                ("questions", *_questions(recipe)),
            ]
        ),
        "The licences of all three may bind this model. `recipe.yaml` made it (fcot-lite); read it before you publish "
        "it, since it names your files.",
    ]
    return "\n\n".join(blocks) + "\n"


def _questions(recipe: Recipe) -> tuple[str, str | None]:
    if recipe.task.name is None:
        return "your own", None
    task = tasks.task(recipe.task.name)
    return f"{recipe.task.name}: {task.source}", task.licence
