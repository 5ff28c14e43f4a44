"""The option tables against the installed classes, and what a recipe is refused for among the libraries' options."""

import dataclasses
import importlib
import sys
import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from fcot_lite import options
from fcot_lite.options import CLASSES, RANGES, TABLES, faults, usable
from fcot_lite.recipe import ImportBlock, Recipe, Sampling, TeacherBlock

INSTALLED = {
    "lora": ("peft", "LoraConfig"),
    "sft": ("trl", "SFTConfig"),
    "engine": ("vllm.engine.arg_utils", "EngineArgs"),
}


def kind_of(annotation: Any) -> str:
    """As in the tables: bool, int, float, str, each with `?` where null is allowed, or other."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        kinds = {kind_of(member) for member in members}
        if len(kinds) > 1 or "other" in kinds:
            return "other"
        return kinds.pop().rstrip("?") + ("?" if len(members) < len(get_args(annotation)) else "")
    if get_origin(annotation) is Literal:
        kinds = {kind_of(type(value)) for value in get_args(annotation)}
        return kinds.pop() if len(kinds) == 1 else "other"
    if isinstance(annotation, type) and issubclass(annotation, str):  # text, or a transformers enum of texts
        return "str"
    return annotation.__name__ if annotation in (bool, int, float) else "other"


def table_of(module: str, name: str) -> dict[str, str]:
    installed = getattr(importlib.import_module(module), name)
    names = vars(sys.modules[installed.__module__])
    table = {}
    for field in dataclasses.fields(installed):
        annotation = field.type
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)
            except NameError:  # vLLM's QuantizationConfigArgs is imported for type checkers only
                annotation = object
        if not field.name.startswith("_"):
            table[field.name] = kind_of(annotation)
    return table


def as_written(table: dict[str, str]) -> str:
    lines = []
    for kind in sorted(set(table.values())):
        words = f"{kind}: " + " ".join(sorted(name for name in table if table[name] == kind))
        lines += textwrap.wrap(words, 116, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join(lines)


@pytest.mark.real
@pytest.mark.parametrize("block", TABLES)
def test_the_table_is_what_the_installed_class_takes(block: str) -> None:
    installed = table_of(*INSTALLED[block])
    assert len(installed) > 30
    beside = options.LORAPLUS if block == "lora" else {}
    assert TABLES[block] == installed | beside, f"{CLASSES[block]} is now:\n{as_written(installed)}"


@pytest.mark.real
def test_the_installed_versions_are_those_the_messages_name() -> None:
    for block, (module, _) in INSTALLED.items():
        version = importlib.import_module(module.split(".")[0]).__version__
        assert ".".join(version.split(".")[:2]) in CLASSES[block]


@pytest.mark.real
def test_sampling_has_the_names_of_vllm() -> None:
    from vllm import SamplingParams

    assert set(Sampling.model_fields) <= set(SamplingParams.__struct_fields__)


@pytest.mark.parametrize(
    ("block", "given", "says"),
    [
        ("lora", {"r": 0}, "must be >= 1 (it is 0)"),
        ("lora", {"r": True}, "must be a whole number (it is True)"),
        ("lora", {"r": 8.0}, "must be a whole number"),
        ("lora", {"r": None}, "must be a whole number (it is None)"),
        ("lora", {"r": 513}, "rank 512; take a smaller r"),
        ("lora", {"loraplus_lr_ratio": 0.5}, "must be >= 1"),
        ("lora", {"loraplus_lr_ratio": "16"}, "must be a number"),
        ("lora", {"rank_pattern": {"q_proj": 1024}}, "rank 512"),
        ("lora", {"lora_alpha": 0}, "must be > 0"),
        ("lora", {"lora_dropout": 1}, "must be >= 0 and < 1"),
        ("lora", {"lora_dropout": -0.1}, "must be >= 0"),
        ("lora", {"use_dora": True}, "use_rslora"),
        ("lora", {"use_dora": 1}, "must be true or false"),
        ("lora", {"bias": "all"}, "take none"),
        ("lora", {"lora_bias": True}, "remove it"),
        ("lora", {"modules_to_save": ["lm_head"]}, "method: full"),
        ("lora", {"target_modules": ["q_proj", "lm_head"]}, "take all-linear"),
        ("lora", {"target_modules": ".*(q_proj|lm_head)"}, "take all-linear"),
        ("lora", {"target_modules": ["model.embed_tokens"]}, "take all-linear"),
        ("lora", {"target_modules": ["wte", "c_attn"]}, "take all-linear"),
        ("lora", {"layer_replication": [[0, 2]]}, "no such adapter"),
        ("lora", {"use_qalora": True}, "method: qlora"),
        ("lora", {"use_bdlora": {}}, "no such adapter"),
        ("lora", {"alora_invocation_tokens": [1]}, "no such adapter"),
        ("lora", {"task_type": "CAUSAL_LM"}, "the run decides it; remove it"),
        ("lora", {"loftq_config": {}}, "plain LoRA only; remove it"),
        *(
            ("lora", {"init_lora_weights": way}, "take true, gaussian")
            for way in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "PiSSA")
        ),
        ("sft", {"learning_rate": 0}, "must be > 0"),
        ("sft", {"learning_rate": "1e-4"}, "must be a number (it is '1e-4')"),
        ("sft", {"learning_rate": None}, "must be a number (it is None)"),
        ("sft", {"learning_rate": float("nan")}, "must be > 0"),
        ("sft", {"num_train_epochs": -1}, "must be > 0"),
        ("sft", {"per_device_train_batch_size": 0}, "must be >= 1"),
        ("sft", {"per_device_train_batch_size": 1.5}, "must be a whole number"),
        ("sft", {"gradient_accumulation_steps": 0}, "must be >= 1"),
        ("sft", {"weight_decay": -1}, "must be >= 0"),
        ("sft", {"warmup_steps": -1}, "must be >= 0"),
        ("sft", {"max_grad_norm": -1}, "must be >= 0"),
        ("sft", {"max_length": 0}, "must be >= 1"),
        ("sft", {"max_length": "512"}, "must be a whole number or null"),
        ("sft", {"lr_scheduler_type": False}, "must be text; put it in quotes"),
        ("sft", {"packing": True}, "remove it"),
        ("sft", {"save_strategy": "steps"}, "makes checkpoints itself"),
        ("sft", {"eval_strategy": "epoch"}, "nothing is evaluated"),
        ("sft", {"report_to": "wandb"}, "its own folder only"),
        ("sft", {"use_liger_kernel": True}, "deprecates"),
        ("sft", {"assistant_only_loss": True}, "it does nothing here"),
        ("sft", {"dataset_text_field": "text"}, "it does nothing here"),
        ("sft", {"chat_template_path": "x"}, "it does nothing here"),
        ("sft", {"eos_token": "x"}, "it does nothing here"),
        ("sft", {"completion_only_loss": False}, "it does nothing here"),
        ("sft", {"seed": 1}, "the recipe's own seed"),
        ("sft", {"bf16": True}, "the machine decides it"),
        ("engine", {"model": "x"}, "teacher.model and student.model"),
        ("engine", {"seed": 1}, "sampling.seed"),
        ("engine", {"enable_lora": True}, "student.method"),
        ("engine", {"max_lora_rank": 64}, "student.lora.r"),
        ("engine", {"data_parallel_size": 2}, "tensor_parallel_size, or one run for each card"),
        ("engine", {"data_parallel_size": 0}, "tensor_parallel_size, or one run for each card"),
        ("engine", {"quantization": "bitsandbytes"}, "AWQ or GPTQ"),
        ("engine", {"quantization": "gguf"}, "AWQ or GPTQ"),
        ("engine", {"trust_remote_code": True}, "runs code"),
        ("engine", {"gpu_memory_utilization": 0}, "must be > 0 and <= 1"),
        ("engine", {"gpu_memory_utilization": 90}, "must be > 0 and <= 1"),
        ("engine", {"tensor_parallel_size": 0}, "must be >= 1"),
        ("engine", {"max_num_batched_tokens": 0}, "must be >= 1"),
        ("engine", {"kv_cache_memory_bytes": 0}, "must be >= 1"),
        ("engine", {"kv_cache_memory_bytes": 1e9}, "must be a whole number or null"),
        ("engine", {"dtype": 16}, "must be text; put it in quotes"),
    ],
    ids=str,
)
def test_refused(block: str, given: dict[str, Any], says: str) -> None:
    ((name, message),) = faults(block, given)
    assert [name] == list(given)
    assert says in message
    assert "\n" not in message
    assert message.endswith(f"(it is {given[name]!r})")


@pytest.mark.parametrize(
    ("block", "given"),
    [
        ("lora", {"r": 512, "lora_alpha": 16, "lora_dropout": 0.0, "use_rslora": True, "target_modules": "all-linear"}),
        ("lora", {"init_lora_weights": "eva", "loraplus_lr_ratio": 16}),
        ("lora", {"init_lora_weights": "gaussian", "bias": "none", "use_dora": False, "modules_to_save": None}),
        ("lora", {"init_lora_weights": True, "rank_pattern": {"q_proj": 64}, "exclude_modules": ["lm_head"]}),
        ("sft", {"learning_rate": 1, "num_train_epochs": 3, "warmup_steps": 0.1, "max_length": None, "max_steps": -1}),
        ("sft", {"weight_decay": 0.0, "max_grad_norm": 0, "optim": "adamw_8bit", "gradient_checkpointing": False}),
        ("sft", {"packing": False, "save_strategy": "no", "report_to": [], "logging_nan_inf_filter": False}),
        ("engine", {"quantization": "awq_marlin", "kv_cache_dtype": "fp8", "gpu_memory_utilization": 1}),
        ("engine", {"tensor_parallel_size": 2, "data_parallel_size": 1, "enable_prefix_caching": None}),
        ("engine", {"kv_cache_memory_bytes": None, "max_num_batched_tokens": 1, "trust_remote_code": False}),
    ],
    ids=str,
)
def test_allowed(block: str, given: dict[str, Any]) -> None:
    assert list(faults(block, given)) == []


@pytest.mark.parametrize(
    "option", [{"quantization": "fp8"}, {"quantization": "fp8_per_block"}, {"enable_sleep_mode": True}]
)
def test_refused_on_a_cpu_only(option: dict[str, Any]) -> None:
    assert list(faults("engine", option)) == list(faults("engine", option, "cuda")) == []
    ((name, message),) = faults("engine", option, "cpu")
    assert [name] == list(option)
    assert "CPU" in message or "GPU" in message


def test_every_name_that_is_used_is_in_a_table() -> None:
    from fcot_lite import options

    names = {name for table in TABLES.values() for name in table}
    assert RANGES.keys() <= names
    numbers = {kind for table in TABLES.values() for name, kind in table.items() if name in RANGES}
    assert numbers <= {"int", "int?", "float", "float?"}, "a range is for a number"
    for block, table in TABLES.items():
        never = [name for words in options._NEVER[block].values() for name in words.split()]
        assert len(never) == len(set(never))
        assert set(never) | set(options._REFUSED[block]) <= table.keys()
        assert not set(never) & set(options._REFUSED[block])
        assert set(usable(block)) == table.keys() - set(never)
    assert options._REFUSED_ON_CPU.keys() <= TABLES["engine"].keys()


def test_every_alias_leads_to_a_key() -> None:
    from fcot_lite import options

    assert len(options._OURS) == sum(len(aliases.split()) for aliases in options._ALIASES.values()), "no alias twice"
    for alias in options._OURS:
        for block in ("", "teacher", "evaluate", "student", "curate"):
            for key in str(options.our_name(alias, block)).split(" and "):
                assert is_key(key), f"{alias} in {block or 'the top'}: {key}"
    assert options.our_name("no_such_option", "") is None


def is_key(key: str) -> bool:
    path = key.split(".")
    if path[0] == "teacher":  # one of two blocks
        return any(_is_key_of(block, path[1:]) for block in (TeacherBlock, ImportBlock))
    return _is_key_of(Recipe, path)


def _is_key_of(at: Any, path: list[str]) -> bool:
    for n, part in enumerate(path):
        if part not in getattr(at, "model_fields", {}):
            # prompts.NAME.system; lora.r
            return path[0] == "prompts" or (n == len(path) - 1 and part in usable(path[n - 1]))
        at = at.model_fields[part].annotation
    return True


@pytest.mark.real
def test_the_choices_are_the_libraries_own() -> None:
    from typing import get_args

    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames
    from trl import SFTConfig
    from vllm.config.model import ModelDType

    fields = {field.name: field for field in dataclasses.fields(SFTConfig)}
    assert set(options.CHOICES["optim"]) < {name.value for name in OptimizerNames}
    assert set(options.CHOICES["lr_scheduler_type"]) == {name.value for name in SchedulerType} - {
        "reduce_lr_on_plateau", "greedy",
    }  # fmt: skip
    assert set(options.CHOICES["loss_type"]) == set(fields["loss_type"].metadata["choices"]) - {"chunked_nll"}
    assert options.CHOICES["train_sampling_strategy"] == fields["train_sampling_strategy"].metadata["choices"]
    assert options.CHOICES["dtype"] == list(get_args(ModelDType))


@pytest.mark.parametrize(
    ("block", "given", "says"),
    [
        ("sft", {"lr_scheduler_type": "cosin"}, "did you mean 'cosine'?"),
        ("sft", {"optim": "adamw"}, "did you mean"),
        ("sft", {"loss_type": "chunked_nll"}, "must be one of nll, dft"),
        ("sft", {"train_sampling_strategy": "x"}, "must be one of random, sequential"),
        ("engine", {"dtype": "bf16"}, "did you mean 'bfloat16'?"),
        ("engine", {"worker_cls": "a.b"}, "a recipe names no code"),
        ("engine", {"hf_token": "hf_x"}, "HF_TOKEN"),
        ("engine", {"load_format": "dummy"}, "the model's own weights"),
    ],
)
def test_texts_that_no_library_knows(block: str, given: dict[str, Any], says: str) -> None:
    ((name, message),) = options.faults(block, given)
    assert name in given
    assert says in message


def test_chunked_prefill_on_a_cpu() -> None:
    assert list(options.faults("engine", {"enable_chunked_prefill": True}, "cuda")) == []
    ((name, message),) = options.faults("engine", {"enable_chunked_prefill": True}, "cpu")
    assert (name, "crashes" in message) == ("enable_chunked_prefill", True)
