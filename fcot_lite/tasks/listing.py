"""What `fcot tasks` shows: the table of tasks, and one task, yours too, with its leakage and first questions."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fcot_lite import tasks
from fcot_lite.errors import DataError
from fcot_lite.prompts import ANSWER_FORMS, METHODS, Prompt, render
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import SPLITS, custom, random_guess, rg
from fcot_lite.tasks.leakage import overlap
from fcot_lite.tasks.splits import SPLITTINGS

PROMPTS = {name: METHODS[name] for name in ("zero_shot", "zero_shot_cot", "few_shot_cot", "chat_cot", "fine_tune_cot")}


def overview() -> list[dict[str, Any]]:
    """A row for each task of this package. `leakage` counts the test questions that have a sibling in train by the
    paper's split, None where train is not here. Downloads nothing."""
    rows = []
    for row in tasks.describe():
        found = tasks.leakage(row.name) if row.train is not None else None
        rows.append({**asdict(row), "leakage": found and found.loaded.template})
    return rows


def details(block: TaskBlock, prompts: Mapping[str, Prompt], count: int, with_leakage: bool) -> dict[str, Any]:
    """One task: what it is, how many problems, the bad rows of data of your own, overlaps of train and test, and
    `count` train questions as each prompt puts them.

    Of a dataset of reasoning-gym no more is drawn than is shown, for some take seconds a question, and there is no
    number of them. Where train cannot be had, the questions are of test. Raises as `tasks.problems` does.
    """
    is_endless = (block.name or "").startswith(rg.PREFIX)
    if is_endless:
        block = block.model_copy(update={"train": max(count, 1), "validation": 1, "test": 1})
    found: dict[str, Any] = {"name": block.label}
    problems = {} if is_endless else {"test": tasks.problems(block, "test")}
    try:
        problems |= {split: tasks.problems(block, split) for split in SPLITS[: 1 if is_endless else 2]}
    except DataError as error:  # of AQuA the test file alone can be had everywhere
        if "test" not in problems:
            raise
        found["missing"] = str(error)
    shown = problems.get("train", problems.get("test", []))
    if block.name is None:
        found |= {"category": "yours", "answer_kind": block.answer, "source": block.label, "licence": None}
        own = custom.read(block)
        found["bad_rows"] = [asdict(row) for row in own.bad]
        found |= {"left_out": own.left_out, "set_apart": len(own.examples)}
    else:
        chosen = tasks.task(block.name)
        found |= {"category": chosen.category, "answer_kind": shown[0].answer_kind}
        found |= {"source": chosen.source, "licence": chosen.licence}
    scorer = shown[0].metadata.get("scorer")
    found["scorer"] = scorer
    found["random_guess"] = None if scorer else random_guess(found["answer_kind"], problems.get("test", shown))
    found["counts"] = {split: len(problems[split]) for split in SPLITS if split in problems and not is_endless}
    if with_leakage and "missing" not in found:
        found["leakage"] = _leakage(block)
    if count:
        solved = tasks.examples(block, max(prompt.examples for prompt in prompts.values()))
        found["examples"] = [
            {
                "id": problem.id,
                "target": problem.target,
                "prompts": {
                    name: render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind])
                    for name, prompt in prompts.items()
                },
            }
            for problem in shown[:count]
        ]
    return found


def _leakage(block: TaskBlock) -> list[dict[str, Any]]:
    """How many test questions stand in train and validation, for each way to split a task; data of your own is split in
    the recipe's way."""
    if block.name is not None:
        if tasks.task(block.name).data is None:
            return [{**asdict(tasks.leakage(block.name, options=block.options)), "by": "own"}]
        return [asdict(tasks.leakage(block.name, by)) for by in SPLITTINGS]
    problems = custom.read(block).problems
    loaded = overlap([*problems["train"], *problems["validation"]], problems["test"])
    return [{"by": block.split, "test": len(problems["test"]), "loaded": asdict(loaded)}]


def overview_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A rich table."""
    headings = ("task", "category", "train", "validation", "test", "answer", "guess", "leaks", "here", "licence")
    table = _table(*headings, "source")
    for row in rows:
        counts = ["–" if row[split] is None else f"{row[split]:,}" for split in SPLITS]
        leaks = "–" if row["leakage"] is None else f"{row['leakage']} of {row['test']:,}"
        here = "damaged" if row["fault"] else "yes" if row["is_present_offline"] else "no"
        table.add_row(
            row["name"], row["category"], *counts, row["answer_kind"], _share(row["random_guess"]), leaks, here,
            row["licence"], row["source"],
        )  # fmt: skip
    return table


def overview_faults(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files of the tasks, a line each."""
    faults = [f"{row['name']}: {row['fault']}" for row in rows if row["fault"]]
    folder = os.environ.get("FCOT_DATA")
    return [f"FCOT_DATA={folder}: no such folder", *faults] if folder and not os.path.isdir(folder) else faults


def details_lines(found: Mapping[str, Any]) -> Iterator[Any]:
    """Lines of text and rich tables."""
    counts = ", ".join(f"{n:,} {split}" for split, n in found["counts"].items()) or "as many as are asked for"
    judge = f", judged by its own scorer {found['scorer']}" if found["scorer"] else ""
    yield f"{found['name']}: {counts}; answer: {found['answer_kind']}{judge}"
    yield f"random guess {_share(found['random_guess'])}; category {found['category']}"
    if found["licence"]:
        yield f"source: {found['source']}, licence: {found['licence']}"
    if "missing" in found:
        yield f"no train: {found['missing']}"
    if found.get("bad_rows"):
        yield f"bad rows, set aside: {len(found['bad_rows'])}"
        yield from (f"  {custom.BadRow(**row)}" for row in found["bad_rows"][: custom.SHOWN])
    if found.get("left_out"):
        yield f"left out of a split, because they stand in test or validation: {found['left_out']}"
    if found.get("set_apart"):
        yield f"set apart from train as solved examples: {found['set_apart']}"
    if "leakage" in found:
        table = _table("split", "test", "in train: exact", "normalised", "template")
        for row in found["leakage"]:
            if row.get("left_out"):
                published = (str(n) for n in row["published"].values())
                table.add_row(f"{row['by']}, as published", str(row["test"]), *published)
            without = f", without {row['left_out']} of train" if row.get("left_out") else ""
            table.add_row(f"{row['by']}{without}", str(row["test"]), *(str(n) for n in row["loaded"].values()))
        yield table
    for example in found.get("examples", ()):
        yield f"\n{printable(example['id'])}, target: {printable(example['target'])}"
        for name, rendered in example["prompts"].items():
            yield f"  {name}:"
            turns = [("text", rendered)] if isinstance(rendered, str) else [(t["role"], t["content"]) for t in rendered]
            for role, content in turns:
                yield f"    {role}: " + printable(content).replace("\n", "\n      ")


def printable(text: str) -> str:
    """The text without what would steer a terminal: ESC is shown as \\x1b."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _table(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
