"""Data of your own: files or a data set of the hub, by columns that the recipe names.

A row that can't be used is set aside with its reason; more of them than task.max_bad_rows stop the run, before anything
is drawn. What is not given as a file of its own is taken out of train by a hash of the question: the order of the file
does not matter, and rows that are added move few of the others to another side.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from fcot_lite.answers import final_sentence, grade
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import sha256_file, sha256_json
from fcot_lite.records import Problem
from fcot_lite.task_block import Hub, TaskBlock
from fcot_lite.tasks.columns import key, to_problem
from fcot_lite.tasks.rows import BadRowError, Rows, data_file, file_rows, hub_rows
from fcot_lite.tasks.splits import By, normalised

# Read in this order, so that of two equal questions the one in test stays: else the student has seen it.
PARTS = ("test", "validation", "train")
LARGEST_TEST = 2_000  # 95 % intervals of ±2 points; more would only be taken from training
LEAST_EXAMPLES, MOST_EXAMPLES = 8, 64  # the most that a prompt can show
SHOWN = 10
COLUMNS = {"answer", "question", "target", "choices", "solution", "id", "split"}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was set aside. `row` is its line (JSONL, CSV) or its place from 1 (Parquet, hub)."""

    file: str
    row: int
    reason: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}" + (f" ({self.found})" if self.found else "")


@dataclass(frozen=True, slots=True)
class Read:
    """What the data holds: every row is a problem of one split, one of `examples` (of train, for few-shot prompts), in
    `bad`, or one of the `left_out`, which stand in another split but for case, or have their template there."""

    problems: Mapping[str, list[Problem]]
    examples: list[Problem]
    bad: list[BadRow]
    left_out: int

    def reasons(self) -> dict[str, int]:
        """How many rows were set aside for each reason, the most frequent first."""
        return _reasons(self.bad)


def read(block: TaskBlock) -> Read:
    """The problems of the recipe's own data, in an order that depends on their questions alone, and its bad rows.

    Raises DataError where files can't be read, where more than `max_bad_rows` rows are bad or a split comes out empty;
    ResourceError where a package is missing.
    """
    keys = {"path", "hub", "max_bad_rows", *COLUMNS}
    return _read(block.model_dump_json(include=keys), tuple(_hashes(block).values()))


@lru_cache(maxsize=2)  # a stage asks for train, test, examples and bad rows: 13 s each for 100,000 rows
def _read(block_json: str, _hashes: tuple[str, ...]) -> Read:
    block = TaskBlock.model_validate_json(block_json)
    problems: dict[str, list[Problem]] = {}
    bad: list[BadRow] = []
    seen: dict[tuple[str, str], str] = {}
    for part, (file, rows) in _parts(block).items():
        problems[part] = []
        for row_number, row in rows:
            try:
                if isinstance(row, BadRowError):
                    raise row
                problem = to_problem(row, block)
                _remember(problem, f"{file}:{row_number}", seen)
            except BadRowError as error:
                bad.append(BadRow(file, row_number, error.reason, error.found))
            else:
                problems[part].append(problem)
    _check_bad_rows(bad, sum(map(len, problems.values())), block.max_bad_rows or 0)
    whole, left_out = _keep_apart(problems, block.split)
    if "test" not in problems:
        side = _template if block.split == "template" else _question
        whole["train"], whole["test"] = _take(whole["train"], _test_size(len(whole["train"])), side)
    if "validation" not in problems:
        whole["train"], whole["validation"] = _take_validation(whole["train"], block.split)
    for part in PARTS:
        if not whole[part]:
            least = "three rows, 500 for a start" + (", of many templates" if block.split == "template" else "")
            aside = [f"{len(bad):,} rows were set aside:", *_shown(bad)] if bad else []
            none = f"{block.label}: no {part} questions are left; give it at least {least}"
            raise DataError("\n".join([none, *aside]))
        whole[part] = [
            replace(problem, id=f"own/{part}/{problem.id}")
            for problem in sorted(whole[part], key=lambda problem: key(problem.question))
        ]
    whole["train"], shown = _set_examples_apart(whole["train"])
    return Read(whole, shown, bad, left_out)


