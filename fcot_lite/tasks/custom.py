"""Data of your own: files or a data set of the hub, by columns that the recipe names.

A row that can't be used is set aside with its reason; more of them than task.max_bad_rows stop the run, before anything
is drawn. What is not given as a file of its own is taken out of train by a hash of the question: the order of the file
does not matter, and rows that are added move few of the others to another side.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from fcot_lite.answers import final_sentence, grade
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import sha256_file, sha256_json
from fcot_lite.records import AnswerKind, Problem
from fcot_lite.task_block import Hub, TaskBlock
from fcot_lite.tasks.commonsense import multiple_choice
from fcot_lite.tasks.rows import MAX_ROW_BYTES, BadRowError, Rows, file_rows, hub_rows, kind_of
from fcot_lite.tasks.splits import By, normalised, template

# Read in this order, so that of two equal questions the one in test stays: else the student has seen it.
PARTS = ("test", "validation", "train")
LARGEST_TEST = 2_000  # 95 % intervals of ±2 points; more would only be taken from training
SHOWN = 10


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
    """What the data holds: every row is either a problem of one split or in `bad`."""

    problems: Mapping[str, list[Problem]]
    bad: list[BadRow]

    def reasons(self) -> dict[str, int]:
        """How many rows were set aside for each reason, the most frequent first."""
        return dict(Counter(row.reason for row in self.bad).most_common())


def read(block: TaskBlock) -> Read:
    """The problems of the recipe's own data, in an order that depends on their questions alone, and its bad rows.

    Raises DataError where files can't be read, where more than `max_bad_rows` rows are bad or a split comes out empty;
    ResourceError where a package is missing.
    """
    problems: dict[str, list[Problem]] = {}
    bad: list[BadRow] = []
    seen: dict[tuple[str, str], str] = {}
    for part, (file, rows) in _parts(block).items():
        problems[part] = []
        for row_number, row in rows:
            try:
                if isinstance(row, BadRowError):
                    raise row
                problem = _problem(row, block)
                _remember(problem, f"{file}:{row_number}", seen)
            except BadRowError as error:
                bad.append(BadRow(file, row_number, error.reason, error.found))
            else:
                problems[part].append(problem)
    _check_bad_rows(bad, sum(map(len, problems.values())), block.max_bad_rows or 0)
    for part, size in (("test", _test_size), ("validation", _validation_size)):
        if part not in problems:
            problems["train"], problems[part] = _take(problems["train"], size(len(problems["train"])), block.split)
    for part in PARTS:
        if not problems[part]:
            least = "three rows, 500 for a start" + (", of many templates" if block.split == "template" else "")
            raise DataError(f"{block.label}: no {part} questions are left; give it at least {least}")
        problems[part] = [
            replace(problem, id=f"own/{part}/{problem.id}")
            for problem in sorted(problems[part], key=lambda problem: _hash(problem.question))
        ]
    return Read(problems, bad)


def load(block: TaskBlock, split: str, limit: int | None) -> list[Problem]:
    """The problems of one split. Raises as `read` does."""
    return read(block).problems[split][:limit]


def examples(block: TaskBlock, count: int) -> list[tuple[str, str]]:
    """`count` questions of train with their worked solutions, each ending in the answer.

    From the end of train, so that a run on a part of it does not ask for what it was shown.
    Raises RecipeError where there are not so many, and as `read` does.
    """
    if count == 0:
        return []
    if block.solution is None:
        raise RecipeError(
            f"{block.label}: {count} solved examples asked for, and task.solution names no column with worked "
            "solutions; name it, or set the prompt's `examples` to 0"
        )
    solved: list[tuple[str, str]] = []
    for problem in reversed(read(block).problems["train"]):
        solution, ending = problem.metadata.get("solution"), final_sentence(problem)
        if len(solved) < count and solution is not None:
            text = solution if solution.endswith(ending) else f"{solution}\n{ending}"
            if grade(text, problem).correct:  # else it states another answer as well
                solved.append((problem.question, text))
    if len(solved) < count:
        raise RecipeError(
            f"{block.label}: {count} solved examples asked for; in train {len(solved)} rows have a solution that "
            "states no other answer than the target"
        )
    return solved


def fingerprint(block: TaskBlock) -> str:
    """A hash of the data and of how it is read: other bytes in a file, another fingerprint; another folder, the same.

    Raises as `read` does.
    """
    keys = {"answer", "question", "target", "choices", "solution", "id", "split"}
    columns = block.model_dump(include=keys)
    if block.path is None:
        content: Any = {part: [_content(p) for p in problems] for part, problems in read(block).problems.items()}
    else:
        files = block.path.model_dump(exclude_none=True)
        content = {part: _sha256(Path(file).expanduser()) for part, file in files.items()}
    return sha256_json([columns, content])


def _content(problem: Problem) -> list[Any]:
    return [problem.question, problem.target, dict(problem.metadata)]


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; paths start at the current folder, {Path.cwd()}") from None


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
    return {part: (file, file_rows(Path(file).expanduser(), columns)) for part, file in files.items() if file}


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


def _take(problems: Sequence[Problem], wanted: int, by: By) -> tuple[list[Problem], list[Problem]]:
    """(rest, taken): questions, or whole templates, in the order of their hashes; never over a half of all."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.metadata["group"] if by == "template" else problem.question, []).append(problem)
    rest: list[Problem] = []
    taken: list[Problem] = []
    for group in sorted(groups, key=_hash):
        members = groups[group]
        fits = len(taken) < wanted and len(taken) + len(members) <= len(problems) // 2
        (taken if fits else rest).extend(members)
    return rest, taken


def _hash(question: str) -> str:
    return hashlib.sha256(normalised(question).encode()).hexdigest()


