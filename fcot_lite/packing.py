"""Batches without padding, for models whose attention is known to keep rows apart; else rows of one length together.

TRL's `padding_free` lays the rows of a micro-batch end to end and starts `position_ids` anew with each. A step holds
the same rows as with padding, in the same order, under the same loss; only the padding is gone. TRL's `packing` would
fill rows of `max_length` instead, so that a step held as many rows as happened to fit.

Everything but the attention works on tokens one by one. The attention here takes each row by itself, so that no row can
see another and nothing is computed only to be masked; transformers' own for such batches masks all tokens against all.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from fcot_lite.machine import Machine

# What passes `cu_seq_lens_q` from TRL's collator down to the attention; another version trains with padding.
VERSIONS = {"trl": "1.16.0", "transformers": "5.19.0"}

# tests/test_packing.py holds each against rows run one by one; another type joins by joining the test.
MODEL_TYPES = ("gemma", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3")

# Of padded batches: up to this many tokens transformers' plain attention is faster on a CPU than torch's fused kernel.
# A step of 8 rows of about 200 tokens took 2.15 s against 2.55 s (135M, two AVX512-BF16 cores).
EAGER_ATTENTION_TOKENS = 256

# Ours, of one row, stays ahead for longer: forward and backward of 8 rows of about 150 tokens took 13 ms a layer
# against 26, of 4 rows of 600 … 900 tokens 74 against 121. It keeps the scores for the backward, 4.5 MiB a row and
# layer at 9 heads x 512 x 512, so longer rows take the kernel that does not.
PLAIN_ATTENTION_TOKENS = 512

BY_ROW = "by_row"  # the name under which transformers knows `_attend_by_row`


@dataclass(frozen=True, slots=True)
class Batching:
    """How the rows of a micro-batch come together; `why_padded` is None where they are laid end to end."""

    attn_implementation: str
    why_padded: str | None

    @property
    def padding_free(self) -> bool:
        return self.why_padded is None

    def __str__(self) -> str:
        return "padding-free" if self.padding_free else f"length-grouped, because {self.why_padded}"


def choose(config: Any, machine: Machine, longest_row_tokens: int) -> Batching:
    """The batching for a model with this transformers config."""
    why_padded = _why_padded(config.get_text_config(), longest_row_tokens)
    if why_padded is not None:
        plain = machine.device == "cpu" and longest_row_tokens <= EAGER_ATTENTION_TOKENS
        return Batching("eager" if plain else "sdpa", why_padded)
    ampere = machine.compute_capability is not None and machine.compute_capability >= (8, 0)
    if ampere and importlib.util.find_spec("flash_attn") is not None:
        return Batching("flash_attention_2", None)  # one kernel for all rows of a batch
    _register()
    return Batching(BY_ROW, None)


def measure_padding(model: Any) -> Callable[[], float | None]:
    """Watches what `model` is trained on from now on; call it for the share of positions that held no token."""
    num_positions, num_tokens = 0, 0

    def count(module: Any, _: Any, inputs: dict[str, Any]) -> None:
        nonlocal num_positions, num_tokens
        if module.training:
            positions, mask = inputs["input_ids"].numel(), inputs.get("attention_mask")
            num_positions += positions
            num_tokens += positions if mask is None else mask.sum()  # on a card still a tensor: nothing waits for it

    model.register_forward_pre_hook(count, with_kwargs=True)
    return lambda: 1 - float(num_tokens) / num_positions if num_positions else None


def _why_padded(config: Any, longest_row_tokens: int) -> str | None:
    for name, tested in VERSIONS.items():
        if version(name) != tested:
            return f"{name} {version(name)} is installed, batches without padding are tested with {tested}"
    if config.model_type not in MODEL_TYPES:
        return f"batches without padding are tested with {', '.join(MODEL_TYPES)}, not with {config.model_type}"
    window = getattr(config, "sliding_window", None)
    if window is not None and window < longest_row_tokens:
        return f"the longest row has {longest_row_tokens} tokens, the attention's window {window}"
    return None


@cache
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(BY_ROW, _attend_by_row)


def _attend_by_row(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: None,
    *,
    cu_seq_lens_q: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """Causal attention of each row to itself: tensors of (1, heads, tokens, width) as transformers hands them over, and
    (1, tokens, heads, width) back. Rows start at `cu_seq_lens_q`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if cu_seq_lens_q is None:  # nothing tells the rows apart; a padded batch would attend to its padding
        raise ValueError(f"attn_implementation {BY_ROW!r} is for training on batches without padding")
    lengths = cu_seq_lens_q.diff().tolist()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    group = query.shape[1] // key.shape[1]
    attended = []
    for q, k, v in zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True):
        if query.device.type == "cpu" and q.shape[2] <= PLAIN_ATTENTION_TOKENS and not dropout:
            attended.append(_plain_attention(q[0], k[0], v[0], scaling)[None])
        else:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            attended.append(scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling))
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _plain_attention(query: Any, key: Any, value: Any, scaling: float) -> Any:
    """Of one row, (heads, tokens, width). The query heads that share a key head are one matrix product."""
    import torch

    heads, num_tokens, width = query.shape
    stacked = (len(key), heads // len(key) * num_tokens, width)
    scores = torch.bmm((query * scaling).reshape(stacked), key.transpose(1, 2))
    hidden = scores.new_full((num_tokens, num_tokens), torch.finfo(scores.dtype).min).triu(1)
    weights = torch.softmax(scores.view(heads, num_tokens, num_tokens) + hidden, dim=-1)
    return torch.bmm(weights.view(len(key), -1, num_tokens), value).view(heads, num_tokens, width)
