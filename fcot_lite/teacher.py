"""A sampling run: draws what the store lacks, keeps every sample the moment it is finished."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fcot_lite import tasks
from fcot_lite.budget import Fixed, Policy, Schedule
from fcot_lite.engines import Completion, Engine, Request
from fcot_lite.errors import DataError
from fcot_lite.finish_reasons import WORST_FIRST
from fcot_lite.interrupts import undisturbed
from fcot_lite.prompts import ANSWER_FORMS, Prompt, Rendered, completion_ids, end_of_turn_id, prompt_ids, render
from fcot_lite.recipe import EngineBlock, Sampling
from fcot_lite.records import Problem, Sample
from fcot_lite.store import SampleKey, SampleStore, Use, derive_seed, prompt_hash, storable
from fcot_lite.task_block import TaskBlock

# Engine options that shape speed and memory but no text; any other is part of a campaign's identity.
SPEED_ONLY = {
    *("block_size", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager", "max_num_batched_tokens"),
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size", "disable_log_stats"),
}

ANSWER_MAX_TOKENS = 128  # of the second call, where a prompt has an answer_trigger: the paper's
GIVEN_UP = ("abort", "error")  # by the engine itself
SECONDS_TO_FINISH = 6  # what is under way gets this much after Ctrl-C, of the ten that the run waits for a stage
SECONDS_OF_A_POLL = 0.5  # for so long Ctrl-C waits at most, but for the engine's own step

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A problem as one model is asked it."""

    problem: Problem
    prompt_token_ids: tuple[int, ...]

    def key(self, sample_index: int) -> SampleKey:
        return SampleKey(self.problem.id, prompt_hash(self.prompt_token_ids), sample_index)


Accepted = Callable[[Question, Sample], bool]


