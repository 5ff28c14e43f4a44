"""`fcot grade`: the verdicts on anybody's completions, by one or several modes.

A row that cannot be graded by every mode that was asked for is set aside with its line and reason, so that all modes
speak of the same rows. Rows are read, judged and written one at a time: a million of them take no more memory than ten,
but for eight bytes for each row that is set aside.
"""

import os
import re
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from io import BufferedReader
from itertools import pairwise
from json import dumps
from pathlib import Path
from string import ascii_uppercase
from typing import Any, BinaryIO, TextIO, get_args

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

from fcot_lite import answers, paper_rules, stats, tasks
from fcot_lite.answers import MODES, NOT_JUDGED, Mode
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import fsync_folder
from fcot_lite.finish_reasons import FINISH_REASONS
from fcot_lite.math_check import NO_FORMULA, MathVerifier
from fcot_lite.readings import folded
from fcot_lite.records import AnswerKind, FinishReason, Problem, Verdict
from fcot_lite.tasks import columns, rg
from fcot_lite.tasks.rows import UTF16, BadRowError, Rows, jsonl_rows, kind_of

PAPER_MODES: tuple[Mode, ...] = ("paper", "paper-v1")
SHOWN = 10  # rows that were set aside are named up to here, and counted beyond
MAX_ROW_BYTES = 16_000_000  # 1 MB of text in JSON's longest escapes, with a question of the same length
# Letters of the options where a row does not tell them; A to E, and on to the gold answer, elsewhere.
NUM_CHOICES = {"aqua": 5, "commonsense_qa": 5, "date_understanding": 6, "tracking_shuffled_objects": 3}
MAGIC = {
    b"\x1f\x8b": "is packed with gzip; zcat FILE | fcot grade ... - reads it",
    b"PK\3\4": "is a zip archive; unpack it",
    b"PAR1": "is Parquet; write one JSON object a line",
    **dict.fromkeys(UTF16, "is UTF-16; save it as UTF-8"),
}
SECONDS_BETWEEN_LIVE, SECONDS_BETWEEN_LINES = 0.2, 15.0  # of progress: on a terminal, in a log
CHOICES_FOLLOW = re.compile(r"answer choices:", re.IGNORECASE)
CHOICES = (re.compile(r"\(([A-Z])\)"), re.compile(r"(?<![\w(])([A-Z])\)"), re.compile(r"(?<![\w.])([A-Z])\.(?=\s)"))
LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")


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
    set_aside_lines: dict[str, "array[int]"] = field(default_factory=dict)
    num_without_options: int = 0
    num_correct: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    pairs: dict[str, Counter[tuple[bool, bool]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reasons = {mode: Counter() for mode in self.modes}
        self.pairs = {mode: Counter() for mode in self.modes[1:]}

    @property
    def set_aside_reasons(self) -> Counter[str]:
        return Counter({reason: len(lines) for reason, lines in self.set_aside_lines.items()})

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.num_graded += 1
        for mode, verdict in zip(self.modes, verdicts, strict=True):
            self.reasons[mode][verdict.reason] += 1
            self.num_correct[mode] += verdict.correct
        for mode, verdict in zip(self.modes[1:], verdicts[1:], strict=True):
            self.pairs[mode][verdicts[0].correct, verdict.correct] += 1

    def add_set_aside(self, row: SetAside) -> None:
        self.num_set_aside += 1
        self.set_aside_lines.setdefault(row.reason, array("q")).append(row.line)
        if len(self.set_aside) < SHOWN:
            self.set_aside.append(row)


class Progress:
    """How far a grading is, on stderr: one live line where it is a terminal, else a plain line every 15 seconds."""

    def __init__(self) -> None:
        self._live: Status | None = None
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._started = self._shown_at = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = self._console.status("")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, num_rows: int) -> None:
        now = time.monotonic()
        if now - self._shown_at < (SECONDS_BETWEEN_LIVE if self._live else SECONDS_BETWEEN_LINES):
            return
        self._shown_at = now
        line = f"grade: {num_rows:,} rows ({now - self._started:.0f} s)"
        if self._live is not None:
            self._live.update(line)
        else:
            self._console.print(line, soft_wrap=True)


def grade_file(
    file: str,
    out: Path | None,
    task: str | None,
    answer: str | None,
    modes: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> Counts:
    """Grades the JSONL `file` ("-" is stdin) and, where `out` is given, writes a row for each row and mode there, and
    one for each row that was set aside. `progress` is told the number of rows after each.

    Raises RecipeError for options that do not go together, DataError where the file cannot be read or none of its rows
    can be graded; then nothing is written.
    """
    kind, chosen = _checked(task, answer, modes)
    counts = Counts(chosen)
    name = "stdin" if file == "-" else file
    with ExitStack() as stack:
        source = _opened(file, stack)
        written = stack.enter_context(_whole_or_absent(out, source)) if out else None
        start = _looked_at(source, name)
        verifier = stack.enter_context(MathVerifier()) if kind == "math" else None
        for rows in _judged(_rows(source, name), task, kind, counts, verifier):
            if written is not None:
                written.writelines(dumps(row) + "\n" for row in rows)
            if progress is not None:
                progress(counts.num_graded + counts.num_set_aside)
        if not counts.num_graded:
            is_csv = set(counts.set_aside_lines) == {"not valid JSON"} and b"," in start and b"{" not in start
            hint = ["  Is it CSV? Write each row as a JSON object on a line of its own"] if is_csv else []
            raise DataError("\n".join([f"{name}: none of its rows could be graded", *notes(counts), *hint]))
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
            "lines": {reason: lines.tolist() for reason, lines in counts.set_aside_lines.items()},
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
    """What a reader of the tables should know: whether options were missing; how many rows were set aside for which
    reason, and the first of them."""
    letters = ["no row had options: graded by letter alone"]
    options = letters if counts.num_graded and counts.num_without_options == counts.num_graded else []
    if not counts.num_set_aside:
        return options
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.set_aside_reasons.most_common())
    were = "row was" if counts.num_set_aside == 1 else "rows were"
    lines = [*options, f"{counts.num_set_aside:,} {were} set aside: {reasons}"]
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
    rows: Rows, task: str | None, kind: AnswerKind, counts: Counts, verifier: MathVerifier | None
) -> Iterator[list[dict[str, Any]]]:
    """For each row what is written of it: its verdict by each mode, or why it was set aside."""
    for line, row in rows:
        echoed: dict[str, Any] = {"line": line}
        try:
            if isinstance(row, BadRowError):
                raise row
            if row.get("id") is not None:
                echoed["id"] = _id(row["id"])
            problem, verdicts = _graded(row, task, kind, counts.modes, verifier)
        except BadRowError as error:
            counts.add_set_aside(SetAside(line, error.reason, error.found))
            yield [{**echoed, "set_aside": error.reason, "found": error.found}]
        else:
            counts.add(verdicts)
            counts.num_without_options += kind == "choice" and not any(problem.metadata["choices"])
            yield [
                {**echoed, "mode": mode, **asdict(verdict)}
                for mode, verdict in zip(counts.modes, verdicts, strict=True)
            ]


