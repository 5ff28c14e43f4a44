"""A sampling run: draws what the store lacks, keeps every sample the moment it is finished."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fcot_lite.engines import Completion, Engine, Request
from fcot_lite.errors import DataError
from fcot_lite.prompts import Prompt, Rendered, completion_ids, end_of_turn_id, prompt_ids
from fcot_lite.recipe import EngineBlock, Sampling
from fcot_lite.records import FinishReason, Problem, Sample
from fcot_lite.store import SampleKey, SampleStore, Use, derive_seed, prompt_hash, storable

# Engine options that shape speed and memory but no text; any other is part of a campaign's identity.
SPEED_ONLY = {
    *("block_size", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager", "max_num_batched_tokens"),
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size", "disable_log_stats"),
}

ANSWER_MAX_TOKENS = 128  # of the second call, where a prompt has an answer_trigger: the paper's
GIVEN_UP = ("abort", "error")  # by the engine itself
WORST_FIRST: tuple[FinishReason, ...] = ("error", "abort", "length", "repetition", "stop")
SECONDS_TO_FINISH = 6  # what is under way gets this much after Ctrl-C, of the ten that the run waits for a stage

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A problem as one model is asked it."""

    problem: Problem
    prompt_token_ids: tuple[int, ...]

    def key(self, sample_index: int) -> SampleKey:
        return SampleKey(self.problem.id, prompt_hash(self.prompt_token_ids), sample_index)


@dataclass(frozen=True, slots=True)
class Campaign:
    """A sampling run's identity and what it passes to the engine."""

    hash: str
    sampling: Sampling
    stop_token_ids: tuple[int, ...]
    use_adapter: bool = False
    tokenizer: Any = None
    answer_trigger: str | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """`samples[i]` are the samples of question i, by index. Times and tokens are of this call alone."""

    samples: list[list[Sample]]
    new: int
    reused: int
    num_tokens_new: int
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
    )


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
    n: int,
    *,
    start_engine: Callable[[], Engine],
    max_num_seqs: int,
    progress: Progress,
    what: str = "samples",
) -> Drawn:
    """n samples of every question, from the store where they are there. The engine is started only if some are missing.

    On an interrupt what is under way gets SECONDS_TO_FINISH, what is finished is kept, and the tokens of the rest are
    counted as cancelled.
    """
    have = store.read(campaign.hash)
    wanted = [(question, index) for question in asked for index in range(n)]
    pending = [(q, i) for q, i in wanted if q.key(i) not in have]
    reused, new, num_tokens, seconds = len(wanted) - len(pending), 0, 0, 0.0
    if pending:
        progress(reused, len(wanted), "loading the model")
        engine = start_engine()
        started = time.monotonic()
        tokens_before = engine.num_tokens_generated()
        work = {"/".join(map(str, (campaign.hash, *q.key(i)))): (q, i) for q, i in pending}
        queue = iter(work.items())
        in_flight: dict[str, tuple[Question, int, Completion | None]] = {}  # with the rationale, in a second call
        done_all = False
        window = 4 * max_num_seqs  # enough that the engine never waits for us, little enough to stop quickly

        def keep(completions: Sequence[Completion]) -> None:
            nonlocal new, num_tokens, seconds
            finished = []
            for done in completions:
                question, index, rationale = in_flight.pop(done.key)
                if campaign.answer_trigger is not None and rationale is None and done.finish_reason not in GIVEN_UP:
                    request = _answer_request(campaign, question, done)
                    in_flight[request.key] = question, index, done
                    engine.submit([request])
                else:
                    key = question.key(index)
                    finished.append((key, _sample(question, index, derive_seed(campaign.hash, key), rationale, done)))
            if finished:
                # What the engine itself gave up counts for this run only: the next one asks again.
                whole = [(key.prompt_hash, s) for key, s in finished if s.finish_reason not in GIVEN_UP]
                store.put(campaign.hash, whole, engine.version)
                have.update(finished)
                new += len(finished)
                num_tokens += sum(sample.num_tokens for _, sample in finished)
            seconds = time.monotonic() - started
            progress(reused + new, len(wanted), f"{what}, {num_tokens / max(seconds, 1e-9):.0f} tok/s")

        try:
            while True:
                batch = [item for item in (next(queue, None) for _ in range(window - len(in_flight))) if item]
                in_flight.update((key, (question, index, None)) for key, (question, index) in batch)
                if batch:
                    engine.submit([_request(campaign, key, question, index) for key, (question, index) in batch])
                if not in_flight:
                    done_all = True
                    break
                keep(engine.poll(timeout=1.0))
        except KeyboardInterrupt:
            # What has not begun is dropped at once; what is under way gets a few seconds to finish.
            waiting = list(in_flight)[max_num_seqs:]
            engine.cancel(waiting)
            for key in waiting:
                del in_flight[key]
            until = time.monotonic() + SECONDS_TO_FINISH
            while in_flight and time.monotonic() < until:
                keep(engine.poll(timeout=1.0))
            engine.cancel(list(in_flight))
            raise
        finally:
            if not done_all:
                store.add_cancelled(campaign.hash, engine.num_tokens_generated() - tokens_before - num_tokens)
    samples = [[have[question.key(index)] for index in range(n)] for question in asked]
    return Drawn(samples, new, reused, num_tokens, seconds)


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


def _request(campaign: Campaign, key: str, question: Question, index: int) -> Request:
    seed = derive_seed(campaign.hash, question.key(index))
    return Request(
        key, question.prompt_token_ids, campaign.sampling, seed, campaign.stop_token_ids, campaign.use_adapter
    )