@dataclass(frozen=True, slots=True)
class Campaign:
    """A sampling run's identity and what it passes to the engine. `description` is what the hash is of."""

    hash: str
    sampling: Sampling
    stop_token_ids: tuple[int, ...]
    use_adapter: bool = False
    tokenizer: Any = None
    answer_trigger: str | None = None
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the policy used: of question i the samples with an index below `prefixes[i]`. They are in the store, but for
    those that the engine `gave_up`. Times, tokens and `new` are of this call alone, `reused` the others that are used;
    an early stop leaves some new ones that are not."""

    prefixes: list[int]
    gave_up: dict[SampleKey, Sample]
    new: int
    reused: int
    num_tokens_new: int
    num_tokens_cancelled: int
    wall_seconds: float


def open_campaign(
    store: SampleStore,
    *,
    weights_hash: str,
    prompt: Prompt,
    sampling: Sampling,
    engine: EngineBlock,
    tokenizer: Any,
    adapter_hash: str | None = None,
    use: Use | None = None,
) -> Campaign:
    """Registers everything that shapes the texts: the weights, the prompt, the sampling parameters."""
    stop_token_ids = (end_of_turn_id(tokenizer),)
    sampling = sampling.model_copy(update={"stop": [*sampling.stop, *prompt.stop]})
    description = {
        "weights": weights_hash,
        "adapter": adapter_hash,
        "engine": {k: v for k, v in (engine.model_extra or {}).items() if k not in SPEED_ONLY},
        "prompt": prompt.identity(),
        "sampling": sampling.model_dump(),
        "stop_token_ids": list(stop_token_ids),
    }
    return Campaign(
        store.add_campaign(description, use),
        sampling,
        stop_token_ids,
        adapter_hash is not None,
        tokenizer,
        prompt.answer_trigger,
        description,
    )


def novelty(store: SampleStore, campaign: Campaign, asked: Sequence[Question]) -> str | None:
    """How a sampling run that has nothing in the store differs from the nearest one that has samples of the same
    questions; None where it goes on with its own, or is the first."""
    if not asked or store.indices(campaign.hash):
        return None
    others = store.other_campaigns(campaign.hash, asked[0].problem.id)
    differing = {other: _differences(campaign.description, description) for other, description in others.items()}
    if not differing:
        return None
    nearest = min(differing, key=lambda other: len(differing[other]))
    return (
        f"a new sampling run {campaign.hash[:8]}, which starts at nothing: it differs from {nearest[:8]} in "
        f"{', '.join(differing[nearest])}"
    )


def _differences(new: Mapping[str, Any], old: Mapping[str, Any], path: str = "") -> list[str]:
    lines = []
    for key in sorted({*new, *old}):
        now, was = new.get(key), old.get(key)
        if isinstance(now, Mapping) and isinstance(was, Mapping):
            lines += _differences(now, was, f"{path}{key}.")
        elif now != was:
            short = len(f"{was}{now}") < 40 and key != "weights"  # a hash or a prompt tells nobody anything
            lines.append(f"{path}{key} ({was} → {now})" if short else f"{path}{key}")
    return lines


def rendered(task: TaskBlock, prompt: Prompt, problems: Sequence[Problem]) -> list[Rendered]:
    """The problems as a model is asked them: teacher, trained and untrained student alike."""
    solved = tasks.examples(task, prompt.examples)
    return [render(prompt, problem.question, solved, ANSWER_FORMS[problem.answer_kind]) for problem in problems]


def questions(
    tokenizer: Any,
    problems: Sequence[Problem],
    rendered: Sequence[Rendered],
    sampling: Sampling,
    engine: EngineBlock,
    answer_trigger: str | None = None,
) -> list[Question]:
    """The problems as token ids. Raises DataError where a prompt leaves no room for max_tokens, and for the answer
    where it is asked for in a second call."""
    asked = []
    room = engine.max_model_len - sampling.max_tokens
    if answer_trigger is not None:
        room -= ANSWER_MAX_TOKENS + len(completion_ids(tokenizer, answer_trigger))
    for problem, chat in zip(problems, rendered, strict=True):
        ids = prompt_ids(tokenizer, chat, problem.id)
        if len(ids) > room:
            raise DataError(
                f"{problem.id}: the prompt has {len(ids)} tokens, but engine.max_model_len - sampling.max_tokens "
                f"leaves {room}; raise engine.max_model_len"
            )
        asked.append(Question(problem, ids))
    return asked


def draw(
    store: SampleStore,
    campaign: Campaign,
    asked: Sequence[Question],
    policy: Policy,
    *,
    accepted: Accepted | None = None,
    start_engine: Callable[[], Engine],
    max_num_seqs: int,
    progress: Progress,
    what: str = "samples",
    usd_per_hour: float | None = None,
) -> Drawn:
    """As many samples of every question as the policy wants, from the store where they are there. The engine is started
    only if some are missing. `accepted` says whether a sample may teach; without it, none does.

    On an interrupt what is under way gets SECONDS_TO_FINISH, what is finished is kept, and the tokens of the rest are
    counted as cancelled.
    """
    there = store.indices(campaign.hash)
    known = [_known(store, campaign, question, there, policy, accepted) for question in asked]
    num_known = sum(map(len, known))
    schedule = Schedule(policy, known)
    del known
    status = _Status(what, usd_per_hour, graded=accepted is not None)
    gave_up: dict[SampleKey, Sample] = {}
    new, num_tokens, num_tokens_cancelled, seconds = 0, 0, 0, 0.0
    if schedule.is_open():
        progress(num_known, num_known + schedule.num_expected(), "loading the model")
        engine = start_engine()
        started = time.monotonic()
        tokens_before = engine.num_tokens_generated()
        in_flight: dict[str, tuple[int, int, Completion | None]] = {}  # with the rationale, in a second call
        done_all = any_dropped = False
        window = 4 * max_num_seqs  # enough that the engine never waits for us, little enough to stop quickly

        def keep(completions: Sequence[Completion]) -> list[tuple[int, Sample]]:
            """Stores and counts the samples that are whole, and asks for the answers of the others."""
            nonlocal new, num_tokens, seconds
            finished = []
            for done in completions:
                number, index, rationale = in_flight.pop(done.key)
                question = asked[number]
                if campaign.answer_trigger is not None and rationale is None and done.finish_reason not in GIVEN_UP:
                    request = _answer_request(campaign, question, done)
                    in_flight[request.key] = number, index, done
                    engine.submit([request])
                else:
                    key = question.key(index)
                    sample = _sample(question, index, derive_seed(campaign.hash, key), rationale, done)
                    finished.append((number, key, sample))
            before, seconds = seconds, time.monotonic() - started
            if finished:
                # What the engine itself gave up counts for this run only: the next one asks again.
                gave_up.update((key, s) for _, key, s in finished if s.finish_reason in GIVEN_UP)
                whole = [(key.prompt_hash, s) for _, key, s in finished if s.finish_reason not in GIVEN_UP]
                store.put(campaign.hash, whole, engine.version, seconds - before)
                new += len(finished)
                num_tokens += sum(sample.num_tokens for _, _, sample in finished)
            return [(number, sample) for number, _, sample in finished]

        def settle(finished: Sequence[tuple[int, Sample]]) -> None:
            """Tells the policy how good they are, and drops what it no longer wants."""
            nonlocal any_dropped
            for number, sample in finished:
                right = False
                if accepted is not None and schedule.is_open(number):
                    right = sample.finish_reason not in GIVEN_UP and accepted(asked[number], sample)
                    status.grade(number, right)
                dropped = schedule.record(number, sample.sample_index, right)
                calls = [c for i in dropped for c in _calls(campaign, asked[number], i) if c in in_flight]
                if calls:
                    engine.cancel(calls)
                    any_dropped = True
                for call in calls:
                    del in_flight[call]
            total = num_known + new + schedule.num_expected()
            progress(num_known + new, total, status.note(new, total - num_known - new, num_tokens, seconds))

        try:
            while True:
                # An interrupt comes when the round is over: all that has finished is then stored, and counted once.
                with undisturbed():
                    batch = schedule.take(max_num_seqs, window)
                    requests = [_request(campaign, asked[number], index) for number, index in batch]
                    in_flight.update((r.key, (*item, None)) for r, item in zip(requests, batch, strict=True))
                    if requests:
                        engine.submit(requests)
                    if not in_flight:
                        done_all = True
                        break
                    finished = keep(engine.poll(SECONDS_OF_A_POLL))
                settle(finished)
        except KeyboardInterrupt:
            # What has not begun is dropped at once; what is under way gets a few seconds to finish.
            waiting = list(in_flight)[max_num_seqs:]
            engine.cancel(waiting)
            for key in waiting:
                del in_flight[key]
            until = time.monotonic() + SECONDS_TO_FINISH
            while in_flight and time.monotonic() < until:
                with undisturbed():
                    finished = keep(engine.poll(SECONDS_OF_A_POLL))
                settle(finished)
            engine.cancel(list(in_flight))
            raise
        finally:
            if any_dropped or not done_all:
                num_tokens_cancelled = engine.num_tokens_generated() - tokens_before - num_tokens
                store.add_cancelled(campaign.hash, num_tokens_cancelled)
    used = zip(asked, schedule.prefixes, strict=True)
    reused = sum(sum(i < n for i in there.get(q.key(0)[:2], ())) for q, n in used)
    return Drawn(schedule.prefixes, gave_up, new, reused, num_tokens, num_tokens_cancelled, seconds)


def drawn_samples(
    store: SampleStore, campaign: Campaign, asked: Sequence[Question], drawn: Drawn
) -> Iterator[list[Sample]]:
    """For each question the samples that the policy used, in order, read one question at a time. A list is too short
    where a stored sample turns out to be damaged: it was set aside, and another `draw` makes it again."""
    for question, n in zip(asked, drawn.prefixes, strict=True):
        key = question.key(0)
        stored = {s.sample_index: s for s in store.samples(campaign.hash, key.problem_id, key.prompt_hash, n)}
        lost = {i: s for i in range(n) if i not in stored and (s := drawn.gave_up.get(question.key(i)))}
        yield [sample for _, sample in sorted((stored | lost).items())]


def _known(
    store: SampleStore,
    campaign: Campaign,
    question: Question,
    there: Mapping[tuple[str, str], Collection[int]],
    policy: Policy,
    accepted: Accepted | None,
) -> dict[int, bool]:
    """The question's samples in the store. They are read and graded only where the policy asks how good they are."""
    key = question.key(0)
    indices = there.get((key.problem_id, key.prompt_hash), ())
    if not indices or isinstance(policy, Fixed) or accepted is None:
        return {index: False for index in indices if index < policy.max}
    samples = store.samples(campaign.hash, key.problem_id, key.prompt_hash, policy.max)
    return {sample.sample_index: accepted(question, sample) for sample in samples}


