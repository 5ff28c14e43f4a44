"""Rationales that somebody already paid for: the rows of a file in place of a teacher that is asked.

Each rationale is matched to a train problem by id or by the whole question, goes into the sample store under a campaign
that names the file's hash, and is judged by the grader that judges every sample; what others found correct is not
asked. Every rationale is exactly one of imported, unmatched, duplicate and bad; imports.json counts and names them.

Where a row does not say how its text ended, the store keeps "unknown". The recipe decides what that means when the
samples are read, not when they are stored and not in the grader: so another decision neither stores the texts again nor
asks for other verdicts, and to whoever forgets to decide an unknown end is an unfinished text.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fcot_lite import stats, tasks
from fcot_lite.answers import accepted, answer_end
from fcot_lite.errors import DataError
from fcot_lite.files import sha256_json, write_json, write_jsonl
from fcot_lite.imported.layouts import source
from fcot_lite.imported.matching import SHOWN, Counts, Matcher, bring_in, question_of
from fcot_lite.prompts import Prompt, whole_text
from fcot_lite.recipe import ImportBlock, Recipe
from fcot_lite.records import FinishReason, Problem, Sample, Verdict
from fcot_lite.store import SampleStore, Use
from fcot_lite.teacher import Progress
from fcot_lite.verdicts import Judge, judging

LONGEST_TAIL = 80  # characters of its own sentence that may follow an answer: its unit, the text of its option

Ending = Literal["answer", "stop", "length"]
_MARK = re.compile(r"</?\w{1,30}>|<\|\w{1,30}\|>")  # </answer>, <|end_of_solution|>
_SENTENCE_END = re.compile(r"[.!?][^\w\s]{0,5}(?:\s|\Z)|\n")


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
        "samples_unfinished": tally.unfinished,
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
    unfinished: int = 0

    def add(self, one: Sample, verdict: Verdict) -> None:
        right, total = self.by_problem.get(one.problem_id, (0, 0))
        self.by_problem[one.problem_id] = right + accepted(one.finish_reason, verdict), total + 1
        self.unfinished += one.finish_reason == "length"
        if one.num_tokens == 0 or self.num_tokens is None:
            self.num_tokens = None
        else:
            self.num_tokens += one.num_tokens


def _num_stored(store: SampleStore, campaign: str) -> int:
    return sum(map(len, store.indices(campaign).values()))


def _read(
    store: SampleStore, campaign: str, problem: Problem, num: int, block: ImportBlock, bring: Callable[[], Counts]
) -> list[Sample]:
    """The first n of the problem's `num` samples. One that was damaged in the store comes from the file again."""
    num = num if block.n is None else min(num, block.n)
    if num == 0:
        return []
    prompt = question_of(problem).key(0).prompt_hash
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
    for one, verdict in zip(samples, judge.verdicts(question_of(problem), told), strict=True):
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
