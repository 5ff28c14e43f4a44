"""What vLLM is told on machines that are described, not present, and what is replaced inside it on a CPU."""

import queue
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fcot_lite.engines import vllm as engine_file
from fcot_lite.engines.memory import ran_out_of_memory
from fcot_lite.engines.vllm import GIB, adapter_rank, engine_arguments, engine_environment, lora_rank_limit
from fcot_lite.errors import EngineError
from fcot_lite.machine import Machine
from fcot_lite.recipe import EngineBlock

ONE_CORE = Machine("cpu", (3,))
TWO_CORES = Machine("cpu", (0, 5))
AMPERE = Machine("cuda", (0, 1), "NVIDIA GeForce RTX 3090", 24.0, (8, 6))
TURING = Machine("cuda", (0, 1), "Tesla T4", 15.0, (7, 5))
OPTIONS = EngineBlock(max_model_len=640)


def given(machine: Machine, options: EngineBlock = OPTIONS, **more: Any) -> dict[str, Any]:
    return engine_arguments("/m", options, machine, **more)


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [
        (ONE_CORE, "bfloat16"),
        (AMPERE, "bfloat16"),
        (TURING, "float16"),
        (Machine("cuda", (0,), "V100", 32.0, (7, 0)), "float16"),
        (Machine("cuda", (0,), "A100", 80.0, (8, 0)), "bfloat16"),
        (Machine("cuda", (0,), "H100", 80.0, (9, 0)), "bfloat16"),
        (Machine("cuda", (0,), "B200", 180.0, (10, 0)), "bfloat16"),
    ],
)
def test_bfloat16_from_ampere_on(machine: Machine, dtype: str) -> None:
    assert given(machine)["dtype"] == dtype


@pytest.mark.parametrize("machine", [ONE_CORE, TWO_CORES, AMPERE, TURING])
def test_what_holds_everywhere(machine: Machine) -> None:
    arguments = given(machine)
    assert arguments["model"] == "/m"
    assert arguments["generation_config"] == "vllm"  # "auto" lets the model's own file cap every request
    assert arguments["enable_prefix_caching"] is True
    assert arguments["disable_log_stats"] is False  # tokens of cancelled requests are counted nowhere else
    assert (arguments["max_model_len"], arguments["max_num_seqs"]) == (640, 64)
    assert "enable_lora" not in arguments


@pytest.mark.parametrize("max_model_len", [512, 4096, 4097, 32_768])
def test_on_a_cpu_a_prompt_is_one_chunk(max_model_len: int) -> None:
    arguments = given(TWO_CORES, EngineBlock(max_model_len=max_model_len))
    assert arguments["enable_chunked_prefill"] is False
    assert arguments["max_num_batched_tokens"] >= max_model_len  # vLLM refuses to start otherwise
    assert arguments["block_size"] == 32
    assert arguments["kv_cache_memory_bytes"] == GIB
    assert arguments["enforce_eager"] is True
    assert "gpu_memory_utilization" not in arguments


@pytest.mark.parametrize("machine", [AMPERE, TURING])
def test_a_gpu_gets_none_of_what_a_cpu_needs(machine: Machine) -> None:
    arguments = given(machine)
    assert arguments["gpu_memory_utilization"] == 0.9
    assert not arguments.keys() & {"enable_chunked_prefill", "block_size", "kv_cache_memory_bytes", "enforce_eager"}


@pytest.mark.parametrize("machine", [ONE_CORE, AMPERE])
def test_the_recipe_has_the_last_word(machine: Machine) -> None:
    asked = {"max_model_len": 99, "dtype": "float32", "block_size": 16, "quantization": "awq"}
    assert given(machine, EngineBlock.model_validate(asked)).items() >= asked.items()


def test_an_adapter_fits_the_rank_that_is_asked_for() -> None:
    arguments = given(AMPERE, adapter_rank=32)
    assert (arguments["enable_lora"], arguments["max_loras"], arguments["max_lora_rank"]) == (True, 1, 32)


@pytest.mark.parametrize(
    ("rank", "limit"), [(1, 1), (2, 8), (8, 8), (9, 16), (17, 32), (32, 32), (33, 64), (257, 320), (512, 512)]
)
def test_the_next_rank_that_vllm_knows(rank: int, limit: int) -> None:
    assert lora_rank_limit(rank) == limit


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(EngineError, match=r"no adapter of rank 513 \(at most 512\); lower student\.lora\.r"):
        lora_rank_limit(513)


def test_an_adapters_rank_is_its_largest() -> None:
    assert adapter_rank({"r": 8}) == 8
    assert adapter_rank({"r": 8, "rank_pattern": None}) == 8
    assert adapter_rank({"r": 8, "rank_pattern": {"q_proj": 4, "v_proj": 64}}) == 64


@pytest.mark.parametrize(("machine", "bound"), [(ONE_CORE, "3"), (TWO_CORES, "0,5")])
def test_on_a_cpu_every_core_works(machine: Machine, bound: str) -> None:
    environment = engine_environment(machine)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == bound  # "auto" would leave one idle
    assert environment["OMP_NUM_THREADS"] == str(len(machine.cpus))
    assert environment["VLLM_CPU_KVCACHE_SPACE"] is None  # would override kv_cache_memory_bytes


