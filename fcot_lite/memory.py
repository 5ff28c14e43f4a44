"""What a stage takes at its peak, bottom up: every term is something that is kept, with what it was measured against.

`benchmarks/memory.py` holds the training terms against allocations that were counted; benchmarks/README.md has the
table. On a card the terms are held against published runs (tests/test_memory.py); nothing here was measured on one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fcot_lite import models
from fcot_lite.dimensions import Dimensions
from fcot_lite.engines.vllm import engine_arguments
from fcot_lite.labelled_head import ROWS_PER_PRODUCT, ROWS_PER_SOFTMAX
from fcot_lite.machine import Machine
from fcot_lite.packing import PLAIN_ATTENTION_TOKENS
from fcot_lite.recipe import EngineBlock, StudentBlock
from fcot_lite.student import lora_arguments, sft_arguments

GIB = 2**30
LIBRARIES_GIB = 1.5  # what torch with vLLM or TRL takes of a process on a CPU; three runs of the loop fit it
CUDA_CONTEXT_GIB = 0.6  # 0.4 to 0.7 on cards of the last generations
# Of what torch allocates, as much lies idle between tensors: torch's peak against the driver's in the A100 runs of
# foundation-model-stack/fms-acceleration (scripts/benchmarks/refs/a100_80gb.csv) differs by 6 % (full) to 15 %.
FRAGMENTATION = 0.08
GRAPHS_GIB = 1.0  # vLLM's CUDA graphs and workspaces

# NF4 with double quantisation: 4 bits, an 8-bit scale for 64 of them, a 32-bit one for 256 of those (arXiv 2305.14314).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
ADAM_BYTES = {"8bit": 2 + 8 / 256, "": 8}  # two moments; bitsandbytes keeps a scale for 256 of each


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights on disk. `source` says where `num_bytes` is known from."""

    num_bytes: int
    source: str
    bytes_each: float = 2


@dataclass(frozen=True, slots=True)
class Need:
    """What one stage takes at its peak: GiB by part."""

    stage: str
    parts: Mapping[str, float]

    @property
    def gib(self) -> float:
        return sum(self.parts.values())


def weights(name: str, folder: Path | None, form: Dimensions | None = None) -> Weights | None:
    """The weights of the model `name`, whose files are in `folder` (None: not here yet); None where nothing tells."""
    if (starter := models.starter(name)) is not None:
        return Weights(starter.weights_bytes, "the starter's list")
    if folder is not None:
        return Weights(sum(file.stat().st_size for file in folder.glob("*.safetensors")), "its files")
    bits = bits_in_name(name)
    if form is not None:
        # 4 bits and a 16-bit scale and zero for 128 of them, 16 bits in the embeddings
        size = {4: 0.53, 8: 1.0, 16: 2.0}[bits] * form.linear_parameters + 2 * form.embedding_parameters
        return Weights(round(size), "its dimensions", size / form.parameters)
    lower = name.rpartition("/")[2].lower()
    size_in_name = re.search(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", lower)
    if size_in_name is None:
        return None
    experts, number, unit = size_in_name.groups()
    parameters = int(experts or 1) * float(number) * (1e9 if unit == "b" else 1e6)
    each = {4: 0.8, 8: 1.0, 16: 2.0}[bits]  # 4 bits and their scales in the layers, 16 elsewhere
    return Weights(round(parameters * each), "its name", each)


def bits_in_name(name: str) -> int:
    """Of a weight, by what the name says of its packing; 16 where it says nothing."""
    lower = name.rpartition("/")[2].lower()
    if re.search("int8|8bit|w8a8|fp8", lower):
        return 8
    return 4 if re.search("awq|gptq|4bit|nf4|int4|w4a16", lower) else 16


# ---- sampling ----------------------------------------------------------------------------------------------------


def sampling(stage: str, model: Weights, form: Dimensions | None, options: EngineBlock, machine: Machine) -> Need:
    """vLLM on this model: on a card with the cache of one full-length sequence, less than which it refuses to start."""
    arguments = engine_arguments("", options, machine)
    gib = model.num_bytes / GIB
    if machine.device == "cpu":
        cache = arguments["kv_cache_memory_bytes"] or 0
        # The weights twice: as they are read, and packed anew for the matrix products.
        return Need(stage, {"weights, twice": 2 * gib, "KV cache": cache / GIB, "libraries": LIBRARIES_GIB})
    parts = {"weights": gib * _as_served(model, options, machine), "context and graphs": CUDA_CONTEXT_GIB + GRAPHS_GIB}
    if form is not None:
        # The largest batch of prompts passes once through a block and the last tokens through the head.
        tokens, rows = arguments.get("max_num_batched_tokens", 8192), arguments["max_num_seqs"]
        block = tokens * 2 * (4 * form.hidden + 3 * form.inner)
        parts["activations"] = (block + rows * form.vocabulary * (2 + 4)) / GIB / _cards(arguments)
    if fixed := arguments.get("kv_cache_memory_bytes"):
        parts["KV cache"] = fixed / GIB
    elif form is not None:
        parts["KV cache of one sequence"] = form.kv_bytes_per_token * options.max_model_len / GIB / _cards(arguments)
    return Need(stage, parts)


def cache_gib(need: Need, options: EngineBlock, machine: Machine) -> float:
    """What is left for the KV cache of all sequences: all of vLLM's share of the card but the other parts of `need`."""
    arguments = engine_arguments("", options, machine)
    if fixed := arguments.get("kv_cache_memory_bytes"):
        return float(fixed / GIB)
    share = arguments["gpu_memory_utilization"] * (machine.gpu_memory_gib or 0)
    return float(share - sum(gib for part, gib in need.parts.items() if not part.startswith("KV cache")))


def _cards(arguments: Mapping[str, int]) -> int:
    return arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1)


