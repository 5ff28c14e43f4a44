"""The CUDA path, asserted for cards that are not here: what vLLM, TRL, bitsandbytes and PEFT would be given."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY

from fcot_lite import packing
from fcot_lite.engines.vllm import VllmEngine, engine_arguments, engine_environment
from fcot_lite.machine import Machine
from fcot_lite.memory import LIBRARIES_GIB
from fcot_lite.recipe import Recipe, load
from fcot_lite.student import Method, load_model, lora_arguments, quantization_arguments, sft_arguments

CPUS = (0, 1, 2, 3)
AMPERE = Machine("cuda", CPUS, "NVIDIA GeForce RTX 3090", 24.0, (8, 6))
ADA = Machine("cuda", CPUS, "NVIDIA GeForce RTX 4090", 24.0, (8, 9))
SMALL = Machine("cuda", CPUS, "NVIDIA GeForce RTX 3060", 12.0, (8, 6))
TURING = Machine("cuda", CPUS, "Tesla T4", 16.0, (7, 5))  # no bfloat16
CARDS = {"3090": AMPERE, "4090": ADA, "3060": SMALL, "T4": TURING}
CPU = Machine("cpu", CPUS)


def recipe_for(machine: Machine) -> Recipe:
    large = machine.gpu_memory_gib is not None and machine.gpu_memory_gib >= 20
    return load(REPOSITORY / "recipes" / ("gsm8k.yaml" if large else "gpu-12gb.yaml"))


@pytest.mark.parametrize(
    ("card", "model", "dtype", "max_num_seqs"),
    [
        ("3090", "Qwen/Qwen2.5-7B-Instruct", "bfloat16", 256),
        ("4090", "Qwen/Qwen2.5-7B-Instruct", "bfloat16", 256),
        ("3060", "Qwen/Qwen2.5-7B-Instruct-AWQ", "bfloat16", 64),
        ("T4", "Qwen/Qwen2.5-7B-Instruct-AWQ", "float16", 64),
    ],
)
def test_what_vllm_gets_for_the_teacher(card: str, model: str, dtype: str, max_num_seqs: int) -> None:
    machine, recipe = CARDS[card], recipe_for(CARDS[card])
    assert engine_arguments(recipe.teacher.model, recipe.teacher.engine, machine) == {
        "model": model,
        "dtype": dtype,
        "seed": 0,
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "disable_log_stats": False,
        "gpu_memory_utilization": 0.9,
        "max_model_len": 1536,
        "max_num_seqs": max_num_seqs,
    }
    environment = engine_environment(machine)
    assert environment == {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "INFO"}, "nothing of the CPU's"


# GB/s and dense bf16 TFLOP/s (with float32 sums) of NVIDIA's data sheets; bytes of the weights on the hub.
@pytest.mark.parametrize(
    ("card", "bandwidth", "tflops", "num_bytes"),
    [("3090", 936, 71, 15.2e9), ("4090", 1008, 165, 15.2e9), ("3060", 360, 25, 5.6e9)],
)
def test_the_teachers_sequences_keep_the_card_busy_and_their_cache_fits(
    card: str, bandwidth: float, tflops: float, num_bytes: float
) -> None:
    machine, recipe = CARDS[card], recipe_for(CARDS[card])
    arguments = engine_arguments(recipe.teacher.model, recipe.teacher.engine, machine)
    parameters = 7.6e9
    # From here on a step's arithmetic takes longer than reading the weights once: more sequences bring little more.
    enough = (tflops * 1e12 / (2 * parameters)) / (bandwidth * 1e9 / num_bytes)
    assert arguments["max_num_seqs"] >= enough
    free_gib = machine.gpu_memory_gib * arguments["gpu_memory_utilization"] - num_bytes / 2**30 - LIBRARIES_GIB
    kv_bytes = 2 * 28 * 4 * 128 * 2  # layers, KV heads, head size: 56 KiB a token
    # The solved examples before the question are in the cache once; a question is short, a rationale half done.
    tokens = 400 + arguments["max_num_seqs"] * (100 + recipe.teacher.sampling.max_tokens // 2)
    assert tokens * kv_bytes / 2**30 <= free_gib


@pytest.mark.parametrize("card", CARDS)
def test_what_vllm_gets_for_the_student_and_its_adapter(card: str) -> None:
    recipe = recipe_for(CARDS[card])
    arguments = engine_arguments("student", recipe.evaluate.engine, CARDS[card], recipe.student.lora["r"])
    assert (arguments["enable_lora"], arguments["max_loras"], arguments["max_lora_rank"]) == (True, 1, 32)
    assert "quantization" not in arguments, "evaluated on the unquantised base"


@pytest.mark.parametrize(
    ("card", "bf16", "micro_batch", "accumulation"),
    [("3090", True, 8, 2), ("4090", True, 8, 2), ("3060", True, 2, 8), ("T4", False, 2, 8)],
)
def test_what_trl_gets(card: str, bf16: bool, micro_batch: int, accumulation: int) -> None:
    recipe = recipe_for(CARDS[card])
    assert sft_arguments(recipe.student.sft, CARDS[card], recipe.seed, Path("out")) == {
        "learning_rate": 2e-4,
        "num_train_epochs": 2,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "gradient_checkpointing": True,
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "train_sampling_strategy": "group_by_length",
        "output_dir": "out",
        "use_cpu": False,
        "bf16": bf16,
        "fp16": not bf16,
        "seed": 0,
        "data_seed": 0,
        "max_length": None,
        "padding_free": False,
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "save_strategy": "no",
        "eval_strategy": "no",
        "prediction_loss_only": True,
        "logging_strategy": "steps",
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
    }


@pytest.mark.parametrize("card", CARDS)
def test_moments_of_eight_bits_where_all_weights_are_trained(card: str) -> None:
    def optimiser(machine: Machine, method: Method, **sft: Any) -> Any:
        return sft_arguments(sft, machine, 0, Path("out"), method=method)["optim"]

    assert optimiser(CARDS[card], "full") == "adamw_8bit"
    assert optimiser(CARDS[card], "full", optim="adamw_torch") == "adamw_torch"
    assert optimiser(CARDS[card], "lora") == optimiser(CARDS[card], "qlora") == "adamw_torch_fused"
    assert optimiser(CPU, "full") == "adamw_torch_fused"


@pytest.mark.real
@pytest.mark.parametrize(
    ("card", "with_flash_attn"),
    [("3090", "flash_attention_2"), ("4090", "flash_attention_2"), ("3060", "flash_attention_2"), ("T4", "by_row")],
)
def test_rows_lie_end_to_end_on_every_card(card: str, with_flash_attn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention 2 runs from compute capability 8.0 on; the T4 has 7.5."""
    from transformers import Qwen2Config

    machine, find = CARDS[card], importlib.util.find_spec
    for installed, expected in ((None, "by_row"), (object(), with_flash_attn)):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, package=None, installed=installed: installed if name == "flash_attn" else find(name, package),
        )
        batching = packing.choose(Qwen2Config(), machine, 1536)
        assert (batching.attn_implementation, batching.why_padded) == (expected, None)
    arguments = sft_arguments({}, machine, 0, Path("out"), batching.padding_free)
    assert (arguments["padding_free"], arguments["train_sampling_strategy"]) == (True, "random")


