"""What `fcot tasks` shows: the table of tasks, and one task, yours too, with its leakage and first questions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fcot_lite import tasks
from fcot_lite.errors import DataError
from fcot_lite.prompts import ANSWER_FORMS, METHODS, Prompt, render
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import SPLITS, custom, random_guess
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

    Raises as `tasks.problems` does.
    """
    problems = {"test": tasks.problems(block, "test")}
    found: dict[str, Any] = {"name": block.label}
    try:
        problems |= {split: tasks.problems(block, split) for split in SPLITS[:2]}
    except DataError as error:  # of AQuA the test file alone can be had everywhere
        if count or with_leakage:
            raise
        found["missing"] = str(error)
    if block.name is None:
        found |= {"category": "yours", "answer_kind": block.answer, "source": block.label, "licence": None}
        found["bad_rows"] = [asdict(row) for row in custom.read(block).bad]
    else:
        chosen = tasks.task(block.name)
        found |= {"category": chosen.category, "answer_kind": chosen.answer_kind}
        found |= {"source": chosen.source, "licence": chosen.licence}
    found["random_guess"] = random_guess(found["answer_kind"], problems["test"])
    found["counts"] = {split: len(problems[split]) for split in SPLITS if split in problems}
    if with_leakage:
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
            for problem in problems["train"][:count]
        ]
    return found


def _leakage(block: TaskBlock) -> list[dict[str, Any]]:
    """How many test questions stand in train and validation, for each way to split a task; data of your own is split in
    the recipe's way."""
    if block.name is not None:
        ways = SPLITTINGS if tasks.task(block.name).data is not None else SPLITTINGS[:1]
        return [asdict(tasks.leakage(block.name, by, block.options)) for by in ways]
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
        here = "yes" if row["is_present_offline"] else "no"
        table.add_row(
            row["name"], row["category"], *counts, row["answer_kind"], _share(row["random_guess"]), leaks, here,
            row["licence"], row["source"],
        )  # fmt: skip
    return table


def details_lines(found: Mapping[str, Any]) -> Iterator[Any]:
    """Lines of text and rich tables."""
    counts = ", ".join(f"{n:,} {split}" for split, n in found["counts"].items())
    yield f"{found['name']}: {counts}; answer: {found['answer_kind']}"
    yield f"random guess {_share(found['random_guess'])}; category {found['category']}"
    if found["licence"]:
        yield f"from {found['source']}, licence: {found['licence']}"
    if "missing" in found:
        yield f"no train: {found['missing']}"
    if found.get("bad_rows"):
        yield f"bad rows, set aside: {len(found['bad_rows'])}"
        yield from (f"  {custom.BadRow(**row)}" for row in found["bad_rows"][: custom.SHOWN])
    if "leakage" in found:
        table = _table("split", "test", "in train: exact", "normalised", "template")
        for row in found["leakage"]:
            table.add_row(row["by"], str(row["test"]), *(str(n) for n in row["loaded"].values()))
        yield table
    for example in found.get("examples", ()):
        yield f"\n{example['id']}, target: {printable(example['target'])}"
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