def _graded(
    row: Mapping[str, Any], task: str | None, kind: AnswerKind, modes: Sequence[Mode], verifier: MathVerifier | None
) -> tuple[Problem, list[Verdict]]:
    text = _required(row, "text")
    if not isinstance(text, str):
        raise BadRowError("wrong type", f"text is {kind_of(text)}, not text")
    is_paper = any(mode in PAPER_MODES for mode in modes)
    finish_reason = _finish_reason(row) if "strict" in modes else "stop"
    template = _template(row) if is_paper else None
    problem = _problem(row, task, kind, all(mode in PAPER_MODES for mode in modes))
    verdicts = []
    try:
        if is_paper:
            answers.answer_start("", problem)  # raises where the gold answer is not of its kind, as the paper's do not
            _check_paper_target(problem, task or "")
        for mode in modes:
            verdict = answers.grade(text, problem, mode, template, finish_reason=finish_reason, verifier=verifier)
            if verifier is not None and verdict.reason == f"{NOT_JUDGED}math-verify":
                if verifier.why_not == NO_FORMULA:
                    raise BadRowError("target is no math", repr(problem.target[:60]))
                verdict = replace(verdict, reason=f"{NOT_JUDGED}{verifier.why_not}")
            verdicts.append(verdict)
    except DataError:
        raise BadRowError(f"target is no {kind}", repr(problem.target[:60])) from None
    return problem, verdicts


