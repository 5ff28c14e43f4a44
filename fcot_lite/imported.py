"""Rationales that somebody already paid for: the rows of a file in place of a teacher that is asked.

Each rationale is matched to a train problem by id or by the whole question, goes into the sample store under a campaign
that names the file's hash, and is judged by the grader that judges every sample; what others found correct is not
asked. Every rationale is exactly one of imported, unmatched, duplicate and bad; imports.json counts and names them.

Where a row does not say how its text ended, the store keeps "unknown". The recipe decides what that means when the
samples are read, not when they are stored and not in the grader: so another decision neither stores the texts again nor
asks for other verdicts, and to whoever forgets to decide an unknown end is an unfinished text.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fcot_lite import stats, tasks
from fcot_lite.answers import accepted, answer_end
from fcot_lite.errors import DataError
from fcot_lite.files import read_json, sha256_file, sha256_json, write_json, write_jsonl
from fcot_lite.prompts import Prompt, whole_text
from fcot_lite.recipe import ImportBlock, Recipe
from fcot_lite.records import FinishReason, Problem, Sample, Verdict
from fcot_lite.store import SampleStore, Use, storable
from fcot_lite.tasks.rows import MAX_ROW_BYTES, BadRowError, Rows, column_names, data_file, file_rows, keys, kind_of
from fcot_lite.tasks.splits import exact, normalised
from fcot_lite.teacher import Progress, Question
from fcot_lite.verdicts import Judge, judging

ENGINE = "import"  # in the store's column of what made a sample
LONGEST_LINE = 16 * MAX_ROW_BYTES  # a row of OpenR1-Math holds up to 8 generations, twice
LARGEST_JSON = 500_000_000  # bytes; a JSON file is read whole, and takes some four times its size
TEXTS_TO_A_COMMIT, CHARACTERS_TO_A_COMMIT = 1_000, 10_000_000
NAMED = 1_000  # rows that were left out are named in imports.json up to here, and counted beyond
SHOWN = 5
LONGEST_TAIL = 80  # characters of its own sentence that may follow an answer: its unit, the text of its option

Ending = Literal["answer", "stop", "length"]
# Others' words for how a text ended (OpenAI, Anthropic, TGI, Gemini), without case.
FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos_token": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "abort": "abort",
    "error": "error",
    "content_filter": "error",
    "repetition": "repetition",
    "unknown": "unknown",
}
WORST_FIRST: tuple[FinishReason, ...] = ("error", "abort", "length", "repetition", "unknown", "stop")
USER, ASSISTANT = ("user", "human"), ("assistant", "gpt", "model")
# Columns of rows that follow no layout below: the first that is there.
QUESTIONS = ("question", "problem", "prompt", "instruction", "query")
TEXTS = ("rationale", "generation", "completion", "response", "output", "reasoning", "text", "solution")
_MARK = re.compile(r"</?\w{1,30}>|<\|\w{1,30}\|>")  # </answer>, <|end_of_solution|>
_SENTENCE_END = re.compile(r"[.!?][^\w\s]{0,5}(?:\s|\Z)|\n")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a file's rows are read by. With `answer_text`, the paper's second call, `answer_finish_reason`
    is how that one ended. Where rows have an `index`, equal texts of other indices are no duplicates. Where they have a
    `kind`, those of another kind than "sample" hold no text."""

    name: str
    question: str | None
    text: str
    id: str | None = None
    finish_reason: str | None = None
    answer_text: str | None = None
    answer_finish_reason: str | None = None
    index: str | None = None
    num_prompt_tokens: str | None = None
    num_tokens: str | None = None
    seed: str | None = None
    kind: str | None = None

    def columns(self) -> dict[str, str]:
        """What is read, and from which column."""
        return {name: column for name, column in asdict(self).items() if name != "name" and column is not None}