class _Status:
    """What a sampling run says of itself: of the samples that it graded, and what they cost."""

    def __init__(self, what: str, usd_per_hour: float | None, graded: bool) -> None:
        self._what, self._usd_per_hour, self._says_accepted = what, usd_per_hour, graded
        self._graded = self._accepted = 0
        self._questions: set[int] = set()
        self._covered: set[int] = set()

    def grade(self, number: int, accepted: bool) -> None:
        self._graded += 1
        self._accepted += accepted
        self._questions.add(number)
        if accepted:
            self._covered.add(number)

    def note(self, new: int, left: int, num_tokens: int, seconds: float) -> str:
        parts = [self._what]
        if self._says_accepted and self._graded:
            coverage = len(self._covered) / len(self._questions)
            parts += [f"{self._accepted / self._graded:.0%} accepted", f"coverage {coverage:.0%}"]
        parts.append(f"{num_tokens / max(seconds, 1e-9):.0f} tok/s")
        if self._accepted:
            parts.append(f"{num_tokens / self._accepted:.0f} tokens per accepted")
        if self._usd_per_hour is not None:
            parts.append(f"{seconds / 3600 * self._usd_per_hour:.4f} USD")
        if new and left:
            parts.append(f"{left / new * seconds / 60:.0f} min left")
        return ", ".join(parts)