def _as_served(model: Weights, options: EngineBlock, machine: Machine) -> float:
    """FP8 from 16-bit weights halves them; each of several cards takes its share."""
    arguments = engine_arguments("", options, machine)
    halved = str(arguments.get("quantization", "")).startswith("fp8") and model.bytes_each == 2
    return (0.5 if halved else 1.0) / _cards(arguments)


# ---- training ----------------------------------------------------------------------------------------------------


def training(form: Dimensions, student: StudentBlock, row_tokens: int, machine: Machine, labelled: float = 1.0) -> Need:
    """TRL on one micro-batch whose rows are all `row_tokens` long, `labelled` of them with a label.

    The parts are those at the moment of the peak: at the head, at the first or the last layer of the way
    back, at its end; or before, while weights are packed.
    """
    arguments = sft_arguments(student.sft, machine, 0, Path(), method=student.method)
    batch = arguments.get("per_device_train_batch_size", 8)
    tokens, full = batch * row_tokens, student.method == "full"
    checkpointing, cpu = arguments["gradient_checkpointing"], machine.device == "cpu"
    lora = lora_arguments(student.lora)
    rank, targets = 0 if full else lora["r"], lora["target_modules"]
    trained = form.parameters if full else rank * form.linear_sizes(targets)
    adam = ADAM_BYTES["8bit" if "8bit" in arguments["optim"] else ""]

    layer = tokens * _kept_per_token(form, full, rank, _attention_bytes(form, row_tokens, cpu))
    # Casts of float32 weights to 16 bits, which autocast keeps until the forward is over and the graph until its use.
    casts = 2 * (form.linear_parameters if full else trained)
    # The way back through one block: the gradients of its wide tensors, before what they come from is free.
    back = tokens * (4 * form.inner + 2 * form.hidden)
    if student.method == "qlora":
        back += 2 * form.hidden * max(form.inner, form.query)  # the matrix that is unpacked
    one_layer = layer + casts / form.layers + back
    if checkpointing:  # what one layer hands to the next is kept; one layer at a time is computed again
        kept = form.layers * (4 if full else 2) * form.hidden * tokens
        first_back = {"activations": kept, "one layer": one_layer}
    else:
        kept = form.layers * layer
        first_back = {"activations": kept + casts, "one layer": back}
    # Gradients grow as activations go. When the last are there, a tied matrix has three that are trained: as the head,
    # as the input, and their sum.
    twice_more = 8 * form.vocabulary * form.hidden if full and form.tied else 0
    moments: list[dict[str, float]] = [
        {"activations": kept + casts, "head": _head_bytes(form, tokens, round(tokens * labelled), full, cpu)},
        first_back,
        {"gradients": 4 * trained, "one layer": one_layer},
        {"gradients": 4 * trained, "tied gradients": twice_more},
    ]
    parts: dict[str, float] = {
        "weights": {"full": 4, "lora": 2}.get(student.method, 0) * form.parameters,
        "adapters": 0 if full else 4 * trained,
        "optimiser": adam * trained,
    } | max(moments, key=lambda moment: sum(moment.values()))
    if student.method == "qlora":
        parts["weights"] = NF4_BYTES * form.linear_parameters + 2 * form.embedding_parameters
    # On a CPU transformers holds all weights in 16 bits, twice, while it packs them: more than short rows then take.
    loading = 4 * form.parameters if cpu and student.method == "qlora" else 0
    if loading > sum(parts.values()):
        parts = {"weights, while they are packed": loading}
    found = {part: size / GIB for part, size in parts.items() if size}
    if cpu:
        return Need("train", found | {"libraries": LIBRARIES_GIB})
    return Need(
        "train", found | {"CUDA context": CUDA_CONTEXT_GIB, "fragmentation": FRAGMENTATION * sum(found.values())}
    )