def _check_bad_rows(bad: Sequence[BadRow], num_good: int, most: int) -> None:
    if len(bad) <= most:
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in Read({}, list(bad)).reasons().items())
    lines = [
        f"{len(bad):,} of {len(bad) + num_good:,} rows can't be used ({counts}); task.max_bad_rows is {most}",
        *(f"  {row}" for row in bad[:SHOWN]),
        *([f"  … and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []),
        f"Mend them, or go on without them by task.max_bad_rows={len(bad)}",
    ]
    raise DataError("\n".join(lines))


def _remember(problem: Problem, where: str, seen: dict[tuple[str, str], str]) -> None:
    keys = [("duplicate id", problem.id), ("duplicate question", _hash(problem.question))]
    for key in reversed(keys):
        if key in seen:
            raise BadRowError(key[0], f"also in {seen[key]}")
    seen.update(dict.fromkeys(keys, where))


def _problem(row: Mapping[str, Any], block: TaskBlock) -> Problem:
    """A row as a problem whose id does not name its split yet. Raises BadRowError."""
    if block.question is None or block.target is None or block.answer is None:
        raise RecipeError("data of your own needs task.question, task.target and task.answer")
    question = _text(row, block.question)
    value = _cell(row, block.target)
    group = template(question)
    if block.answer == "choice":
        labels, texts = _choices(row, block.choices or ())
        problem = multiple_choice(question, texts, _chosen(value, labels, texts), group)
    else:
        problem = Problem("", question, TARGETS[block.answer](value), block.answer, {"group": group})
    if block.solution is not None and row.get(block.solution) not in (None, ""):
        problem = replace(problem, metadata={**problem.metadata, "solution": _text(row, block.solution)})
    if not _is_gradable(problem):
        raise BadRowError(f"no {block.answer} for an answer", _short(problem.target))
    return replace(problem, id=_hash(problem.question)[:16] if block.id is None else _id(_cell(row, block.id)))


def _is_gradable(problem: Problem) -> bool:
    """Whether the grader takes the gold answer for one: else each rationale that ends in it would count as wrong."""
    try:
        return grade(final_sentence(problem), problem).correct
    except DataError:
        return False


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRowError("column missing", f"no {column!r} among {', '.join(map(ascii, row))[:200]}")
    if row[column] is None:
        raise BadRowError("empty", column)
    return row[column]


def _text(row: Mapping[str, Any], column: str) -> str:
    return _plain(_cell(row, column), column)


def _plain(value: Any, what: str) -> str:
    """The value where it is text with something in it, its ends stripped."""
    if not isinstance(value, str):
        raise BadRowError("wrong type", f"{what} is {kind_of(value)}, not text")
    text = value.strip()
    if not text:
        raise BadRowError("empty", what)
    if len(text) > MAX_ROW_BYTES:
        raise BadRowError("too long", f"{what} has {len(text):,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRowError("half a character", f"{what} holds the lone surrogate {text[error.start]!a}") from None
    return text


def _id(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _plain(value, "id")


def _number(value: Any) -> str:
    if isinstance(value, float):
        value = Decimal(repr(value))  # the digits as they were written, where Decimal(0.1) has 55
    if isinstance(value, Decimal):
        text = f"{value:f}"  # "NaN" and "Infinity" for what is none
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _plain(value, "the target")


def _yes_no(value: Any) -> str:
    word = ("yes" if value else "no") if isinstance(value, bool) else _plain(value, "the target").lower()
    if word not in (words := {"yes": "yes", "true": "yes", "no": "no", "false": "no"}):
        raise BadRowError("no yes_no for an answer", _short(word))
    return words[word]


def _one_line(value: Any) -> str:
    text = _plain(value, "the target")
    if len(text.splitlines()) > 1:
        raise BadRowError("not one line", _short(text))
    return text


def _math(value: Any) -> str:
    return _one_line(value) if isinstance(value, str) else _number(value)


TARGETS: Mapping[AnswerKind, Callable[[Any], str]] = {
    "number": _number,
    "yes_no": _yes_no,
    "letters": _one_line,
    "text": _one_line,
    "math": _math,
}


def _choices(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """(labels, texts) of the options: a column for each, a list, or lists under "label" and "text", as the hub has."""
    labels = list(ascii_uppercase)
    values: Any = [_cell(row, column) for column in columns]
    if len(columns) == 1:
        (values,) = values
        if isinstance(values, dict) and isinstance(values.get("label"), list):
            labels = [_plain(label, "a label") for label in values["label"]]
            values = values.get("text")
        if not isinstance(values, list):
            raise BadRowError("wrong type", f"{columns[0]} is {kind_of(values)}, not a list of texts")
    texts = [_plain(value, f"choice {ascii_uppercase[i % 26]}") for i, value in enumerate(values)]
    if not 2 <= len(texts) <= min(len(labels), 26):
        raise BadRowError("number of choices", str(len(texts)))
    if len(set(map(normalised, texts))) < len(texts):
        raise BadRowError("two equal choices")
    return labels[: len(texts)], texts


def _chosen(value: Any, labels: Sequence[str], texts: Sequence[str]) -> str:
    """The letter of the right option, which is given by its label, its text, or as a whole number from 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        matches = {value} & set(range(len(texts)))
    else:
        value = _plain(value, "the target")
        bare = value.removeprefix("(").removesuffix(")").upper()
        matches = {i for i, label in enumerate(labels) if label.upper() == bare}
        matches |= {i for i, text in enumerate(texts) if text == value}
    if len(matches) != 1:
        raise BadRowError("not one of the choices" if not matches else "more than one choice", _short(str(value)))
    return ascii_uppercase[matches.pop()]


def _short(text: str) -> str:
    return repr(text[:60])
