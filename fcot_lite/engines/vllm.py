"""vLLM in process, driven by our own step loop, so that every finished sample comes out at once.

All that is fragile about vLLM 0.32 stands in this file; tests/test_engine_e2e.py is its contract.
"""

import ctypes
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fcot_lite.engines import Completion, Engine, Request
from fcot_lite.engines.memory import LOWER_MEMORY, ran_out_of_memory
from fcot_lite.errors import EngineError, FcotError, ResourceError
from fcot_lite.files import read_json
from fcot_lite.interrupts import undisturbed
from fcot_lite.machine import Machine
from fcot_lite.recipe import EngineBlock
from fcot_lite.records import FinishReason

GIB = 2**30
# vllm/config/lora.py at 0.32.0: the only ranks max_lora_rank takes. The default of 16 refuses an r=32 adapter.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Causal architectures that transformers trains and vLLM 0.32 serves, but not with an adapter ("does not support LoRA
# yet"): there it has to be merged. By its sources; tests/test_adapters.py compares.
MERGED_ONLY = (
    *("BloomForCausalLM", "Cohere2MoeForCausalLM", "DbrxForCausalLM", "DeepseekV32ForCausalLM"),
    *("DeepseekV4ForCausalLM", "FalconForCausalLM", "FalconMambaForCausalLM", "GPT2LMHeadModel"),
    *("GPTJForCausalLM", "Gemma3nForCausalLM", "HYV4ForCausalLM", "HrmTextForCausalLM", "InklingForCausalLM"),
    *("KimiLinearForCausalLM", "Mamba2ForCausalLM", "MambaForCausalLM", "MiMoV2FlashForCausalLM"),
    *("Qwen4ExpForCausalLM", "StableLmForCausalLM", "Zamba2ForCausalLM"),
)

# What finishes within this time is returned together: the caller makes each poll's samples durable, and an fsync of
# 4 ms at each step (0.1 s for the 135M starter, 0.02 s on a GPU) would be a twentieth or a fifth of the time.
SECONDS_TO_GATHER = 0.5
PINNED = "0.32.0"  # what is replaced inside vLLM is replaced in this version only
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def engine_arguments(
    model: str | Path, options: EngineBlock, machine: Machine, adapter_rank: int | None = None
) -> dict[str, Any]:
    """What is passed to vllm.LLM. The recipe's own `engine:` options win over what the machine suggests."""
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": machine.dtype,
        "seed": 0,  # every request carries its own
        "generation_config": "vllm",  # with "auto" the model's own max_new_tokens caps every request
        "enable_prefix_caching": True,
        "disable_log_stats": False,  # the only place where tokens of cancelled requests are counted
    }
    if machine.device == "cpu":
        arguments |= {
            # Compiled, the 135M starter makes 343 tokens a second instead of 300, but is first ready after 92 s
            # instead of 12: that pays from ten minutes of sampling on. It changes no sampling run's identity.
            "enforce_eager": True,
            # A seeded request whose prefill is chunked crashes the CPU worker ("CPU Generator does not use offset"),
            # so chunking is off, and then a whole prompt must fit into one batch.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(4096, options.max_model_len),
            # 128 by default on CPU, where a prompt shorter than that shares nothing with its siblings.
            "block_size": 32,
            # vLLM reads a NUMA node's memory, which is wrong in many virtual machines: say the size.
            "kv_cache_memory_bytes": GIB,
        }
    else:
        # vLLM's 0.92 is for a card with nothing else on it: on 12 GB a desktop takes what that leaves. Nothing more is
        # set: `tests/test_cards.py` shows that the recipes' max_num_seqs keep their cards busy and fit the cache.
        arguments["gpu_memory_utilization"] = 0.9
    if adapter_rank is not None:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": lora_rank_limit(adapter_rank)}
    return arguments | options.model_dump()


def engine_environment(machine: Machine) -> dict[str, str | None]:
    """Environment variables that must stand before torch and vLLM are imported; None: must not be set."""
    environment: dict[str, str | None] = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    if machine.device == "cpu":
        environment |= {
            # The whole engine in this process. Measured, 135M student on two cores: ready in 9.5 s instead of 32 (two
            # processes fewer import torch), a second engine in 2 s, 960 tok/s instead of 700, 2 GiB less memory; and
            # there is no engine process left to orphan.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": str(len(machine.cpus)),  # else vLLM serves with one thread
            # "auto" keeps one core for the scheduler: on two cores that is half the speed.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(cpu) for cpu in machine.cpus),
            "VLLM_CPU_KVCACHE_SPACE": None,  # overrides kv_cache_memory_bytes where set
        }
    return environment


def has_adapters(model_dir: Path) -> bool:
    """Whether vLLM serves adapters on this model at all."""
    architectures = read_json(model_dir / "config.json").get("architectures") or []
    return not set(architectures) & set(MERGED_ONLY)


def serves_adapters(model_dir: Path, machine: Machine) -> bool:
    """Whether a student is served as base and adapter; else it is merged first. Never on a CPU, where serving an
    adapter ran ten times slower than merged weights (61 against 753 tok/s, 135M student)."""
    return machine.device == "cuda" and has_adapters(model_dir)


def lora_rank_limit(rank: int) -> int:
    """The smallest max_lora_rank that serves an adapter of this rank. Raises EngineError above 512."""
    for allowed in LORA_RANKS:
        if rank <= allowed:
            return allowed
    raise EngineError(f"vLLM serves no adapter of rank {rank} (at most {LORA_RANKS[-1]}); lower student.lora.r")