def _check_paper_target(problem: Problem, task: str) -> None:
    """Raises BadRowError where no text can be right for the paper: its evaluator compares "18" with "$18"."""
    rule = paper_rules.RULES[task]
    is_text = not rule.is_float and problem.answer_kind in ("number", "choice")
    if is_text and not rule.candidate.fullmatch(rule.gold(problem.target)):
        found = (
            f"{problem.target[:60]!r}: the paper's evaluator finds no such answer; take the bare one, as '18' or 'B'"
        )
        raise BadRowError("target is none of the paper's", found)


def _problem(row: Mapping[str, Any], task: str | None, kind: AnswerKind, is_only_paper: bool) -> Problem:
    value = _required(row, "target")
    if isinstance(value, str) and not value.strip():
        raise BadRowError("empty", "target")
    name = f"{task or 'own'}/row"
    if kind != "choice":
        return Problem(name, "", _gold(value, kind), kind)
    letter = LETTER.fullmatch(value.strip()) if isinstance(value, str) else None
    # The paper's rules know no options; a letter needs none.
    labels, texts = ([], []) if is_only_paper and letter else _options(row)
    if not texts:
        if letter is None:
            found = f"{_short(value)} without choices; give its letter, or the choices"
            raise BadRowError("target is no letter", found)
        target = letter[1].upper()
        num_choices = NUM_CHOICES.get(task or "", max(5, ascii_uppercase.find(target) + 1))
        labels, texts = list(ascii_uppercase[:num_choices]), [""] * num_choices
    return Problem(name, "", _letter(value, labels, texts), kind, {"choices": texts})


def _gold(value: Any, kind: AnswerKind) -> str:
    """The gold answer as text. A text stays as it is: the paper's evaluator tells "Yes" from "yes"."""
    if isinstance(value, str):
        is_truth = kind == "yes_no" and value.strip().lower() in ("true", "false")
        return columns.TARGETS[kind](value) if is_truth else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return columns.TARGETS["number" if kind == "text" and is_number else kind](value)


