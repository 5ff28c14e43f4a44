"""From the file into the store: each rationale is matched to a problem, or counted and named as left out."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fcot_lite.imported.layouts import Source
from fcot_lite.imported.rows import Rationale, asked, rationales
from fcot_lite.records import Problem, Sample
from fcot_lite.store import SampleStore
from fcot_lite.tasks.rows import BadRowError
from fcot_lite.tasks.splits import exact, normalised
from fcot_lite.teacher import Progress, Question

ENGINE = "import"  # in the store's column of what made a sample
TEXTS_TO_A_COMMIT, CHARACTERS_TO_A_COMMIT = 1_000, 10_000_000
NAMED = 1_000  # rows that were left out are named in imports.json up to here, and counted beyond
SHOWN = 5


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

    def take(self, problem: Problem, one: Rationale) -> None:
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
    prompts = {problem.id: question_of(problem).key(0).prompt_hash for problem in matcher.problems}
    seen: dict[int, int] = {}  # hashes of rationales: the row that each came first in
    batch: list[tuple[str, Sample]] = []
    size = 0
    for number, row in file.rows():
        counts.rows += 1
        say(0, 0, f"importing, {counts.rows:,} rows")
        try:
            if isinstance(row, BadRowError):
                raise row
            question, id = asked(row, file.layout)
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


def question_of(problem: Problem) -> Question:
    """Nobody asks it here, so no tokenizer has turned it into ids: its own bytes tell it from an edited one."""
    return Question(problem, tuple(exact(problem.question).encode()))


def _hash(problem: Problem, one: Rationale) -> int:
    whole = json.dumps([problem.id, one.index, one.text, one.answer_text])
    return int.from_bytes(hashlib.sha256(whole.encode()).digest()[:8], "big")


def _sample(problem: Problem, index: int, one: Rationale) -> Sample:
    return Sample(
        *(problem.id, index, one.text, one.answer_text, one.finish_reason),
        *(one.num_prompt_tokens, one.num_tokens, one.seed),
    )
