"""`fcot grade`: the verdicts on anybody's completions, by one or several modes.

A row that cannot be graded by every mode that was asked for is set aside with its line and reason, so that all modes
speak of the same rows. Rows are read, judged and written one at a time: a million of them take no more memory than ten.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from json import dumps
from pathlib import Path
from string import ascii_uppercase
from typing import Any, BinaryIO, TextIO, TypeVar, get_args

from rich import box
from rich.table import Table

from fcot_lite import answers, paper_rules, stats, tasks
from fcot_lite.answers import MODES, Mode, Verifier
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import fsync_folder
from fcot_lite.math_check import MathVerifier
from fcot_lite.records import AnswerKind, FinishReason, Problem, Verdict
from fcot_lite.tasks import custom, rg
from fcot_lite.tasks.rows import BadRowError, Rows, jsonl_rows, kind_of

PAPER_MODES: tuple[Mode, ...] = ("paper", "paper-v1")
SHOWN = 10  # rows that were set aside are named up to here, and counted beyond
MAX_ROW_BYTES = 16_000_000  # 1 MB of text in JSON's longest escapes, with a question of the same length
# Letters of the options where a row does not tell them; A to E elsewhere.
NUM_CHOICES = {"date_understanding": 6, "tracking_shuffled_objects": 3}
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
Word = TypeVar("Word", bound=str)
CHOICES_FOLLOW = re.compile(r"answer choices:", re.IGNORECASE)
CHOICE = re.compile(r"\(([A-Z])\)")


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row that was not graded: its line, a reason that is counted, and what was found there."""

    line: int
    reason: str
    found: str