def load(block: TaskBlock, split: str, limit: int | None) -> list[Problem]:
    """The problems of one split. Raises as `read` does."""
    return read(block).problems[split][:limit]


def examples(block: TaskBlock, count: int) -> list[tuple[str, str]]:
    """`count` questions with their worked solutions, each ending in the answer; they stand in no split.

    Raises RecipeError where there are not so many, and as `read` does.
    """
    if count == 0:
        return []
    if block.solution is None:
        raise RecipeError(
            f"{block.label}: {count} solved examples asked for, and task.solution names no column with worked "
            "solutions; name it, or set the prompt's `examples` to 0"
        )
    there = read(block).examples
    if len(there) < count:
        raise RecipeError(
            f"{block.label}: {count} solved examples asked for; of train {len(there)} are set apart for that: a tenth, "
            f"at least {LEAST_EXAMPLES} and at most {MOST_EXAMPLES}, never over a half, of the rows whose solution "
            "states no other answer than the target"
        )
    return [(problem.question, str(_worked(problem))) for problem in there[:count]]


def fingerprint(block: TaskBlock) -> str:
    """A hash of the data and of how it is read: other bytes in a file, another fingerprint; another folder, the same.

    Raises as `read` does.
    """
    columns = block.model_dump(include=COLUMNS)
    if block.path is not None:
        return sha256_json([columns, _hashes(block)])
    found = read(block)
    parts = {**found.problems, "examples": found.examples}
    return sha256_json([columns, {part: [_content(p) for p in problems] for part, problems in parts.items()}])


def _content(problem: Problem) -> list[Any]:
    return [problem.question, problem.target, dict(problem.metadata)]


def _hashes(block: TaskBlock) -> dict[str, str]:
    """Of the files, by split; {} for a data set of the hub."""
    if block.path is None:
        return {}
    paths = {part: data_file(name) for part, name in block.path.model_dump(exclude_none=True).items()}
    try:
        return {part: sha256_file(path) for part, path in paths.items()}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _parts(block: TaskBlock) -> dict[str, tuple[str, Rows]]:
    """For each split that is given: what it is called in messages, and its rows."""
    named = [block.question, block.target, block.solution, block.id, *(block.choices or ())]
    columns = list(dict.fromkeys(column for column in named if column is not None))
    if block.hub is not None:
        rows = hub_rows(block.hub, columns)
        splits = _hub_splits(block.hub, list(rows))
        return {part: (f"{block.hub.name}/{split}", rows[split]) for part, split in splits.items()}
    if block.path is None:
        raise RecipeError("a task needs one of name, path and hub")
    files = {part: getattr(block.path, part) for part in PARTS}
    return {part: (file, file_rows(data_file(file), columns)) for part, file in files.items() if file}


def _hub_splits(hub: Hub, there: Sequence[str]) -> dict[str, str]:
    chosen = {part: name for part in PARTS if (name := getattr(hub, part)) is not None}
    if not chosen:
        chosen = {part: part for part in PARTS if part in there}
    chosen.setdefault("train", "train")
    for part, name in chosen.items():
        if name not in there:
            raise DataError(
                f"{hub.name}: has no split {name!r}; name one of {', '.join(there)} as task.hub.{part}, "
                f"as in hub: {{name: {hub.name}, {part}: {there[0]}}}"
            )
    return {part: chosen[part] for part in PARTS if part in chosen}