def _sample(question: Question, index: int, seed: int, rationale: Completion | None, last: Completion) -> Sample:
    """One call's sample, or that of two: then the finish reason is the worse of the two."""
    if rationale is None:
        text, answer_text, reasons, prompt_tokens, num_tokens = last.text, None, [last], last.num_prompt_tokens, 0
    else:
        text, answer_text, reasons = rationale.text, storable(last.text), [rationale, last]
        prompt_tokens, num_tokens = rationale.num_prompt_tokens, rationale.num_tokens
    worst = min((call.finish_reason for call in reasons), key=WORST_FIRST.index)
    return Sample(
        question.problem.id,
        index,
        storable(text),
        answer_text,
        worst,
        prompt_tokens,
        num_tokens + last.num_tokens,
        seed,
    )


def _answer_request(campaign: Campaign, question: Question, rationale: Completion) -> Request:
    """The paper's second call: the prompt, the rationale and the trigger, answered greedily."""
    *said, _ = completion_ids(campaign.tokenizer, f"{rationale.text}{campaign.answer_trigger}")
    # Without a repetition penalty: the answer stands in the rationale and must be said again. Rationales that were cut
    # off are asked for theirs too, as in the paper, whose own grading counts them.
    greedy = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    sampling = campaign.sampling.model_copy(update={**greedy, "max_tokens": ANSWER_MAX_TOKENS})
    ids = (*question.prompt_token_ids, *said)
    return Request(f"{rationale.key}/answer", ids, sampling, 0, campaign.stop_token_ids, campaign.use_adapter)


def _request(campaign: Campaign, question: Question, index: int) -> Request:
    key, *_ = _calls(campaign, question, index)
    seed = derive_seed(campaign.hash, question.key(index))
    return Request(
        key, question.prompt_token_ids, campaign.sampling, seed, campaign.stop_token_ids, campaign.use_adapter
    )


def _calls(campaign: Campaign, question: Question, index: int) -> tuple[str, str]:
    """What the engine knows a sample by: its first call, and the one for the answer."""
    key = "/".join(map(str, (campaign.hash, *question.key(index))))
    return key, f"{key}/answer"