@pytest.mark.parametrize("machine", [ONE_CORE, AMPERE])
def test_nobody_is_told_what_is_run(machine: Machine) -> None:
    assert engine_environment(machine)["VLLM_NO_USAGE_STATS"] == "1"


def test_a_gpu_needs_no_threads_bound() -> None:
    assert not any("CPU" in name or "OMP" in name for name in engine_environment(AMPERE))


@pytest.mark.real
def test_min_p_by_threshold_leaves_what_vllms_own_leaves() -> None:
    import torch
    import vllm
    from vllm.v1.sample.logits_processor.builtin import MinPLogitsProcessor

    assert vllm.__version__ == engine_file.PINNED, "compare the two again, and then the version"
    logits = torch.randn(6, 50_000, generator=torch.Generator().manual_seed(0)) * 4
    logits[2, 7] = logits[2].max()  # two that are equally likely: min_p = 1 keeps both
    batch: Any = SimpleNamespace(min_p_count=5, min_p=torch.tensor([[0.1], [0.0], [1.0], [1e-4], [0.5], [0.02]]))
    ours, theirs = (apply(batch, logits.clone()) for apply in (engine_file._apply_min_p, MinPLogitsProcessor.apply))
    assert torch.equal(ours, theirs)
    assert [int(row.isfinite().sum()) for row in ours][1:3] == [50_000, 2]
    batch.min_p_count = 0
    assert engine_file._apply_min_p(batch, logits) is logits


def test_freed_pages_are_kept_until_the_trim() -> None:
    program = """
import ctypes
from fcot_lite.engines.vllm import keep_freed_pages
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
def make_and_free():
    block = libc.malloc(100 << 20)
    ctypes.memset(block, 1, 100 << 20)
    libc.free(block)
start = mib()
make_and_free()
keep_freed_pages()
before = mib()
make_and_free()
after = mib()
libc.malloc_trim(0)
print(before - start < 50, after - start > 50, mib() - start < 50)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True True True\n", done.stderr


class Steps:
    """An inner engine that finishes one request at each step."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys

    def has_unfinished_requests(self) -> bool:
        return bool(self.keys)

    def step(self) -> list[Any]:
        answer = SimpleNamespace(text="4", finish_reason="stop", token_ids=[4, 0])
        return [SimpleNamespace(finished=True, request_id=self.keys.pop(0), outputs=[answer], prompt_token_ids=[1])]

    def abort_request(self, keys: list[str]) -> None:
        self.keys = [key for key in self.keys if key not in keys]


def test_a_poll_gathers_and_what_is_cancelled_stays_away() -> None:
    engine = engine_file.VllmEngine.__new__(engine_file.VllmEngine)
    engine._engine = Steps([*"abcdef"])
    assert engine.poll(0.0) == [], "no time, no step"
    engine.cancel(["b", "d"])
    assert [completion.key for completion in engine.poll(60)] == [*"acef"], "one commit for what ends together"
    assert engine.poll(60) == []


@pytest.mark.parametrize(
    ("message", "ran_out"),
    [
        # vLLM 0.32 (v1/core/kv_cache_utils.py, v1/worker/utils.py, v1/worker/cpu_worker.py), torch 2.13, C++, Linux
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", True),
        ("(0.38 GiB KV cache is needed, which is larger than the available KV cache memory (0.01 GiB).", True),
        ("Free memory on device cuda:0 (3.1/23.6 GiB) on startup is less than desired GPU memory utilization", True),
        ("Available memory on node 0 (3.1/8.6 GiB) on startup is less than desired CPU memory utilization", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 11.6 GiB", True),
        ("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 400 bytes", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("[Errno 12] Cannot allocate memory", True),
        ("EngineCore encountered an issue. See stack trace (above) for the root cause.", False),
        ("User-specified max_model_len (9000) is greater than the derived max_model_len", False),
        ("kv_cache_memory_bytes must be positive", False),
    ],
)
def test_words_for_a_lack_of_memory(message: str, ran_out: bool) -> None:
    assert ran_out_of_memory(message) == ran_out


@pytest.mark.parametrize("killed", [True, False])
def test_whoever_waits_for_a_dead_core_is_told(killed: bool) -> None:
    """As vLLM's client leaves things: after a kill it is marked and closed, after the end only closed."""
    client = SimpleNamespace(
        _finalizer=SimpleNamespace(alive=True),
        resources=SimpleNamespace(engine_dead=False),
        outputs_queue=queue.Queue(),
    )
    watcher = threading.Thread(target=engine_file.tell_of_death, args=(client,))
    watcher.start()
    client.resources.engine_dead = killed
    client._finalizer.alive = False
    watcher.join(60)
    assert not watcher.is_alive()
    assert client.outputs_queue.qsize() == killed
    assert not killed or isinstance(client.outputs_queue.get(), RuntimeError)
