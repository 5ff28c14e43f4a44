"""What a recipe takes, roughly, before anything is loaded: the memory of each stage and the disk.

Rough: rows as long as the recipe allows, and round constants for the libraries. What is said here, in GiB, beside the
peak PSS that three runs on two CPU cores measured:

    recipe                      sample       train        evaluate
    quickstart                  4.4 / 4.3    3.8 / 3.3    3.0 / 2.9
    cpu, gsm8k                  4.4 / 4.1    4.3 / 3.9    3.0 / 2.7
    cpu, multiarith, batch 8    4.4 / 4.1    6.6 / 7.0    3.0 / 2.7

On a card nothing here was held against a measurement yet.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcot_lite.engines.vllm import engine_arguments
from fcot_lite.files import read_json
from fcot_lite.machine import Machine
from fcot_lite.models import STARTERS, Starter
from fcot_lite.recipe import EngineBlock, StudentBlock
from fcot_lite.student import lora_arguments, sft_arguments

GIB = 2**30
LIBRARIES_GIB = 1.5  # torch with vLLM or TRL; on a card the CUDA context, the graphs and the scratch memory
# The 8h + 2q + 4kv + 4i values a layer keeps for the way back leave out what the adapters keep and what lies idle
# between tensors: by the three runs above, this much more.
ACTIVATIONS_MARGIN = 1.3


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights. `source` says where `num_bytes` is known from."""

    num_bytes: int
    source: str
    bytes_each: float = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer by its config.json. `query` and `key_value` are heads times head_dim."""

    layers: int
    hidden: int
    query: int
    key_value: int
    inner: int
    embedding_parameters: int

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.key_value * 2

    @property
    def linear_sizes(self) -> int:
        """Σ (d_in + d_out) over all linear layers: a LoRA of rank r has r times as many parameters."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        return self.layers * (attention + 3 * (self.hidden + self.inner))


@dataclass(frozen=True, slots=True)
class Need:
    """What one stage takes at its peak: GiB by part."""

    stage: str
    parts: Mapping[str, float]

    @property
    def gib(self) -> float:
        return sum(self.parts.values())


def starter(name: str) -> Starter | None:
    """None for a directory and a hub id."""
    return STARTERS.get(name.removeprefix("starter:")) if name.startswith("starter:") else None


def weights(name: str, folder: Path | None) -> Weights | None:
    """The weights of the model `name`, whose files are in `folder` (None: not here yet); None where nothing tells."""
    if known := starter(name):
        return Weights(known.weights_bytes, "the starter's list")
    if folder is not None:
        return Weights(sum(file.stat().st_size for file in folder.glob("*.safetensors")), "its files")
    size = re.search(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name.rpartition("/")[2].lower())
    if size is None:
        return None
    experts, number, unit = size.groups()
    parameters = int(experts or 1) * float(number) * (1e9 if unit == "b" else 1e6)
    if re.search("int8|8bit|w8a8|fp8", name.lower()):
        bytes_each = 1.0
    else:  # 4 bits and their scales in the layers, 16 in the embeddings
        bytes_each = 0.8 if re.search("awq|gptq|4bit|nf4|int4", name.lower()) else 2
    return Weights(round(parameters * bytes_each), "its name", bytes_each)


def shape(folder: Path | None) -> Shape | None:
    """None where the model is not here, or its config.json does not use the usual names."""
    if folder is None:
        return None
    config: dict[str, Any] = read_json(folder / "config.json")
    config = config.get("text_config", config)
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        matrices = 1 if config.get("tie_word_embeddings") else 2
        return Shape(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            query=heads * head_dim,
            key_value=(config.get("num_key_value_heads") or heads) * head_dim,
            inner=config["intermediate_size"],
            embedding_parameters=matrices * config["vocab_size"] * hidden,
        )
    except KeyError:
        return None


def sampling(stage: str, model: Weights, form: Shape | None, options: EngineBlock, machine: Machine) -> Need:
    """vLLM on this model: on a card with the cache of one full-length sequence, less than which it refuses to start."""
    gib = model.num_bytes / GIB
    if machine.device == "cpu":
        cache = engine_arguments("", options, machine)["kv_cache_memory_bytes"] or 0
        # The weights twice: as they are read, and packed anew for the matrix products.
        return Need(stage, {"weights, twice": 2 * gib, "KV cache": cache / GIB, "libraries": LIBRARIES_GIB})
    arguments = engine_arguments("", options, machine)
    # FP8 from 16-bit weights halves them. A second card takes half of the layers' weights, and half of the cache.
    cards = arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)
    halved = 0.5 if str(arguments.get("quantization", "")).startswith("fp8") and model.bytes_each == 2 else 1.0
    parts = {"weights": gib * halved / cards, "libraries": LIBRARIES_GIB}
    if fixed := arguments.get("kv_cache_memory_bytes"):
        parts["KV cache"] = fixed / GIB
    elif form is not None:
        parts["KV cache of one sequence"] = form.kv_bytes_per_token * options.max_model_len / GIB / cards
    return Need(stage, parts)


def training(model: Weights, form: Shape | None, student: StudentBlock, max_length: int, machine: Machine) -> Need:
    """Weights by method, adapters, activations of one micro-batch of rows of `max_length` tokens."""
    arguments = sft_arguments(student.sft, machine, 0, Path())
    parameters = model.num_bytes / 2
    if student.method == "full":
        parts = {"weights, gradients, Adam in float32": 16 * parameters / GIB}
    elif student.method == "lora":
        parts = {"weights": model.num_bytes / GIB}
    else:
        embedded = form.embedding_parameters if form else 0.2 * parameters
        # NF4 with double quantisation: 4.127 bits a parameter (arXiv 2305.14314). The embeddings stay in 16 bits.
        parts = {"weights in NF4": (0.516 * max(parameters - embedded, 0) + 2 * embedded) / GIB}
    if form is not None:
        if student.method != "full":
            rank = lora_arguments(student.lora)["r"]
            parts["adapters"] = 16 * rank * form.linear_sizes / GIB  # float32: value, gradient, two moments of Adam
        tokens = arguments.get("per_device_train_batch_size", 8) * max_length
        layer = 2 * tokens * (8 * form.hidden + 2 * form.query + 4 * form.key_value + 4 * form.inner)
        if arguments["gradient_checkpointing"]:
            kept = layer + 2 * form.layers * form.hidden * tokens
        else:
            kept = layer * form.layers
        parts["activations"] = ACTIVATIONS_MARGIN * kept / GIB
    return Need("train", parts | {"libraries": LIBRARIES_GIB})
