"""A sampling run: interrupted anywhere and resumed it is the uninterrupted run, and asks nothing twice."""

import re
import signal
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_engine import Answer, FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import teacher
from fcot_lite.budget import Fixed, Policy, Until, prefix
from fcot_lite.engines import Completion
from fcot_lite.errors import DataError, EngineError
from fcot_lite.prompts import Prompt
from fcot_lite.recipe import EngineBlock, Sampling
from fcot_lite.records import Problem, Sample
from fcot_lite.store import SampleKey, SampleStore, derive_seed
from fcot_lite.teacher import Accepted, Campaign, Drawn, Question, draw, drawn_samples, novelty

SAMPLING = Sampling(max_tokens=20, temperature=0.7)
ASKED = [Question(Problem(f"p/{i}", f"{i} + {i}?", str(2 * i)), (1, 2, i)) for i in range(5)]


class Drew(NamedTuple):
    """What came back, and the samples it stands for."""

    drawn: Drawn
    samples: list[list[Sample]]
    new: int
    reused: int
    num_tokens_new: int


@dataclass
class Bench:
    """A store and what it takes to draw from it. `shown` is what progress was told."""

    store: SampleStore
    shown: list[tuple[int, int, str]]

    def campaign(self, description: str = "a") -> Campaign:
        return Campaign(self.store.add_campaign({"weights": description}), SAMPLING, (2,))

    def draw(
        self,
        policy: int | Policy,
        engine: FakeEngine | None,
        *,
        max_num_seqs: int = 2,
        campaign: str = "a",
        accepted: Accepted | None = None,
        usd_per_hour: float | None = None,
    ) -> Drew:
        def start() -> FakeEngine:
            assert engine is not None, "nothing was missing, so no engine was needed"
            return engine

        drawn = draw(
            self.store,
            self.campaign(campaign),
            ASKED,
            Fixed(n=policy) if isinstance(policy, int) else policy,
            accepted=accepted,
            start_engine=start,
            max_num_seqs=max_num_seqs,
            progress=lambda *message: self.shown.append(message),
            usd_per_hour=usd_per_hour,
        )
        samples = list(drawn_samples(self.store, self.campaign(campaign), ASKED, drawn))
        return Drew(drawn, samples, drawn.new, drawn.reused, drawn.num_tokens_new)


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    with SampleStore(tmp_path / "samples.sqlite") as store:
        yield Bench(store, [])


def straight(tmp_path: Path, n: int) -> list[list[Sample]]:
    with SampleStore(tmp_path / "straight.sqlite") as store:
        return Bench(store, []).draw(n, FakeEngine()).samples


def asked_for(engine: FakeEngine) -> list[tuple[tuple[int, ...], int]]:
    return [(request.prompt_token_ids, request.seed) for request in engine.submitted]


def test_every_question_gets_its_own_samples_in_order(bench: Bench) -> None:
    engine = FakeEngine()
    drawn = bench.draw(3, engine)
    assert (drawn.new, drawn.reused) == (15, 0)
    for question, samples in zip(ASKED, drawn.samples, strict=True):
        assert [s.sample_index for s in samples] == [0, 1, 2]
        assert {s.problem_id for s in samples} == {question.problem.id}
        # The fake writes seed and prompt into its answer: a mixed-up one would not fit.
        assert [s.text for s in samples] == [f"{s.seed} {question.prompt_token_ids}" for s in samples]
    assert drawn.num_tokens_new == sum(s.num_tokens for row in drawn.samples for s in row)
    assert all((r.sampling, r.stop_token_ids, r.use_adapter) == (SAMPLING, (2,), False) for r in engine.submitted)
    assert bench.store.num_tokens_cancelled(bench.campaign().hash) == 0


def test_raising_n_draws_only_the_difference(bench: Bench) -> None:
    two = bench.draw(2, FakeEngine())
    engine = FakeEngine()
    four = bench.draw(4, engine)
    assert [row[:2] for row in four.samples] == two.samples
    assert (four.new, four.reused, len(engine.submitted)) == (10, 10, 10)
    assert not {s.seed for row in two.samples for s in row} & {r.seed for r in engine.submitted}
    # The other way round: a straight n = 4 asks for the same.
    with SampleStore(bench.store.path.with_name("straight")) as store:
        assert Bench(store, []).draw(4, FakeEngine()).samples == four.samples