@pytest.mark.parametrize(("card", "dtype"), [("3090", "bfloat16"), ("4090", "bfloat16"), ("T4", "float16")])
def test_what_bitsandbytes_gets(card: str, dtype: str) -> None:
    assert quantization_arguments(CARDS[card]) == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }


def test_what_peft_gets() -> None:
    assert lora_arguments(recipe_for(AMPERE).student.lora) == {
        "r": 32,
        "lora_alpha": 64,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }


def test_a_cpu_gets_none_of_the_cards_arguments() -> None:
    recipe = load(REPOSITORY / "recipes" / "cpu.yaml")
    arguments = engine_arguments("m", recipe.teacher.engine, CPU)
    assert "gpu_memory_utilization" not in arguments
    assert (arguments["enforce_eager"], arguments["enable_chunked_prefill"]) == (True, False)
    trainer = sft_arguments(recipe.student.sft, CPU, 0, Path("out"))
    assert (trainer["use_cpu"], trainer["bf16"], trainer["gradient_checkpointing"]) == (True, True, False)


@pytest.mark.real
@pytest.mark.parametrize("card", CARDS)
def test_the_installed_libraries_take_all_of_it(card: str, tmp_path: Path) -> None:
    import dataclasses

    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig
    from vllm import EngineArgs

    machine, recipe = CARDS[card], recipe_for(CARDS[card])
    engine: dict[str, Any] = engine_arguments(tmp_path, recipe.teacher.engine, machine, 32)
    EngineArgs(**engine)
    LoraConfig(**lora_arguments(recipe.student.lora))
    quantization = BitsAndBytesConfig(**quantization_arguments(machine))
    assert quantization.bnb_4bit_compute_dtype == getattr(torch, machine.dtype)
    # SFTConfig itself looks for the card, so only its fields can be compared here.
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    assert sft_arguments(recipe.student.sft, machine, 0, Path("out")).keys() <= fields


@pytest.mark.real
@pytest.mark.parametrize("card", CARDS)
def test_the_engine_is_made_with_them(card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    given: dict[str, Any] = {}

    class Recorder:
        llm_engine = SimpleNamespace(engine_core=None)

        def __init__(self, **arguments: Any) -> None:
            given.update(arguments)

    monkeypatch.setattr(vllm, "LLM", Recorder)
    machine, recipe = CARDS[card], recipe_for(CARDS[card])
    for name in engine_environment(machine):
        monkeypatch.setenv(name, "before")
    VllmEngine("student", recipe.evaluate.engine, machine, tmp_path, 32)
    assert given == engine_arguments("student", recipe.evaluate.engine, machine, 32)
    assert given["enable_lora"] is True


@pytest.mark.real
@pytest.mark.parametrize("card", CARDS)
def test_the_student_is_loaded_with_them(card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import transformers

    given: dict[str, Any] = {}

    def record(model_dir: Path, **arguments: Any) -> torch.nn.Module:
        given.update(arguments)
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", record)
    machine = CARDS[card]
    load_model(tmp_path, "qlora", machine, "sdpa")
    dtype = getattr(torch, machine.dtype)
    quantization = given["quantization_config"]
    assert (given["dtype"], given["device_map"], given["attn_implementation"]) == (dtype, {"": 0}, "sdpa")
    assert (quantization.bnb_4bit_quant_type, quantization.bnb_4bit_compute_dtype) == ("nf4", dtype)
    assert quantization.load_in_4bit
    assert quantization.bnb_4bit_use_double_quant
    given.clear()
    load_model(tmp_path, "full", machine, "sdpa")
    assert given["dtype"] == torch.float32, "autocast computes in the card's dtype"
    assert "quantization_config" not in given