def _test_size(num_rows: int) -> int:
    return min(num_rows // 3, LARGEST_TEST, max(50, round(0.2 * num_rows)))


def _validation_size(num_rows: int) -> int:
    return min(num_rows // 2, 500, max(30, round(0.1 * num_rows)))  # as of every task: splits.hold_out


def _question(problem: Problem) -> str:
    return normalised(problem.question)


def _template(problem: Problem) -> str:
    return str(problem.metadata["group"])


def _take(
    problems: Sequence[Problem], wanted: int, side: Callable[[Problem], str]
) -> tuple[list[Problem], list[Problem]]:
    """(rest, taken): all that are alike by `side` at a time, in the order of their hashes; never over a half of all."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(side(problem), []).append(problem)
    rest: list[Problem] = []
    taken: list[Problem] = []
    for group in sorted(groups, key=key):
        members = groups[group]
        fits = len(taken) < wanted and len(taken) + len(members) <= len(problems) // 2
        (taken if fits else rest).extend(members)
    return rest, taken


def _take_validation(problems: Sequence[Problem], by: By) -> tuple[list[Problem], list[Problem]]:
    """Whole templates, so that nothing is chosen on what was learnt by heart. Data of a few large templates, which
    can't be had so, gives single questions, unless the recipe wants templates apart."""
    wanted = _validation_size(len(problems))
    rest, taken = _take(problems, wanted, _template)
    return (rest, taken) if len(taken) >= wanted or by == "template" else _take(problems, wanted, _question)


def _keep_apart(parts: Mapping[str, list[Problem]], by: By) -> tuple[dict[str, list[Problem]], int]:
    """The given splits without what stands in one before them, and how many those were."""
    kept: dict[str, list[Problem]] = {}
    left_out = 0
    for part in (part for part in PARTS if part in parts):
        before = [problem for problems in kept.values() for problem in problems]
        questions, templates = set(map(_question, before)), set(map(_template, before))
        kept[part] = [
            problem
            for problem in parts[part]
            if _question(problem) not in questions and not (by == "template" and _template(problem) in templates)
        ]
        left_out += len(parts[part]) - len(kept[part])
    return kept, left_out


def _set_examples_apart(train: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
    """(rest, examples): those with a solution from the end of train, which a run on a part of it asks for last."""
    wanted = min(len(train) // 2, MOST_EXAMPLES, max(LEAST_EXAMPLES, round(0.1 * len(train))))
    usable = [problem for problem in reversed(train) if "solution" in problem.metadata]
    shown: list[Problem] = []
    for problem in usable:
        if len(shown) < wanted and _worked(problem) is not None:
            shown.append(problem)
    ids = {problem.id for problem in shown}
    return [problem for problem in train if problem.id not in ids], shown


def _worked(problem: Problem) -> str | None:
    """The solution, ending in the answer; None where it states another answer as well."""
    solution, ending = str(problem.metadata["solution"]), final_sentence(problem)
    text = solution if solution.endswith(ending) else f"{solution}\n{ending}"
    return text if grade(text, problem).correct else None


def _check_bad_rows(bad: Sequence[BadRow], num_good: int, most: int) -> None:
    if len(bad) <= most:
        return
    advice = f"Mend them, or go on without them by task.max_bad_rows={len(bad)}"
    if not num_good:
        advice = "None is left: see that task.question, task.target and task.answer fit the file"
    counts = (
        f"{len(bad):,} of {len(bad) + num_good:,} rows can't be used ({_counted(bad)}); task.max_bad_rows is {most}"
    )
    raise DataError("\n".join([counts, *_shown(bad), advice]))


def _counted(bad: Sequence[BadRow]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in _reasons(bad).items())


def _reasons(bad: Sequence[BadRow]) -> dict[str, int]:
    return dict(Counter(row.reason for row in bad).most_common())


def _shown(bad: Sequence[BadRow]) -> list[str]:
    """The first of them, a line each."""
    more = [f"  … and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []
    return [*(f"  {row}" for row in bad[:SHOWN]), *more]


def _remember(problem: Problem, where: str, seen: dict[tuple[str, str], str]) -> None:
    names = [("duplicate id", problem.id), ("duplicate question", key(problem.question))]
    for name in reversed(names):
        if name in seen:
            raise BadRowError(name[0], f"also in {seen[name]}")
    seen.update(dict.fromkeys(names, where))