# Taken is the first whose text is there, and whose id or else question.
LAYOUTS = (
    Layout(
        "samples of fcot-lite",
        question="question",
        text="text",
        id="problem_id",
        finish_reason="finish_reason",
        answer_text="answer_text",
        index="sample_index",
        num_prompt_tokens="num_prompt_tokens",
        num_tokens="num_tokens",
        seed="seed",
        kind="kind",  # of `fcot samples export`
    ),
    Layout(
        "completions of reasoning-teacher",
        question="question",
        text="reasoning_completion",
        finish_reason="reasoning_finish_reason",
        answer_text="completion",
        answer_finish_reason="finish_reason",
        index="completion_index",
    ),
    Layout("OpenR1-Math", "problem", "generations", finish_reason="finish_reasons"),
    Layout("metadata of OpenThoughts", "problem", "deepseek_solution"),
    Layout("OpenThoughts", "conversations", "conversations", finish_reason="finish_reason"),
    Layout("chats", "messages", "messages", finish_reason="finish_reason"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rationales and how it is read. `metadata` is what the file says of itself."""

    path: Path
    sha256: str
    layout: Layout
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        columns = ", ".join(f"{name} in {column!r}" for name, column in self.layout.columns().items())
        return f"{self.path.name} as {self.layout.name}: {columns}"

    def rows(self) -> Rows:
        """Each row with its number. Raises DataError where the file can't be read as a whole."""
        if self.path.suffix.lower() == ".json":
            rows: Rows = iter(enumerate(_json_file(self.path)[0], 1))
        else:
            rows = file_rows(self.path, list(dict.fromkeys(self.layout.columns().values())), LONGEST_LINE)
        kind = self.layout.kind
        for number, row in rows:
            if kind is None or isinstance(row, BadRowError) or row.get(kind, "sample") == "sample":
                yield number, row


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A rationale that was not imported: the row it stands in, counted from 1, and why."""

    row: int
    kind: Literal["unmatched", "duplicate", "bad"]
    reason: str
    found: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.kind}, {self.reason}" + (f" ({self.found})" if self.found else "")


@dataclass(slots=True)
class Counts:
    """What became of a file's rationales. `by_problem` counts those that were imported, `finish_reasons` their own
    words for how they ended."""

    rows: int = 0
    rationales: int = 0
    by_problem: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    named: list[LeftOut] = field(default_factory=list)

    def leave_out(self, row: LeftOut) -> None:
        self.rationales += 1
        self.left_out[row.kind, row.reason] += 1
        if len(self.named) < NAMED:
            self.named.append(row)

    def take(self, problem: Problem, one: "Rationale") -> None:
        self.rationales += 1
        self.by_problem[problem.id] += 1
        self.finish_reasons[one.word] += 1

    def summary(self) -> dict[str, int]:
        """rationales = imported + unmatched + duplicates + bad."""
        kinds: Counter[str] = Counter()
        for (kind, _), count in self.left_out.items():
            kinds[kind] += count
        return {
            "rows": self.rows,
            "rationales": self.rationales,
            "imported": self.by_problem.total(),
            "unmatched": kinds["unmatched"],
            "duplicates": kinds["duplicate"],
            "bad": kinds["bad"],
        }

    def lines(self) -> list[str]:
        """What was left out, a line for each reason, then the first rows."""
        reasons = [f"  {count:,} {kind}: {reason}" for (kind, reason), count in self.left_out.most_common()]
        return [*reasons, *(f"  {row}" for row in self.named[:SHOWN])]


def source(block: ImportBlock) -> Source:
    """The recipe's file. Raises DataError where it can't be read, is empty or nobody can tell its columns."""
    path = data_file(block.file)
    metadata: Mapping[str, Any] = {}
    if path.suffix.lower() == ".json":
        rows, metadata = _json_file(path)
        there = keys(rows)
    else:
        there = column_names(path)
    if not there:
        raise DataError(f"{path}: no row of it can be read; is it {path.suffix.lower().removeprefix('.')}, in UTF-8?")
    return Source(path, fingerprint(block), layout(path, there, block), metadata)


def fingerprint(block: ImportBlock) -> str:
    """The hash of the file's bytes. Raises DataError where there is none."""
    path = data_file(block.file)
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def layout(path: Path, there: Sequence[str], block: ImportBlock) -> Layout:
    """How rows with these columns are read: by what the recipe names, else by what is common. Raises DataError."""
    columns = ", ".join(map(repr, there))[:500]
    for key in ("question", "text", "id", "finish_reason"):
        column = getattr(block, key)
        if column is not None and column not in there:
            raise DataError(f"{path}: no column {column!r}, which teacher.{key} names; there are: {columns}")
    known = next((one for one in LAYOUTS if one.text in there and (one.id or one.question) in there), None)
    question = block.question or (known.question if known else _first(QUESTIONS, there))
    text = block.text or (known.text if known else _first([name for name in TEXTS if name != question], there))
    if known is None or text != known.text:  # its other columns are of another text
        known = Layout("columns", None, "", finish_reason="finish_reason")
    id = block.id or known.id
    if text is None or (question is None and id not in there):
        what, keys = ("rationale", "teacher.text") if text is None else ("question", "teacher.question or teacher.id")
        raise DataError(f"{path}: which column holds the {what}? Name it in {keys}; there are: {columns}")
    found = replace(
        known, question=question, text=text, id=id, finish_reason=block.finish_reason or known.finish_reason
    )
    if path.suffix.lower() not in (".csv", ".parquet"):
        return found  # a later row may have what the first ones lack
    missing: dict[str, Any] = {name: None for name, column in found.columns().items() if column not in there}
    return replace(found, **missing)


def _first(names: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in names if name in there), None)


def _json_file(path: Path) -> tuple[list[dict[str, Any] | BadRowError], Mapping[str, Any]]:
    """(rows, metadata) of a JSON file: a list of rows, or as reasoning-teacher keeps completions, lists of them by
    question. Raises DataError."""
    if path.stat().st_size > LARGEST_JSON:
        raise DataError(f"{path}: a .json file is read whole, up to {LARGEST_JSON:,} bytes; save it as .jsonl")
    value = read_json(path)
    if isinstance(value, list):
        return [_object(row) for row in value], {}
    data = value.get("data", value) if isinstance(value, dict) else None
    if not isinstance(data, dict) or not all(isinstance(samples, list) for samples in data.values()):
        raise DataError(
            f'{path}: neither a list of rows nor completions as {{"metadata": …, "data": {{"0": [{{…}}]}}}}'
        )
    rows = []
    for samples in data.values():
        for i, sample in enumerate(samples):
            row = _object(sample)
            rows.append({"completion_index": i, **row} if isinstance(row, dict) else row)
    metadata = value.get("metadata")
    plain = (str, int, float, bool)
    return rows, {k: v for k, v in metadata.items() if isinstance(v, plain)} if isinstance(metadata, dict) else {}


def _object(value: Any) -> dict[str, Any] | BadRowError:
    return value if isinstance(value, dict) else BadRowError("not an object", f"this is {kind_of(value)}")


# ---- the stage ---------------------------------------------------------------------------------------------------


def sample(
    recipe: Recipe, block: ImportBlock, run_dir: Path, store: SampleStore, problems: Sequence[Problem], say: Progress
) -> dict[str, Any]:
    """Imports what answers `problems`, judges it, writes samples.jsonl and imports.json; the outcome of the stage.

    Raises DataError where the file can't be read or nothing in it answers one of the problems.
    """
    file, prompt = source(block), recipe.teacher_prompt
    say(0, 0, f"reading {file}")
    name = f"imported from {file.path.name}"
    about = {"file": file.path.name, "sha256": file.sha256, "layout": file.layout.name}
    campaign = store.add_campaign(
        {
            "import": about,
            "columns": file.layout.columns(),
            "metadata": file.metadata,
            "prompt": None if block.prompt is None else prompt.model_dump(),
            # Which of a question's texts is its third depends on what else a row could have been matched to.
            "problems": sha256_json([[problem.id, problem.question] for problem in problems]),
        },
        Use("teacher", name, recipe.task.label, block.prompt or ""),
    )
    there = _num_stored(store, campaign)
    others: dict[str, list[Problem]] = {
        split: tasks.problems(recipe.task, split) for split in tasks.SPLITS if split != "train"
    }
    bring = partial(bring_in, store, campaign, file, Matcher(problems, others, named=block.id is not None), say)
    counts = bring()
    reasons = [{"kind": kind, "reason": why, "count": count} for (kind, why), count in counts.left_out.most_common()]
    write_json(
        run_dir / "imports.json",
        {
            **about,
            "columns": file.layout.columns(),
            "metadata": file.metadata,
            **counts.summary(),
            "finish_reasons": dict(counts.finish_reasons.most_common()),
            "left_out": reasons,
            "first": [asdict(row) for row in counts.named],
        },
    )
    if not counts.by_problem:
        first = f"  the first train question: {problems[0].question[:60]!r}"
        raise DataError("\n".join([f"{file.path}: nothing in it answers a train question", *counts.lines(), first]))
    tally = Tally()
    with judging(store, campaign, prompt) as judge:

        def rows() -> Iterator[dict[str, Any]]:
            for done, problem in enumerate(problems):
                say(done, len(problems), "grading")
                samples = _read(store, campaign, problem, counts.by_problem[problem.id], block, bring)
                for one, verdict in _judged(judge, problem, samples, block, prompt):
                    tally.add(one, verdict)
                    # A text ends with a token at least: 0 stands for a number that nobody wrote down.
                    counted = {key: getattr(one, key) or None for key in ("num_prompt_tokens", "num_tokens")}
                    yield {**asdict(one), **counted, "verdict": asdict(verdict)}

        write_jsonl(run_dir / "samples.jsonl", rows())
    by_problem = list(tally.by_problem.values())
    accepted, total = sum(right for right, _ in by_problem), sum(n for _, n in by_problem)
    new = min(total, _num_stored(store, campaign) - there)
    return {
        "model": name,
        "weights_hash": None,
        "campaign": campaign,
        "samples": total,
        "samples_new": new,
        "samples_reused": total - new,
        "pass_rate": accepted / total,
        "pass_rate_ci95": list(stats.clustered_wilson(by_problem)),
        "graded": judge.counts,
        "coverage": sum(right > 0 for right, _ in by_problem) / len(problems),
        "num_tokens": tally.num_tokens,
        "num_tokens_cancelled": 0,
        "num_tokens_generated": 0,
        "tokens_per_accepted": tally.num_tokens / accepted if tally.num_tokens and accepted else None,
        "tokens_per_second": None,
        "imported": {**about, **counts.summary(), "first_left_out": [str(row) for row in counts.named[:SHOWN]]},
    }


@dataclass(slots=True)
class Tally:
    """Counts over the samples that a run uses: (accepted, all) by problem. `num_tokens` is None once a sample does not
    tell its own."""

    by_problem: dict[str, tuple[int, int]] = field(default_factory=dict)
    num_tokens: int | None = 0

    def add(self, one: Sample, verdict: Verdict) -> None:
        right, total = self.by_problem.get(one.problem_id, (0, 0))
        self.by_problem[one.problem_id] = right + accepted(one.finish_reason, verdict), total + 1
        if one.num_tokens == 0 or self.num_tokens is None:
            self.num_tokens = None
        else:
            self.num_tokens += one.num_tokens


def _num_stored(store: SampleStore, campaign: str) -> int:
    return sum(map(len, store.indices(campaign).values()))


def _question(problem: Problem) -> Question:
    """Nobody asks it here, so no tokenizer has turned it into ids: its own bytes tell it from an edited one."""
    return Question(problem, tuple(exact(problem.question).encode()))


def _read(
    store: SampleStore, campaign: str, problem: Problem, num: int, block: ImportBlock, bring: Callable[[], Counts]
) -> list[Sample]:
    """The first n of the problem's `num` samples. One that was damaged in the store comes from the file again."""
    num = num if block.n is None else min(num, block.n)
    if num == 0:
        return []
    prompt = _question(problem).key(0).prompt_hash
    samples = store.samples(campaign, problem.id, prompt, num)
    if len(samples) < num:
        bring()
        samples = store.samples(campaign, problem.id, prompt, num)
    return samples


def _judged(
    judge: Judge, problem: Problem, samples: Sequence[Sample], block: ImportBlock, prompt: Prompt
) -> Iterator[tuple[Sample, Verdict]]:
    """Each sample with its end decided, and the verdict on it. The judge is told that every unknown end is a stop: what
    it keeps speaks of the text alone."""
    told = [replace(one, finish_reason="stop") if one.finish_reason == "unknown" else one for one in samples]
    for one, verdict in zip(samples, judge.verdicts(_question(problem), told), strict=True):
        decided = finish_reason(one, problem, block.unknown_finish, prompt)
        if one.finish_reason == "unknown" and decided != "stop":
            verdict = Verdict(False, None, "unfinished")
        yield replace(one, finish_reason=decided), verdict


def finish_reason(one: Sample, problem: Problem, unknown: Ending, prompt: Prompt) -> FinishReason:
    """How the sample's text ended: as it says, else as the recipe decides."""
    if one.finish_reason != "unknown":
        return one.finish_reason
    if unknown == "answer":
        return "stop" if ends_in_answer(whole_text(prompt, one), problem) else "length"
    return unknown


def ends_in_answer(text: str, problem: Problem) -> bool:
    """Whether the last stated answer ends the text: nothing but the rest of its own sentence and marks such as
    </answer> follow. A text that was cut inside its answer ends so too, and then states another answer than the gold
    one."""
    end = answer_end(text, problem)
    if end is None:
        return False
    tail = _MARK.sub("", text[end:])
    sentence = _SENTENCE_END.search(tail)
    rest = len(tail) if sentence is None else sentence.end()
    return rest <= LONGEST_TAIL and re.search(r"\w", tail[rest:]) is None


# ---- from the file into the store --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Why a row's question is none of train."""

    reason: str
    found: str


class Matcher:
    """Train problems by id and by question: as it stands, else without case and the like; never by a guess.

    Ids are a problem's own, as "gsm8k/train/17". Where the recipe names the column of ids (`named`), their last part
    alone counts too: in data of one's own that is the row's id. A row with an id and a question has to fit by both.
    """

    def __init__(self, problems: Sequence[Problem], others: Mapping[str, Sequence[Problem]], named: bool) -> None:
        self.problems = problems
        self._ids: dict[str, list[Problem]] = {}
        self._exact: dict[str, list[Problem]] = {}
        self._normalised: dict[str, list[Problem]] = {}
        for problem in problems:
            for id in {problem.id, problem.id.split("/", 2)[-1]} if named else {problem.id}:
                self._ids.setdefault(id, []).append(problem)
            self._exact.setdefault(exact(problem.question), []).append(problem)
            self._normalised.setdefault(normalised(problem.question), []).append(problem)
        self._elsewhere = {
            key: split for split, members in others.items() for p in members for key in (p.id, normalised(p.question))
        }

    def match(self, question: str | None, id: str | None) -> Problem | Unmatched:
        by_id = self._ids.get(id, []) if id is not None else []
        if len(by_id) == 1:
            if question is not None and normalised(question) != normalised(by_id[0].question):
                return Unmatched("the id of another question", f"{by_id[0].id}: {question[:60]!r}")
            return by_id[0]
        if question is None:
            split = self._elsewhere.get(str(id))
            reason = f"a {split} question" if split else "no such id in train"
            return Unmatched("more than one such id in train" if by_id else reason, repr(str(id)[:60]))
        found = self._exact.get(exact(question)) or self._normalised.get(normalised(question)) or []
        if len(found) > 1:
            return Unmatched("more than one such question in train", ", ".join(problem.id for problem in found[:3]))
        if not found:
            split = self._elsewhere.get(normalised(question))
            return Unmatched(f"a {split} question" if split else "no such question in train", repr(question[:60]))
        return found[0]


def bring_in(store: SampleStore, campaign: str, file: Source, matcher: Matcher, say: Progress) -> Counts:
    """Stores every rationale of the file that answers one of the problems, and counts all. What is there already stays
    as it is, so a second time changes nothing."""
    counts = Counts()
    prompts = {problem.id: _question(problem).key(0).prompt_hash for problem in matcher.problems}
    seen: dict[int, int] = {}  # hashes of rationales: the row that each came first in
    batch: list[tuple[str, Sample]] = []
    size = 0
    for number, row in file.rows():
        counts.rows += 1
        say(0, 0, f"importing, {counts.rows:,} rows")
        try:
            if isinstance(row, BadRowError):
                raise row
            question, id = _asked(row, file.layout)
            found = rationales(row, file.layout)
        except BadRowError as error:
            counts.leave_out(LeftOut(number, "bad", error.reason, error.found))
            continue
        problem = matcher.match(question, id)
        for one in found:
            if isinstance(one, BadRowError):
                counts.leave_out(LeftOut(number, "bad", one.reason, one.found))
                continue
            if isinstance(problem, Unmatched):
                counts.leave_out(LeftOut(number, "unmatched", problem.reason, problem.found))
                continue
            key = _hash(problem, one)
            if key in seen:
                counts.leave_out(LeftOut(number, "duplicate", "same question and text", f"as in row {seen[key]}"))
                continue
            seen[key] = number
            batch.append((prompts[problem.id], _sample(problem, counts.by_problem[problem.id], one)))
            counts.take(problem, one)
            size += len(one.text)
            if len(batch) == TEXTS_TO_A_COMMIT or size > CHARACTERS_TO_A_COMMIT:
                store.put(campaign, batch, ENGINE)
                batch, size = [], 0
    if batch:
        store.put(campaign, batch, ENGINE)
    return counts


def _hash(problem: Problem, one: "Rationale") -> int:
    whole = json.dumps([problem.id, one.index, one.text, one.answer_text])
    return int.from_bytes(hashlib.sha256(whole.encode()).digest()[:8], "big")


def _sample(problem: Problem, index: int, one: "Rationale") -> Sample:
    return Sample(
        *(problem.id, index, one.text, one.answer_text, one.finish_reason),
        *(one.num_prompt_tokens, one.num_tokens, one.seed),
    )


# ---- what a row says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rationale:
    """One text of a row. `word` is the file's own for how it ended; `index` the row's own, where it has one; numbers
    that it does not tell are 0."""

    text: str
    answer_text: str | None
    word: str
    finish_reason: FinishReason
    index: int | None
    num_prompt_tokens: int
    num_tokens: int
    seed: int


def rationales(row: Mapping[str, Any], layout: Layout) -> list[Rationale | BadRowError]:
    """The texts of a row, each with what the row says of it, or why it is none. Raises BadRowError where the row as a
    whole can't be read."""
    value = _cell(row, layout.text)
    texts = value if isinstance(value, list) and not _is_chat(value) else [value]
    if not texts:
        raise BadRowError("empty", layout.text)
    words = _words(row, layout.finish_reason, len(texts))
    found: list[Rationale | BadRowError] = []
    for text, word in zip(texts, words, strict=True):
        try:
            found.append(_rationale(row, layout, text, word))
        except BadRowError as error:
            found.append(error)
    return found


def _rationale(row: Mapping[str, Any], layout: Layout, value: Any, word: Any) -> Rationale:
    answer_text = row.get(layout.answer_text) if layout.answer_text else None
    ends = [_finish_reason(word)]
    if answer_text is not None and layout.answer_finish_reason:
        ends.append(_finish_reason(row.get(layout.answer_finish_reason)))
    index = _whole_number(row, layout.index)
    return Rationale(
        _text(_said(value, ASSISTANT, layout.text), layout.text),
        None if answer_text is None else _text(answer_text, str(layout.answer_text)),
        str(word),
        min(ends, key=WORST_FIRST.index),
        index,
        _whole_number(row, layout.num_prompt_tokens) or 0,
        _whole_number(row, layout.num_tokens) or 0,
        _whole_number(row, layout.seed) or 0,
    )


def _asked(row: Mapping[str, Any], layout: Layout) -> tuple[str | None, str | None]:
    """(question, id) of a row. Raises BadRowError."""
    id = row.get(layout.id) if layout.id else None
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int)):
        raise BadRowError("wrong type", f"{layout.id} is {kind_of(id)}, not text or a whole number")
    if layout.question is None or (id is not None and row.get(layout.question) is None):
        if id is None:
            raise BadRowError("empty", str(layout.id))
        return None, str(id)
    question = _text(_said(_cell(row, layout.question), USER, layout.question), layout.question)
    return question, None if id is None else str(id)


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRowError("column missing", f"no {column!r} among {', '.join(map(ascii, row))[:200]}")
    if row[column] is None:
        raise BadRowError("empty", column)
    return row[column]