def _options(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(labels, texts) of the options: as given, else as the question ends with them; none where neither tells."""
    texts: Any = row.get("choices")
    labels: Any = list(ascii_uppercase)
    if texts is None:
        question = row.get("question")
        if question is not None and not isinstance(question, str):
            raise BadRowError("wrong type", f"question is {kind_of(question)}, not text")
        texts = _listed_choices(question or "")
        return labels[: len(texts)], texts
    if isinstance(texts, dict):  # as ARC and CommonsenseQA have them on the hub
        labels, texts = texts.get("label"), texts.get("text")
    for words in (labels, texts):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            what = "not a list of texts" if words is None else f"{kind_of(words)}, not a list of texts"
            raise BadRowError("wrong type", f"choices is {what}")
    if not 2 <= len(texts) <= min(len(labels), len(ascii_uppercase)):
        raise BadRowError("number of choices", str(len(texts)))
    return labels[: len(texts)], texts


def _letter(value: Any, labels: Sequence[str], texts: Sequence[str]) -> str:
    """The letter of the right option, which is given by its label, "B", "b" or "(B)", else by its text, else by its
    place from 0."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRowError("wrong type", f"target is {kind_of(value)}, not a letter")
    written = str(value).strip()
    bare = written.removesuffix(".").removeprefix("(").removesuffix(")").upper()
    by_label = [i for i, label in enumerate(labels) if label.upper() == bare]
    by_text = [i for i, text in enumerate(texts) if text.strip() and folded(text) == folded(written)]
    by_place = [i for i in range(len(texts)) if str(i) == written]
    # A number that is one option's place and another's text or label: nobody can tell which is meant.
    found = sorted({*by_label, *by_text, *by_place}) if isinstance(value, int) else by_label or by_text or by_place
    if len(found) != 1:
        letters = " or ".join(ascii_uppercase[i] for i in found)
        what = f"can be {letters}" if found else f"is none of {', '.join(labels)}"
        raise BadRowError("target is no choice", f"{_short(value)} {what}; give the letter")
    return ascii_uppercase[found[0]]


def _listed_choices(question: str) -> list[str]:
    """The options that a question ends with, as "Answer choices: (A) red, (B) blue.", "A) red B) blue" or "A. red" on
    lines; [] where it lists none. The last one ends with its line: what follows may be a prompt's "A:"."""
    *_, start = [0, *(match.end() for match in CHOICES_FOLLOW.finditer(question))]
    for choice in CHOICES:
        marks: list[re.Match[str]] = []
        for mark in choice.finditer(question, start):
            if mark[1] == ascii_uppercase[len(marks) : len(marks) + 1]:
                marks.append(mark)
        if len(marks) >= 2:
            break
    else:
        return []
    ends = [after.start() for _, after in pairwise(marks)] + [len(question)]
    texts = [question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return [text.rstrip(",;").rstrip() for text in texts[:-1]] + [
        texts[-1].partition("\n")[0].strip().removesuffix(".")
    ]


def _required(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise BadRowError("field missing", f"no {name!r} among {', '.join(map(ascii, row))[:200]}")
    if row[name] is None:
        raise BadRowError("field missing", f"{name!r} is null")
    return row[name]


def _template(row: Mapping[str, Any]) -> str:
    value = row.get("template")
    if value is None:
        raise BadRowError(
            "field missing", f"the paper's modes need a template, one of {', '.join(paper_rules.TEMPLATES)}"
        )
    if value not in paper_rules.TEMPLATES:
        raise BadRowError("unknown template", f"{_short(value)}; one of {', '.join(paper_rules.TEMPLATES)}")
    return str(value)


def _finish_reason(row: Mapping[str, Any]) -> FinishReason:
    value = row.get("finish_reason")
    if value is None or value == "":
        return "stop"
    known = FINISH_REASONS.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        found = f"{_short(value)}; one of {', '.join(FINISH_REASONS)}"
        raise BadRowError("unknown finish_reason", found)
    return known


def _short(value: Any) -> str:
    return repr(value[:60]) if isinstance(value, str) else str(value) if isinstance(value, int) else kind_of(value)


def _id(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRowError("wrong type", f"id is {kind_of(value)}, not text or a whole number")
    return value


def _opened(file: str, stack: ExitStack) -> BinaryIO:
    if file == "-":
        if sys.stdin is None:  # what Python makes of `<&-`
            raise DataError("stdin is closed; name a file, or send rows to stdin")
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(file, "rb"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; relative paths start at the current folder, {Path.cwd()}") from None


def _looked_at(source: BinaryIO, name: str) -> bytes:
    """The first line of what is read, or its beginning. Raises DataError where that cannot be JSONL."""
    try:
        start = source.peek(1) if isinstance(source, BufferedReader) else b"{"
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None
    if not start:
        raise DataError(f"{name}: is empty; one JSON object a line is a row")
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            raise DataError(f"{name}: {what}")
    return start.lstrip().partition(b"\n")[0]


def _rows(source: BinaryIO, name: str) -> Rows:
    try:
        yield from jsonl_rows(source, MAX_ROW_BYTES)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None


@contextmanager
def _whole_or_absent(path: Path, source: BinaryIO) -> Iterator[TextIO]:
    """A file to write rows to, which is called `path` only when all of them are there. Without them no new folder is
    left either."""
    if str(path) == "-":
        raise RecipeError("-o -: stdout shows the summary; name a file")
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"-o {path}: is no file; name another")
        if path.exists() and os.path.samestat(path.stat(), os.fstat(source.fileno())):
            raise RecipeError(f"-o {path}: is the file that is read; name another")
        new_folders = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"-o {path}: cannot be written ({error.strerror}); name another") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="ascii", newline="\n") as file:  # json.dumps escapes all else
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        for folder in new_folders:
            with suppress(OSError):  # somebody else's file is in it by now
                folder.rmdir()
        raise
    fsync_folder(path.parent)