def test_no_engine_is_started_when_nothing_is_missing(bench: Bench) -> None:
    first = bench.draw(2, FakeEngine())
    for n in (2, 1):
        again = bench.draw(n, None)
        assert again.samples == [row[:n] for row in first.samples]
        assert (again.new, again.reused, again.num_tokens_new) == (0, 5 * n, 0)


def test_another_campaign_shares_nothing(bench: Bench) -> None:
    bench.draw(2, FakeEngine())
    engine = FakeEngine()
    assert bench.draw(2, engine, campaign="b").new == 10
    assert len(engine.submitted) == 10


def test_another_prompt_of_the_same_problem_is_drawn_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.draw(1, FakeEngine())
    edited = [replace(ASKED[0], prompt_token_ids=(9, 9)), *ASKED[1:]]
    monkeypatch.setattr("test_teacher.ASKED", edited)
    engine = FakeEngine()
    assert bench.draw(1, engine).new == 1
    assert [request.prompt_token_ids for request in engine.submitted] == [(9, 9)]


@pytest.fixture(autouse=True)
def no_time_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "SECONDS_TO_FINISH", 0)


def test_after_an_interrupt_what_is_under_way_finishes_and_what_waits_is_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "SECONDS_TO_FINISH", 60)
    engine = FakeEngine(interrupted_at_poll=2)
    with pytest.raises(KeyboardInterrupt):
        bench.draw(3, engine, max_num_seqs=2)  # a window of 8, of which 2 are under way
    finished = len(bench.store.read(bench.campaign().hash))
    assert finished == 3 + 2
    assert len(engine.submitted) == 8 + 3, "nothing new is begun"
    assert len(engine.cancelled) == len(engine.submitted) - finished
    assert bench.draw(3, FakeEngine()).reused == finished


def test_a_second_interrupt_ends_the_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "SECONDS_TO_FINISH", 1000)

    class Stuck(FakeEngine):
        def poll(self, timeout: float) -> list[Completion]:
            if self.polls >= 2:
                self.polls += 1
                if self.polls == 5:
                    raise KeyboardInterrupt
                return []
            return super().poll(timeout)

    engine = Stuck(interrupted_at_poll=2)
    with pytest.raises(KeyboardInterrupt):
        bench.draw(3, engine)
    assert engine.polls == 5


def polls_of_a_whole_run(tmp_path: Path) -> int:
    engine = FakeEngine()
    with SampleStore(tmp_path / "whole.sqlite") as store:
        Bench(store, []).draw(3, engine)
    return engine.polls


@pytest.mark.parametrize("fault", ["interrupted_at_poll", "dies_at_poll"])
def test_stopped_at_any_poll_and_resumed(tmp_path: Path, fault: str) -> None:
    polls = polls_of_a_whole_run(tmp_path)
    assert polls > 6
    expected = straight(tmp_path, 3)
    for k in range(1, polls + 1):
        with SampleStore(tmp_path / f"{k}.sqlite") as store:
            bench = Bench(store, [])
            stopped, resumed = FakeEngine(**{fault: k}), FakeEngine()
            with pytest.raises(KeyboardInterrupt if fault == "interrupted_at_poll" else EngineError):
                bench.draw(3, stopped)
            kept = store.read(bench.campaign().hash)
            cancelled = store.num_tokens_cancelled(bench.campaign().hash)
            drawn = bench.draw(3, resumed)
            assert drawn.samples == expected
            assert (drawn.reused, drawn.new) == (len(kept), 15 - len(kept))
            # Nothing is asked twice: what the first run finished, the second does not ask for.
            assert len(resumed.submitted) == 15 - len(kept)
            assert not {s.seed for s in kept.values()} & {request.seed for request in resumed.submitted}
            # Every token is either in a sample or counted as cancelled, and the second run cancels none.
            assert stopped.num_tokens_generated() == cancelled + sum(s.num_tokens for s in kept.values())
            assert cancelled > 0 or len(kept) == 15
            assert store.num_tokens_cancelled(bench.campaign().hash) == cancelled