class VllmEngine:
    def __init__(
        self, model: str | Path, options: EngineBlock, machine: Machine, adapter: Path | None = None, rank: int = 0
    ) -> None:
        self._machine = machine
        for name, value in engine_environment(machine).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if machine.device == "cpu":
            keep_freed_pages()
        import vllm
        from vllm.lora.request import LoRARequest

        if machine.device == "cpu" and vllm.__version__ == PINNED:
            min_p_by_threshold()
        self.version = f"vllm {vllm.__version__}"
        arguments = engine_arguments(model, options, machine, rank if adapter else None)
        self._adapter = LoRARequest("student", 1, str(adapter)) if adapter else None
        try:
            self._llm = vllm.LLM(**arguments)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise _fault(f"vLLM could not start {model}", error) from error
        self._engine = self._llm.llm_engine
        if hasattr(self._engine.engine_core, "outputs_queue"):  # its core is a process of its own
            threading.Thread(target=tell_of_death, args=(self._engine.engine_core,), daemon=True).start()

    def submit(self, requests: Sequence[Request]) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_token_ids)) for request in requests]
        for request, prompt in zip(requests, self._llm._preprocess_cmpl(prompts), strict=True):
            parameters = SamplingParams(
                **request.sampling.model_dump(exclude={"seed"}),
                n=1,
                seed=request.seed,
                stop_token_ids=list(request.stop_token_ids),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            lora = self._adapter if request.use_adapter else None
            self._engine.add_request(request.key, prompt, parameters, lora_request=lora)

    def poll(self, timeout: float) -> list[Completion]:
        finished: list[Completion] = []
        start = time.monotonic()
        # step() waits for ever when nothing is unfinished.
        while self._engine.has_unfinished_requests():
            if time.monotonic() - start >= (min(timeout, SECONDS_TO_GATHER) if finished else timeout):
                break
            try:
                finished += [_completion(output) for output in self._engine.step() if output.finished]
            except RuntimeError as error:  # of an engine here; that of another process (EngineDeadError) names itself
                raise _fault("vLLM's engine died", error) from error
        return finished

    def cancel(self, keys: Sequence[str]) -> None:
        with undisturbed():
            self._engine.abort_request(list(keys))

    def num_tokens_generated(self) -> int:
        return sum(int(m.value) for m in self._engine.get_metrics() if m.name == "vllm:generation_tokens")

    def close(self) -> None:
        self._engine.engine_core.shutdown()
        if self._machine.device == "cpu":  # the engine lived here: make room for the next one
            from vllm.distributed import cleanup_dist_env_and_memory

            del self._llm, self._engine
            cleanup_dist_env_and_memory()
            ctypes.CDLL(None).malloc_trim(0)


class Engines:
    """At most one engine at a time, started when first needed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._engine: VllmEngine | None = None
        self._serves: tuple[Path, Path | None] | None = None

    def start(self, model: Path, options: EngineBlock, adapter: Path | None = None) -> Engine:
        if self._engine is not None and self._serves == (model, adapter):
            return self._engine
        self.close()
        rank = adapter_rank(read_json(adapter / "adapter_config.json")) if adapter else 0
        self._engine = VllmEngine(model, options, self._machine, adapter, rank)
        self._serves = (model, adapter)
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None


def keep_freed_pages() -> None:
    """Keeps what malloc has freed in this process, until `malloc_trim`. With `min_p_by_threshold` the 0.5B starter went
    from 0.70 of what the cores can do to 0.78, the 135M from 266 (this alone) to 300 tokens a second.

    Each step of the sampler allocates the logits some four times over (78 MB for 128 sequences of Qwen's vocabulary).
    By default glibc maps blocks of that size afresh each time, and the kernel clears every page of them.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def min_p_by_threshold() -> None:
    """Gives vLLM's min_p a form that is cheap on a CPU: p < min_p · p_max means logit < logit_max + log(min_p), so that
    no softmax over the vocabulary is needed, no mask, and no memory."""
    from vllm.v1.sample.logits_processor.builtin import MinPLogitsProcessor

    MinPLogitsProcessor.apply = _apply_min_p


def _apply_min_p(processor: Any, logits: Any) -> Any:
    import torch

    if processor.min_p_count:
        least = logits.amax(dim=-1) + processor.min_p.squeeze(1).log()
        # threshold_ keeps what is larger than the threshold, min_p also what is equal to it
        least = least.nextafter(torch.full_like(least, -torch.inf))
        for row, threshold in zip(logits, least.tolist(), strict=True):
            torch.nn.functional.threshold_(row, threshold, -torch.inf)
    return logits


def tell_of_death(client: Any) -> None:
    """Ends a step that waits for a core that is dead.

    vLLM 0.32 (v1/engine/core_client.py, SyncMPClient) notes that its core was killed, but whoever waits for the core's
    next output goes on waiting: the queue gets nothing.
    """
    while client._finalizer.alive and not client.resources.engine_dead:
        time.sleep(0.5)
    if client.resources.engine_dead:
        client.outputs_queue.put(RuntimeError("the engine's process is gone"))


def _fault(what: str, error: Exception) -> FcotError:
    if ran_out_of_memory(str(error)):
        return ResourceError(f"{what}: {error}\n  {LOWER_MEMORY}")
    return EngineError(f"{what}: {error}")


def _completion(output: Any) -> Completion:
    (answer,) = output.outputs
    return Completion(
        key=output.request_id,
        text=answer.text,
        finish_reason=cast(FinishReason, answer.finish_reason),
        num_prompt_tokens=len(output.prompt_token_ids),
        num_tokens=len(answer.token_ids),
    )


def adapter_rank(adapter_config: Mapping[str, Any]) -> int:
    """The largest rank in an adapter_config.json."""
    return max([int(adapter_config["r"]), *(int(r) for r in (adapter_config.get("rank_pattern") or {}).values())])