def least_to_train(model: Weights, method: str) -> Need:
    """Where no dimensions are known: the weights alone, with their gradients and moments where all are trained."""
    share = {"full": 16 / 2, "lora": 1.0, "qlora": NF4_BYTES / 2}[method]
    return Need("train", {"weights": share * model.num_bytes / GIB})


def _kept_per_token(form: Dimensions, full: bool, rank: int, attention: float) -> float:
    """Bytes of one layer that the backward needs again, for each token.

    With an adapter (16-bit stream): each of two norms keeps its input in float32 and its output, which the adapters'
    first matrices read (6h); gate, silu(gate), up and their product (8i); what lies between an adapter's matrices.
    In full (float32 stream): each norm keeps its input and its quotient in float32 (8h), and autocast casts its output
    anew for each matrix that reads it: five times 2h.
    """
    of_norms = (2 * 8 + 5 * 2) * form.hidden if full else 2 * 6 * form.hidden
    return of_norms + attention + 8 * form.inner + 7 * 2 * rank


def _attention_bytes(form: Dimensions, row_tokens: int, cpu: bool) -> float:
    """Of rows laid end to end (packing.py). Plain attention keeps query, key, value, output and the scores in 16 bits;
    the fused kernel keys and values repeated for each query head, its output beside ours, and one float a head."""
    if cpu and row_tokens <= PLAIN_ATTENTION_TOKENS:
        return 2 * 2 * (form.query + form.key_value) + 2 * form.heads * row_tokens
    return 5 * 2 * form.query + 4 * form.heads


def _head_bytes(form: Dimensions, tokens: int, labelled: int, full: bool, cpu: bool) -> float:
    """The last norm and the head. On a CPU the labelled rows and their logits (labelled_head.py), of which a few rows
    at a time lie there three times in float32; on a card TRL's tiles of 4096 × 32768 in 16 bits beside all positions'
    hidden states. A head that is trained has its gradient in float32 too. Where little is labelled, the norm's way back
    takes more: its input and its gradients, in float32."""
    matrix, norm = form.vocabulary * form.hidden, (10 if full else 6) * tokens * form.hidden
    if not cpu:
        tile = 2 * min(tokens, 4096) * min(form.vocabulary, 32_768)
        head = tile + 4 * tokens * form.hidden + (4 * matrix if full else 0)
    elif full:
        head = 8 * labelled * form.hidden + 2 * 2 * labelled * form.vocabulary + (2 + 4) * matrix
    else:
        logits = 2 * min(labelled, ROWS_PER_PRODUCT) + 3 * 4 * min(labelled, ROWS_PER_SOFTMAX)
        head = 4 * labelled * form.hidden + logits * form.vocabulary
    return max(norm + head, 20 * tokens * form.hidden)