def test_interrupted_again_and_again(tmp_path: Path, bench: Bench) -> None:
    engines = []
    while True:
        engines.append(FakeEngine(interrupted_at_poll=2))
        try:
            drawn = bench.draw(3, engines[-1])
            break
        except KeyboardInterrupt:
            continue
    assert drawn.samples == straight(tmp_path, 3)
    assert len(engines) == 5  # a poll of three samples each
    samples = sum(s.num_tokens for row in drawn.samples for s in row)
    cancelled = bench.store.num_tokens_cancelled(bench.campaign().hash)
    assert sum(engine.num_tokens_generated() for engine in engines) == samples + cancelled


def test_an_interrupt_cancels_what_is_in_flight(bench: Bench) -> None:
    engine = FakeEngine(interrupted_at_poll=2)
    with pytest.raises(KeyboardInterrupt):
        bench.draw(3, engine)
    finished = len(bench.store.read(bench.campaign().hash))
    assert len(engine.cancelled) == len(engine.submitted) - finished > 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_while_samples_are_stored_loses_none_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(teacher, "SECONDS_TO_FINISH", 0)
    engine = FakeEngine()
    put = SampleStore.put

    def interrupted(store: SampleStore, *arguments: Any) -> None:
        if engine.polls == 2 and moment == "before":
            signal.raise_signal(signal.SIGINT)
        put(store, *arguments)
        if engine.polls == 2 and moment == "after":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SampleStore, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.draw(3, engine)
    kept = bench.store.read(bench.campaign().hash)
    assert len(kept) == 6, "those of both polls"
    cancelled = bench.store.num_tokens_cancelled(bench.campaign().hash)
    assert engine.num_tokens_generated() == cancelled + sum(s.num_tokens for s in kept.values())


def test_an_engine_that_cannot_start_leaves_the_store_as_it_was(bench: Bench) -> None:
    def start() -> FakeEngine:
        raise EngineError("no memory")

    campaign = bench.campaign()
    with pytest.raises(EngineError, match="no memory"):
        draw(bench.store, campaign, ASKED, Fixed(n=2), start_engine=start, max_num_seqs=2, progress=lambda *_: None)
    assert bench.store.read(campaign.hash) == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 20))
def test_the_window_is_never_exceeded(
    tmp_path_factory: pytest.TempPathFactory, n: int, max_num_seqs: int, per_poll: int
) -> None:
    engine = FakeEngine(per_poll=per_poll)
    with SampleStore(tmp_path_factory.mktemp("store") / "s") as store:
        drawn = Bench(store, []).draw(n, engine, max_num_seqs=max_num_seqs)
    assert drawn.new == len(engine.submitted) == 5 * n
    assert engine.most_pending == min(5 * n, 4 * max_num_seqs)


def test_what_a_run_returns_is_what_a_second_run_reads(bench: Bench) -> None:
    hostile = FakeEngine(lambda request: Answer(f"\ud800\x00\u2028 {request.seed}", "length", 4))
    first = bench.draw(2, hostile)
    assert bench.draw(2, None).samples == first.samples
    assert {s.finish_reason for row in first.samples for s in row} == {"length"}


def test_answers_arrive_where_they_belong(bench: Bench) -> None:
    engine = FakeEngine(answer=None)
    engine.enqueue(*(Answer(f"answer {i}") for i in range(10)))
    drawn = bench.draw(2, engine)
    assert [s.text for row in drawn.samples for s in row] == [f"answer {i}" for i in range(10)]


def test_progress_counts_every_sample_once(bench: Bench) -> None:
    bench.draw(1, FakeEngine())
    bench.shown.clear()
    bench.draw(3, FakeEngine())
    done = [done for done, _, _ in bench.shown]
    assert bench.shown[0] == (5, 15, "loading the model")
    assert done == sorted(done)
    assert done[-1] == 15
    assert {total for _, total, _ in bench.shown} == {15}


def test_a_damaged_sample_is_drawn_again_and_comes_out_the_same(bench: Bench) -> None:
    expected = bench.draw(2, FakeEngine()).samples
    bench.store._database.execute("UPDATE sample SET text = text || '!' WHERE problem_id = 'p/3' AND sample_index = 1")
    damaged = bench.draw(2, None)  # by their indices all are there; reading them shows it
    assert [len(row) for row in damaged.samples] == [2, 2, 2, 1, 2]
    engine = FakeEngine()
    drawn = bench.draw(2, engine)
    assert drawn.samples == expected
    assert asked_for(engine) == [(ASKED[3].prompt_token_ids, expected[3][1].seed)]