def _text(value: Any, what: str) -> str:
    if value is None:
        raise BadRowError("empty", what)
    if not isinstance(value, str):
        raise BadRowError("wrong type", f"{what} is {kind_of(value)}, not text")
    if not value.strip():
        raise BadRowError("empty", what)
    if len(value) > MAX_ROW_BYTES:
        raise BadRowError("too long", f"{what} has {len(value):,} characters")
    return storable(value)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _said(value: Any, who: Sequence[str], what: str) -> Any:
    """The value, or where it is a chat what `who` says there: {role, content} or {from, value}. Raises BadRowError for
    a chat of more than one question, because nobody can tell which the answer is of."""
    if not _is_chat(value):
        return value
    said = []
    for turn in value:
        if not isinstance(turn, dict):
            raise BadRowError("not a chat", f"{what} holds {kind_of(turn)} among its turns")
        role = turn.get("role", turn.get("from"))
        if role in who:
            said.append(_content(turn.get("content", turn.get("value")), what))
    if len(said) != 1:
        raise BadRowError("not a chat of one question", f"{what} has {len(said)} turns of the {who[0]}")
    return said[0]


def _content(value: Any, what: str) -> Any:
    """The text of a turn, which may come in parts."""
    if not isinstance(value, list):
        return value
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
    if not all(isinstance(part, str) for part in parts):
        raise BadRowError("wrong type", f"{what} holds a part that is not text")
    return "".join(str(part) for part in parts)


def _words(row: Mapping[str, Any], column: str | None, count: int) -> list[Any]:
    """How each of the row's texts ended, in the file's own word."""
    value = row.get(column) if column else None
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise BadRowError("wrong length", f"{len(value)} {column} for {count} texts")
    return value


def _finish_reason(word: Any) -> FinishReason:
    if word is None:
        return "unknown"
    if not isinstance(word, str) or word.strip().lower() not in FINISH_REASONS:
        found = repr(word[:60]) if isinstance(word, str) else kind_of(word)
        raise BadRowError("unknown finish_reason", f"{found}; one of {', '.join(FINISH_REASONS)}, or null")
    return FINISH_REASONS[word.strip().lower()]


def _whole_number(row: Mapping[str, Any], column: str | None) -> int | None:
    value = row.get(column) if column else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
