"""The contract of engines/vllm.py with the real vLLM: what an upgrade must not break."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from fcot_lite import tasks
from fcot_lite.engines import Completion, Engine, Request
from fcot_lite.engines.vllm import VllmEngine, adapter_rank
from fcot_lite.errors import ResourceError
from fcot_lite.files import read_json
from fcot_lite.machine import detect
from fcot_lite.models import resolve
from fcot_lite.prompts import Prompt, end_of_turn_id, load_tokenizer, prompt_ids, render
from fcot_lite.recipe import EngineBlock, Sampling

pytestmark = pytest.mark.e2e
STARTER = "starter:smollm2-135m-instruct"
OPTIONS = EngineBlock(max_model_len=512, max_num_seqs=32, kv_cache_memory_bytes=2**28)
TASK = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}
GREEDY = Sampling(max_tokens=48)
WARM = Sampling(max_tokens=48, temperature=1.0)


@pytest.fixture(scope="module")
def model_dir() -> Path:
    return resolve(STARTER, say=print)


@pytest.fixture(scope="module")
def engine(model_dir: Path, runs: Path) -> Iterator[Engine]:
    adapter = runs / "e2e" / "adapter"
    rank = adapter_rank(read_json(adapter / "adapter_config.json"))
    engine = VllmEngine(model_dir, OPTIONS, detect(), adapter, rank)
    yield engine
    engine.close()


def requests(
    model_dir: Path, name: str, sampling: Sampling, seeds: list[int], use_adapter: bool = False
) -> list[Request]:
    tokenizer = load_tokenizer(model_dir)
    problems = tasks.load("chain_arithmetic", "test", options=TASK, limit=len(seeds))
    return [
        Request(
            f"{name}/{i}",
            prompt_ids(tokenizer, render(Prompt(system="You add numbers."), problem.question, []), problem.id),
            sampling,
            seed,
            (end_of_turn_id(tokenizer),),
            use_adapter,
        )
        for i, (problem, seed) in enumerate(zip(problems, seeds, strict=True))
    ]


def collect(engine: Engine, asked: list[Request]) -> dict[str, Completion]:
    engine.submit(asked)
    done: dict[str, Completion] = {}
    while len(done) < len(asked):
        for completion in engine.poll(60):
            assert completion.key not in done
            done[completion.key] = completion
    assert engine.poll(0.1) == []
    return done


def test_nothing_pending_does_not_block(engine: Engine) -> None:
    assert engine.poll(60) == []


def test_completions_stream_out_under_our_keys(engine: Engine, model_dir: Path) -> None:
    short = requests(model_dir, "short", Sampling(max_tokens=2), [1])
    long = requests(model_dir, "long", Sampling(max_tokens=200, stop=["\0never\0"]), [2])
    engine.submit([*long, *short])
    first = next(done for _ in range(1000) if (done := engine.poll(10)))
    assert [completion.key for completion in first] == ["short/0"]
    assert first[0].finish_reason == "length"
    assert first[0].num_tokens == 2
    assert first[0].num_prompt_tokens == len(short[0].prompt_token_ids)
    engine.cancel(["long/0"])
    assert engine.poll(1) == []


def test_cancelled_tokens_are_counted(engine: Engine, model_dir: Path) -> None:
    before = engine.num_tokens_generated()
    asked = requests(model_dir, "cancelled", Sampling(max_tokens=400), [1, 2, 3])
    short = requests(model_dir, "kept", Sampling(max_tokens=30), [4])
    engine.submit([*asked, *short])
    kept: list[Completion] = []
    while "kept/0" not in {completion.key for completion in kept}:
        kept += engine.poll(10)
    engine.cancel([request.key for request in asked])
    assert engine.poll(2) == [], "a cancelled key came back"
    returned = sum(completion.num_tokens for completion in kept)
    assert engine.num_tokens_generated() - before > returned


def test_seeds_repeat_and_differ(engine: Engine, model_dir: Path) -> None:
    one = collect(engine, requests(model_dir, "a", WARM, [7, 8, 9]))
    same = collect(engine, requests(model_dir, "b", WARM, [7, 8, 9]))
    other = collect(engine, requests(model_dir, "c", WARM, [17, 18, 19]))
    texts = [[done.text for _, done in sorted(run.items())] for run in (one, same, other)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_end_of_turn_is_counted_and_not_in_the_text(engine: Engine, model_dir: Path) -> None:
    done = collect(engine, requests(model_dir, "stop", GREEDY, [0] * 8, use_adapter=True))
    stopped = [completion for completion in done.values() if completion.finish_reason == "stop"]
    assert stopped, "the student learnt to end its turn"
    for completion in stopped:
        assert "<|im_end|>" not in completion.text
        assert completion.num_tokens >= 1


def test_the_seeded_long_prompts_that_crash_a_chunked_prefill(engine: Engine, model_dir: Path) -> None:
    # Over max_num_batched_tokens in all, so the scheduler would cut the last prompt if chunking were on.
    asked = [
        Request(f"long/{i}", (*range(1000, 1450),), Sampling(max_tokens=4, temperature=1.0), i, (2,)) for i in range(16)
    ]
    assert len(collect(engine, asked)) == 16


def alike(some: list[str], others: list[str]) -> float:
    """How much of the texts is the same from their beginnings on."""
    same = [
        sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))
        / max(len(one), len(other))
        for one, other in zip(some, others, strict=True)
    ]
    return sum(same) / len(same)


def test_vllm_serves_the_adapter_and_the_merged_model(
    engine: Engine, model_dir: Path, runs: Path, tmp_path: Path
) -> None:
    from fcot_lite import student

    adapter = runs / "e2e" / "adapter"
    base = collect(engine, requests(model_dir, "base", GREEDY, [0] * 8))
    adapted = collect(engine, requests(model_dir, "adapted", GREEDY, [0] * 8, use_adapter=True))
    student.merge(model_dir, adapter, tmp_path / "merged")
    served = VllmEngine(tmp_path / "merged", OPTIONS, detect())
    try:
        merged = collect(served, requests(model_dir, "merged", GREEDY, [0] * 8))
    finally:
        served.close()
    texts = [[run[f"{name}/{i}"].text for i in range(8)] for name, run in
             (("base", base), ("adapted", adapted), ("merged", merged))]  # fmt: skip
    assert texts[0] != texts[1], "the adapter changed nothing: it was not applied"
    # bf16 rounds the merged weights, and a text parts for good where two tokens were all but equally likely.
    assert alike(texts[1], texts[2]) > 0.5 > alike(texts[0], texts[1]), texts


def test_too_little_memory_is_told_with_what_to_lower(model_dir: Path) -> None:
    """4 MiB of cache hold 182 tokens of this model (30 layers, 3 heads of 64, keys and values, bf16)."""
    tight = EngineBlock(max_model_len=512, max_num_seqs=32, kv_cache_memory_bytes=2**22)
    with pytest.raises(ResourceError, match=r"larger than the available KV cache(.|\n)*lower engine\.max_num_seqs"):
        VllmEngine(model_dir, tight, detect())