@dataclass(slots=True)
class Counts:
    """What was counted while rows went by. `pairs` counts (correct by the first mode, correct by the other one)."""

    modes: tuple[Mode, ...]
    num_graded: int = 0
    num_set_aside: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    set_aside_reasons: Counter[str] = field(default_factory=Counter)
    num_correct: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    pairs: dict[str, Counter[tuple[bool, bool]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reasons = {mode: Counter() for mode in self.modes}
        self.pairs = {mode: Counter() for mode in self.modes[1:]}

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.num_graded += 1
        for mode, verdict in zip(self.modes, verdicts, strict=True):
            self.reasons[mode][verdict.reason] += 1
            self.num_correct[mode] += verdict.correct
        for mode, verdict in zip(self.modes[1:], verdicts[1:], strict=True):
            self.pairs[mode][verdicts[0].correct, verdict.correct] += 1

    def add_set_aside(self, row: SetAside) -> None:
        self.num_set_aside += 1
        self.set_aside_reasons[row.reason] += 1
        if len(self.set_aside) < SHOWN:
            self.set_aside.append(row)


def grade_file(file: str, out: Path | None, task: str | None, answer: str | None, modes: Sequence[str]) -> Counts:
    """Grades the JSONL `file` ("-" is stdin) and, where `out` is given, writes a row for each row and mode there.

    Raises RecipeError for options that do not go together, DataError where the file cannot be read or none of its rows
    can be graded; then nothing is written.
    """
    kind, chosen = _checked(task, answer, modes)
    counts = Counts(chosen)
    with ExitStack() as stack:
        source = _opened(file, stack)
        written = stack.enter_context(_whole_or_absent(out, file)) if out else None
        verifier = stack.enter_context(MathVerifier()) if kind == "math" else None
        for line, row, verdicts in _judged(jsonl_rows(source, MAX_ROW_BYTES), task, kind, counts, verifier):
            if written is not None:
                written.writelines(
                    dumps({"line": line, **row, "mode": mode, **asdict(verdict)}) + "\n"
                    for mode, verdict in zip(chosen, verdicts, strict=True)
                )
        if not counts.num_graded:
            name = "stdin" if file == "-" else file
            raise DataError("\n".join([f"{name}: none of its rows could be graded", *notes(counts)]))
    return counts


def summary(counts: Counts) -> dict[str, Any]:
    """What `fcot grade --json` prints: for each mode the accuracy with its 95 % Wilson interval, which takes rows for
    independent, and counts by reason; for each mode after the first its agreement with the first one."""
    n = counts.num_graded
    first = counts.modes[0]
    return {
        "schema_version": 1,
        "graded": n,
        "set_aside": {
            "count": counts.num_set_aside,
            "reasons": dict(counts.set_aside_reasons.most_common()),
            "first": [asdict(row) for row in counts.set_aside],
        },
        "modes": {
            mode: {
                "accuracy": counts.num_correct[mode] / n,
                "ci95": list(stats.wilson(counts.num_correct[mode], n)),
                "n": n,
                "correct": counts.num_correct[mode],
                "reasons": dict(counts.reasons[mode].most_common()),
            }
            for mode in counts.modes
        },
        "confusion": [
            {
                "modes": [first, mode],
                "both_correct": pairs[True, True],
                "only_first_correct": pairs[True, False],
                "only_second_correct": pairs[False, True],
                "neither_correct": pairs[False, False],
            }
            for mode, pairs in counts.pairs.items()
        ],
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """A summary as tables: accuracies, then one of agreement for each mode after the first."""
    accuracy = Table(box=box.SIMPLE_HEAD)
    for heading in ("mode", "accuracy", "95 % interval", "correct", "n", "reasons"):
        accuracy.add_column(heading, justify="left" if heading in ("mode", "reasons") else "right")
    for mode, of_mode in found["modes"].items():
        low, high = of_mode["ci95"]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in of_mode["reasons"].items())
        accuracy.add_row(
            mode, f"{of_mode['accuracy']:.1%}", f"{low:.1%} – {high:.1%}", f"{of_mode['correct']:,}",
            f"{of_mode['n']:,}", reasons,
        )  # fmt: skip
    return [accuracy, *map(_confusion_table, found["confusion"])]


def notes(counts: Counts) -> list[str]:
    """The rows that were set aside: how many for which reason, and the first of them."""
    if not counts.num_set_aside:
        return []
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.set_aside_reasons.most_common())
    were = "row was" if counts.num_set_aside == 1 else "rows were"
    lines = [f"{counts.num_set_aside:,} {were} set aside: {reasons}"]
    lines += [f"  line {row.line}: {row.reason}" + (f" ({row.found})" if row.found else "") for row in counts.set_aside]
    if counts.num_set_aside > SHOWN:
        lines.append(f"  … and {counts.num_set_aside - SHOWN:,} more")
    return lines


def _confusion_table(pair: Mapping[str, Any]) -> Table:
    first, second = pair["modes"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in (f"{second}: correct", "not correct"):
        table.add_column(heading, justify="right")
    table.add_row(f"{first}: correct", f"{pair['both_correct']:,}", f"{pair['only_first_correct']:,}")
    table.add_row("not correct", f"{pair['only_second_correct']:,}", f"{pair['neither_correct']:,}")
    return table


def _checked(task: str | None, answer: str | None, modes: Iterable[str]) -> tuple[AnswerKind, tuple[Mode, ...]]:
    """The kind of answer and the modes, each once. Raises RecipeError where they do not go together."""
    for mode in modes:
        if mode not in MODES:
            raise RecipeError(f"--mode {mode}: unknown; one of {', '.join(MODES)}")
    chosen = tuple(known for mode in dict.fromkeys(modes) for known in MODES if known == mode)
    if (task is None) == (answer is None):
        raise RecipeError("give one of --task NAME and --answer KIND: what kind of answer do the rows have?")
    paper_mode = next((mode for mode in chosen if mode in PAPER_MODES), None)
    if task is None:
        if paper_mode:
            raise RecipeError(f"--mode {paper_mode} needs --task: its rules depend on the task")
        for kind in get_args(AnswerKind):
            if kind == answer:
                return kind, chosen
        raise RecipeError(f"--answer {answer}: unknown; one of {', '.join(get_args(AnswerKind))}")
    if task.startswith(rg.PREFIX):
        raise RecipeError(
            f"--task {task}: its scorer needs more than a row holds; take --answer number or --answer text"
        )
    kind = tasks.task(task).answer_kind
    if paper_mode and task not in paper_rules.RULES:
        known = ", ".join(paper_rules.RULES)
        raise RecipeError(f"--mode {paper_mode}: the paper has no rules for {task}; it has for {known}")
    return kind, chosen


def _judged(
    rows: Rows, task: str | None, kind: AnswerKind, counts: Counts, verifier: Verifier | None
) -> Iterator[tuple[int, dict[str, Any], list[Verdict]]]:
    """(line, what of the row is echoed, its verdict by each mode) of each row that could be graded."""
    needs_template = any(mode in PAPER_MODES for mode in counts.modes)
    for line, row in rows:
        try:
            if isinstance(row, BadRowError):
                raise row
            text = _required(row, "text")
            if not isinstance(text, str):
                raise BadRowError("wrong type", f"text is {kind_of(text)}, not text")
            finish_reason = _one_of(row, "finish_reason", FINISH_REASONS, default="stop")
            template = _one_of(row, "template", paper_rules.TEMPLATES) if needs_template else None
            problem = _problem(row, task, kind, line)
            echoed = {"id": _id(row["id"])} if row.get("id") is not None else {}
            try:
                verdicts = [
                    answers.grade(text, problem, mode, template, finish_reason=finish_reason, verifier=verifier)
                    for mode in counts.modes
                ]
            except DataError:
                raise BadRowError(f"target is no {kind}", repr(problem.target[:60])) from None
        except BadRowError as error:
            counts.add_set_aside(SetAside(line, error.reason, error.found))
        else:
            counts.add(verdicts)
            yield line, echoed, verdicts


def _problem(row: Mapping[str, Any], task: str | None, kind: AnswerKind, line: int) -> Problem:
    value = _required(row, "target")
    # A text stays as it is: the paper's evaluator tells "Yes" from "yes".
    if not isinstance(value, str):
        if kind not in custom.TARGETS:
            raise BadRowError("wrong type", f"target is {kind_of(value)}, not text")
        value = custom.TARGETS[kind](value)
    if not value.strip():
        raise BadRowError("empty", "target")
    question = row.get("question")
    if question is not None and not isinstance(question, str):
        raise BadRowError("wrong type", f"question is {kind_of(question)}, not text")
    metadata: dict[str, Any] = {}
    if kind == "choice":
        metadata["choices"] = _choices(row.get("choices"), question or "", task, value)
    return Problem(f"{task or 'own'}/{line}", question or "", value, kind, metadata)


def _choices(given: Any, question: str, task: str | None, target: str) -> list[str]:
    """The texts of the options: as given, else as the question ends with them. Where neither tells, empty ones, which
    leaves the letters to be graded."""
    if given is not None:
        if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
            raise BadRowError("wrong type", f"choices is {kind_of(given)}, not a list of texts")
        if not 2 <= len(given) <= len(ascii_uppercase):
            raise BadRowError("number of choices", str(len(given)))
        return given
    return _listed_choices(question) or [""] * max(NUM_CHOICES.get(task or "", 5), ascii_uppercase.find(target[:1]) + 1)


def _listed_choices(question: str) -> list[str]:
    """The options that a question ends with, as "Answer choices: (A) red, (B) blue."; [] where it lists none."""
    *_, start = [0, *(match.end() for match in CHOICES_FOLLOW.finditer(question))]
    marks: list[re.Match[str]] = []
    for mark in CHOICE.finditer(question, start):
        if mark[1] == ascii_uppercase[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if len(marks) < 2:
        return []
    ends = [after.start() for _, after in pairwise(marks)] + [len(question)]
    texts = [question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return [text.rstrip(",;").rstrip() for text in texts[:-1]] + [texts[-1].removesuffix(".")]


def _required(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise BadRowError("field missing", f"no {name!r} among {', '.join(map(ascii, row))[:200]}")
    return row[name]


def _one_of(row: Mapping[str, Any], name: str, allowed: Sequence[Word], default: Word | None = None) -> Word:
    value = row.get(name, default)
    if value is None and default is None:
        raise BadRowError("field missing", f"the paper's modes need a {name}, one of {', '.join(allowed)}")
    for word in allowed:
        if word == (default if value is None else value):
            return word
    found = repr(value[:60]) if isinstance(value, str) else kind_of(value)
    raise BadRowError(f"unknown {name}", f"{found}; one of {', '.join(allowed)}")


def _id(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRowError("wrong type", f"id is {kind_of(value)}, not text or a whole number")
    return value


def _opened(file: str, stack: ExitStack) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(file, "rb"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; relative paths start at the current folder, {Path.cwd()}") from None


@contextmanager
def _whole_or_absent(path: Path, source: str) -> Iterator[TextIO]:
    """A file to write rows to, which is called `path` only when all of them are there."""
    if path.exists() and (not path.is_file() or (source != "-" and path.samefile(source))):
        raise RecipeError(f"-o {path}: {'is the file that is read' if path.is_file() else 'is no file'}; name another")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="ascii", newline="\n") as file:  # json.dumps escapes all else
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