def ids_of_words(tokenizer: Any, turns: Any, where: str) -> tuple[int, ...]:
    return tuple(range(len(turns[0]["content"].split())))


def test_a_prompt_that_leaves_no_room_is_named_before_the_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "prompt_ids", ids_of_words)
    problems = [question.problem for question in ASKED]
    chats = [[{"role": "user", "content": "word " * length}] for length in (1, 2, 30, 4, 5)]
    fits = EngineBlock(max_model_len=50)
    assert len(teacher.questions(None, problems, chats, SAMPLING, fits)) == 5
    with pytest.raises(DataError, match=r"p/2: the prompt has 30 tokens, .* leaves 29; raise engine\.max_model_len"):
        teacher.questions(None, problems, chats, SAMPLING, EngineBlock(max_model_len=49))


def test_a_prompt_is_tokenised_once_for_all_its_samples(
    bench: Bench, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = type(tokenizer).apply_chat_template

    def counting(self: Any, conversation: Any, **options: Any) -> Any:
        encoded.append(conversation[0]["content"])
        return encode(self, conversation, **options)

    monkeypatch.setattr(type(tokenizer), "apply_chat_template", counting)
    problems = [question.problem for question in ASKED]
    chats = [[{"role": "user", "content": problem.question}] for problem in problems]
    asked = teacher.questions(tokenizer, problems, chats, SAMPLING, EngineBlock(max_model_len=99))
    engine = FakeEngine()
    drawn = draw(
        bench.store, bench.campaign(), asked, Fixed(n=8),
        start_engine=lambda: engine, max_num_seqs=4, progress=lambda *message: None,
    )  # fmt: skip
    assert drawn.new == 40
    assert encoded == [problem.question for problem in problems]
    assert {request.prompt_token_ids for request in engine.submitted} == {q.prompt_token_ids for q in asked}


@pytest.mark.parametrize(
    "change",
    [
        {"weights_hash": "v"},
        {"adapter_hash": "a"},
        {"prompt": Prompt(template="{question}?")},
        {"prompt": Prompt(format="plain")},
        {"prompt": Prompt(answer_trigger="So")},
        {"prompt": Prompt(stop=["Q:"])},
        {"sampling": SAMPLING.model_copy(update={"temperature": 0.8})},
        {"sampling": SAMPLING.model_copy(update={"seed": 1})},
        {"sampling": SAMPLING.model_copy(update={"max_tokens": 21})},
        {"engine": EngineBlock.model_validate({"max_model_len": 64, "quantization": "awq"})},
        {"tokenizer": 3},
    ],
    ids=str,
)
def test_what_makes_a_campaign(bench: Bench, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    monkeypatch.setattr(teacher, "end_of_turn_id", lambda tokenizer: tokenizer)
    given: dict[str, Any] = {
        "weights_hash": "w",
        "prompt": Prompt(),
        "sampling": SAMPLING,
        "engine": EngineBlock(max_model_len=64),
        "tokenizer": 2,
    }
    campaign = teacher.open_campaign(bench.store, **given)
    faster = EngineBlock(max_model_len=128, max_num_seqs=8)  # shapes no text
    assert teacher.open_campaign(bench.store, **{**given, "engine": faster}).hash == campaign.hash
    other = teacher.open_campaign(bench.store, **{**given, **change})
    assert other.hash != campaign.hash
    assert other.use_adapter == ("adapter_hash" in change)


def test_the_key_of_a_sample() -> None:
    one, two = ASKED[0].key(0), replace(ASKED[0], prompt_token_ids=(1, 20)).key(0)
    assert one == SampleKey("p/0", one.prompt_hash, 0)
    assert one.prompt_hash != two.prompt_hash != replace(ASKED[0], prompt_token_ids=(12, 0)).key(0).prompt_hash


# ---- two calls ----------------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of single letters, whose end of turn is 0."""

    chat_template = "x"


def two_calls(monkeypatch: pytest.MonkeyPatch, store: SampleStore) -> Campaign:
    monkeypatch.setattr(teacher, "end_of_turn_id", lambda tokenizer: 0)
    monkeypatch.setattr(teacher, "completion_ids", lambda tokenizer, text: (*map(ord, text), 0))
    return teacher.open_campaign(
        store,
        weights_hash="w",
        prompt=Prompt(answer_trigger="\nSo", stop=["Q:"]),
        sampling=Sampling(max_tokens=20, temperature=0.7, top_p=0.9, repetition_penalty=1.3, stop=["X"]),
        engine=EngineBlock.model_validate({"max_model_len": 64}),
        tokenizer=Letters(),
    )


def draw_two(store: SampleStore, campaign: Campaign, engine: FakeEngine) -> Drew:
    policy = Fixed(n=2)
    drawn = draw(store, campaign, ASKED, policy, start_engine=lambda: engine, max_num_seqs=2, progress=lambda *_: None)
    samples = list(drawn_samples(store, campaign, ASKED, drawn))
    return Drew(drawn, samples, drawn.new, drawn.reused, drawn.num_tokens_new)


def says(request: Any) -> Answer:
    if request.key.endswith("/answer"):
        return Answer(" 12.", "stop", 3)
    return Answer("Because.", "length" if request.seed % 2 else "stop", 5)


def test_a_second_call_answers_after_the_rationale(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = two_calls(monkeypatch, bench.store)
    engine = FakeEngine(says)
    drawn = draw_two(bench.store, campaign, engine)
    for question, samples in zip(ASKED, drawn.samples, strict=True):
        for index, sample in enumerate(samples):
            seed = derive_seed(campaign.hash, question.key(index))
            assert (sample.text, sample.answer_text, sample.num_tokens, sample.seed) == ("Because.", " 12.", 8, seed)
            assert sample.finish_reason == ("length" if seed % 2 else "stop"), "the worse of the two"
    first = [request for request in engine.submitted if not request.key.endswith("/answer")]
    second = [request for request in engine.submitted if request.key.endswith("/answer")]
    assert len(first) == len(second) == 10
    assert all(request.sampling.stop == ["X", "Q:"] for request in engine.submitted)
    asked = {question.prompt_token_ids for question in ASKED}
    for request in second:
        said = tuple(map(ord, "Because.\nSo"))
        assert request.prompt_token_ids[: -len(said)] in asked
        assert request.prompt_token_ids[-len(said) :] == said
        assert (request.sampling.temperature, request.sampling.top_p) == (0.0, 1.0), "greedy"
        assert request.sampling.repetition_penalty == 1.0, "the answer stands in the rationale and is said again"
        assert request.sampling.max_tokens == teacher.ANSWER_MAX_TOKENS
    assert all((request.sampling.temperature, request.sampling.repetition_penalty) == (0.7, 1.3) for request in first)
    again = FakeEngine(says)
    assert draw_two(bench.store, campaign, again).samples == drawn.samples
    assert again.submitted == []


@pytest.mark.parametrize("poll", range(1, 9))
def test_an_interrupt_between_the_calls_loses_no_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, poll: int
) -> None:
    campaign = two_calls(monkeypatch, bench.store)
    stopped, resumed = FakeEngine(says, interrupted_at_poll=poll), FakeEngine(says)
    with pytest.raises(KeyboardInterrupt):
        draw_two(bench.store, campaign, stopped)
    kept = bench.store.read(campaign.hash)
    cancelled = bench.store.num_tokens_cancelled(campaign.hash)
    assert stopped.num_tokens_generated() == cancelled + sum(s.num_tokens for s in kept.values())
    assert all(sample.answer_text == " 12." for sample in kept.values()), "never half a sample"
    drawn = draw_two(bench.store, campaign, resumed)
    assert (drawn.reused, drawn.new) == (len(kept), 10 - len(kept))


def test_a_rationale_that_the_engine_gave_up_is_not_asked_for_its_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = two_calls(monkeypatch, bench.store)
    engine = FakeEngine(lambda request: Answer("", "abort", 1))
    drawn = draw_two(bench.store, campaign, engine)
    assert len(engine.submitted) == 10
    assert {sample.finish_reason for row in drawn.samples for sample in row} == {"abort"}
    assert bench.store.read(campaign.hash) == {}


def test_a_second_call_needs_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "prompt_ids", lambda tokenizer, rendered, where: (1,) * 10)
    monkeypatch.setattr(teacher, "completion_ids", lambda tokenizer, text: (*map(ord, text), 0))
    engine = EngineBlock.model_validate({"max_model_len": 160})
    problems, sampling = [ASKED[0].problem], Sampling(max_tokens=20)
    assert len(teacher.questions(None, problems, ["x"], sampling, engine)) == 1
    with pytest.raises(DataError, match="the prompt has 10 tokens"):
        teacher.questions(None, problems, ["x"], sampling, engine, "\nTherefore")


# ---- until enough are accepted ------------------------------------------------------------------------------------


UNTIL = Until(accept=2, max=8)


def is_right(question: Question, sample: Sample) -> bool:
    """By the text, as a grader would: questions differ from hopeless (p/0) to easy (p/4)."""
    assert sample.text == f"{sample.seed} {question.prompt_token_ids}"
    return sample.seed % 5 < int(question.problem.id[-1])


class OldestFirst(FakeEngine):
    """Then siblings are under way when their question's prefix is complete."""

    def poll(self, timeout: float) -> list[Completion]:
        self._pending = dict(reversed(self._pending.items()))
        try:
            return super().poll(timeout)
        finally:
            self._pending = dict(reversed(self._pending.items()))


def flags(bench: Bench, question: Question, n: int) -> list[bool]:
    """Whether the first n samples of the question will be right."""
    seeds = [derive_seed(bench.campaign().hash, question.key(index)) for index in range(n)]
    return [seed % 5 < int(question.problem.id[-1]) for seed in seeds]


def test_a_question_stops_on_the_prefix_of_its_indices(bench: Bench) -> None:
    engine = FakeEngine()
    drew = bench.draw(UNTIL, engine, accepted=is_right)
    wanted = [prefix(UNTIL, flags(bench, question, 8)) for question in ASKED]
    assert len(set(wanted)) > 2, "the questions are to differ"
    assert wanted[0] == 8
    assert drew.drawn.prefixes == wanted == [len(row) for row in drew.samples]
    for question, row in zip(ASKED, drew.samples, strict=True):
        assert [sample.sample_index for sample in row] == list(range(len(row)))
        assert sum(is_right(question, sample) for sample in row) <= 2


@pytest.mark.parametrize("max_num_seqs", [1, 3, 40])
@pytest.mark.parametrize("policy", [UNTIL, Until(accept=2, max=8, give_up=0.3), Until(accept=1, max=8)], ids=str)
def test_every_token_is_in_a_sample_or_counted_as_cancelled(bench: Bench, policy: Until, max_num_seqs: int) -> None:
    engine = OldestFirst(lambda request: Answer(f"{request.seed} {request.prompt_token_ids}", "stop", 40))
    drawn = bench.draw(policy, engine, accepted=is_right, max_num_seqs=max_num_seqs).drawn
    kept = bench.store.read(bench.campaign().hash)
    cancelled = bench.store.num_tokens_cancelled(bench.campaign().hash)
    assert cancelled == drawn.num_tokens_cancelled == bench.store.spent().num_tokens_cancelled
    assert engine.num_tokens_generated() == cancelled + sum(s.num_tokens for s in kept.values())
    assert len(engine.submitted) == len(kept) + len(engine.cancelled)
    assert (cancelled > 0) == bool(engine.cancelled)


def test_siblings_in_flight_are_cancelled(tmp_path: Path) -> None:
    asked = [Question(Problem(f"p/{i}", "?", "1"), (1, i)) for i in range(60)]
    with SampleStore(tmp_path / "s") as store:
        campaign = Campaign(store.add_campaign({}), SAMPLING, (2,))
        engine = OldestFirst(lambda request: Answer("", "stop", 20), per_poll=7)
        right = {(question.problem.id, index) for question in asked for index in range(8) if (index * 7) % 3 == 0}
        drawn = draw(
            store,
            campaign,
            asked,
            Until(accept=2, max=8),
            accepted=lambda question, sample: (question.problem.id, sample.sample_index) in right,
            start_engine=lambda: engine,
            max_num_seqs=64,
            progress=lambda *_: None,
        )
        assert set(drawn.prefixes) == {4}
        assert engine.cancelled
        assert drawn.num_tokens_cancelled > 0
        kept = {"/".join(map(str, (campaign.hash, *key))) for key in store.read(campaign.hash)}
        assert not kept & set(engine.cancelled)
        assert len(engine.submitted) <= 1.1 * 4 * 60


@pytest.mark.parametrize("fault", ["interrupted_at_poll", "dies_at_poll"])
def test_stopped_at_any_poll_and_resumed_the_decisions_are_the_same(tmp_path: Path, fault: str) -> None:
    with SampleStore(tmp_path / "straight") as store:
        whole = FakeEngine()
        expected = Bench(store, []).draw(UNTIL, whole, accepted=is_right)
    assert whole.polls > 8
    for k in range(1, whole.polls + 1):
        with SampleStore(tmp_path / f"{k}") as store:
            bench = Bench(store, [])
            stopped, resumed = FakeEngine(**{fault: k}), FakeEngine()
            with pytest.raises(KeyboardInterrupt if fault == "interrupted_at_poll" else EngineError):
                bench.draw(UNTIL, stopped, accepted=is_right)
            kept = store.read(bench.campaign().hash)
            before = store.num_tokens_cancelled(bench.campaign().hash)
            assert stopped.num_tokens_generated() == before + sum(s.num_tokens for s in kept.values())
            drew = bench.draw(UNTIL, resumed, accepted=is_right)
            assert drew.samples == expected.samples
            assert not {s.seed for s in kept.values()} & {request.seed for request in resumed.submitted}
            new = [sample for key, sample in store.read(bench.campaign().hash).items() if key not in kept]
            after = store.num_tokens_cancelled(bench.campaign().hash) - before
            assert resumed.num_tokens_generated() == after + sum(sample.num_tokens for sample in new)


def test_from_a_fixed_number_to_a_budget_and_back(bench: Bench) -> None:
    fixed = bench.draw(4, FakeEngine())
    engine = FakeEngine()
    until = bench.draw(UNTIL, engine, accepted=is_right)
    wanted = [prefix(UNTIL, flags(bench, question, 8)) for question in ASKED]
    assert until.drawn.prefixes == wanted
    assert not {s.seed for row in fixed.samples for s in row} & {request.seed for request in engine.submitted}
    assert until.reused == sum(min(4, n) for n in wanted)
    # What another recipe drew beyond the prefix is there and not looked at.
    assert any(n < 4 for n in wanted)
    for one, other in zip(fixed.samples, until.samples, strict=True):
        assert one[: len(other)] == other[:4]
    again = bench.draw(UNTIL, None, accepted=is_right)
    assert (again.samples, again.new, again.num_tokens_new) == (until.samples, 0, 0)
    # A smaller budget is inside a larger one.
    smaller = bench.draw(Until(accept=1, max=8), None, accepted=is_right)
    assert all(one == other[: len(one)] for one, other in zip(smaller.samples, until.samples, strict=True))
    back = FakeEngine()
    eight = bench.draw(8, back)
    assert len(eight.samples[4]) == 8
    with SampleStore(bench.store.path.with_name("straight")) as store:
        assert Bench(store, []).draw(8, FakeEngine()).samples == eight.samples


def test_what_is_damaged_is_drawn_again_before_it_counts(bench: Bench) -> None:
    expected = bench.draw(UNTIL, FakeEngine(), accepted=is_right)
    bench.store._database.execute("UPDATE sample SET text = text || '!' WHERE problem_id = 'p/0' AND sample_index = 3")
    engine = FakeEngine()
    assert bench.draw(UNTIL, engine, accepted=is_right).samples == expected.samples
    assert [request.seed for request in engine.submitted] == [expected.samples[0][3].seed]


def test_what_the_engine_gave_up_counts_as_drawn_and_is_asked_again_by_the_next_run(bench: Bench) -> None:
    def says(request: Any) -> Answer:
        answer = f"{request.seed} {request.prompt_token_ids}"
        return Answer(answer, "abort" if request.seed == lost else "stop")

    lost = derive_seed(bench.campaign().hash, ASKED[4].key(0))
    drew = bench.draw(UNTIL, FakeEngine(says), accepted=is_right)
    assert drew.samples[4][0].finish_reason == "abort"
    assert len(drew.samples[4]) == drew.drawn.prefixes[4]
    engine = FakeEngine()
    assert bench.draw(UNTIL, engine, accepted=is_right).samples[4][0].finish_reason == "stop"
    assert lost in {request.seed for request in engine.submitted}


def test_a_budget_with_a_second_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = two_calls(monkeypatch, bench.store)
    engine = FakeEngine(says)
    drawn = draw(
        bench.store,
        campaign,
        ASKED,
        Until(accept=1, max=8),
        accepted=lambda question, sample: sample.answer_text == " 12." and sample.finish_reason == "stop",
        start_engine=lambda: engine,
        max_num_seqs=40,
        progress=lambda *_: None,
    )
    rows = list(drawn_samples(bench.store, campaign, ASKED, drawn))
    assert all(row[-1].finish_reason == "stop" for row in rows)
    assert all(sample.finish_reason == "length" for row in rows for sample in row[:-1])
    kept = bench.store.read(campaign.hash)
    cancelled = bench.store.num_tokens_cancelled(campaign.hash)
    assert engine.num_tokens_generated() == cancelled + sum(s.num_tokens for s in kept.values())


def test_progress_of_a_budget(bench: Bench) -> None:
    bench.draw(UNTIL, FakeEngine(), accepted=is_right, usd_per_hour=1e6)
    *_, (done, total, note) = bench.shown
    assert done == total
    shares = r"samples, \d+% accepted, coverage \d+%, \d+ tok/s, \d+ tokens per accepted, \d+\.\d{4} USD"
    assert re.fullmatch(shares, note)
    assert any(re.fullmatch(shares + r", \d+ min left", note) for _, _, note in bench.shown)
    assert all(done <= total for done, total, _ in bench.shown)


def test_nothing_holds_the_texts_of_all_samples(tmp_path: Path) -> None:
    asked = [Question(Problem(f"p/{i}", "?", "1"), (1, i)) for i in range(100)]
    text = "x" * 10_000

    def peak(n: int) -> int:
        with SampleStore(tmp_path / f"{n}") as store:
            campaign = Campaign(store.add_campaign({}), SAMPLING, (2,))
            engine = FakeEngine(lambda request: Answer(f"{request.seed}{text}", num_tokens=1), per_poll=20)
            tracemalloc.start()
            policy = Until(accept=n, max=n)
            drawn = draw(
                store,
                campaign,
                asked,
                policy,
                accepted=lambda *_: True,
                start_engine=lambda: engine,
                max_num_seqs=10,
                progress=lambda *_: None,
            )
            assert sum(len(row) for row in drawn_samples(store, campaign, asked, drawn)) == n * 100
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most - 500 * len(engine.submitted)  # which the fake keeps, but not the texts

    assert peak(16) - peak(2) < 100 * 14 * 10_000 / 4


def test_another_temperature_is_announced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "end_of_turn_id", lambda tokenizer: 2)

    def opened(**changes: Any) -> Campaign:
        given: dict[str, Any] = {"weights_hash": "w", "prompt": Prompt(), "sampling": SAMPLING, "tokenizer": None}
        return teacher.open_campaign(bench.store, engine=EngineBlock(max_model_len=64), **(given | changes))

    def draws(campaign: Campaign) -> None:
        draw(
            bench.store, campaign, ASKED, Fixed(n=1), start_engine=FakeEngine, max_num_seqs=9, progress=lambda *_: None
        )

    first = opened()
    assert novelty(bench.store, first, ASKED) is None, "the first of all"
    draws(first)
    assert novelty(bench.store, first, ASKED) is None, "it goes on"
    warmer = opened(sampling=SAMPLING.model_copy(update={"temperature": 0.8}))
    line = novelty(bench.store, warmer, ASKED)
    assert line is not None
    assert line.endswith(f"it differs from {first.hash[:8]} in sampling.temperature (0.7 → 0.8)")
    draws(warmer)
    both = opened(
        sampling=SAMPLING.model_copy(update={"temperature": 0.8}),
        prompt=Prompt(template="{question}?"),
        weights_hash="v",
    )
    line = novelty(bench.store, both, ASKED)
    assert line is not None
    assert f"from {warmer.hash[:8]} in prompt.template ({{question}} → {{question}}?), weights" in line
    elsewhere = [replace(question, problem=replace(question.problem, id="q")) for question in ASKED]
    assert novelty(bench.store, both, elsewhere) is None
