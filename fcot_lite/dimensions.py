"""The dimensions of models: by config.json where that is at hand, else of known ones by name, without a network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcot_lite import models
from fcot_lite.files import read_json


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A decoder of gated blocks by its config.json. `query` and `key_value` are heads times head_dim."""

    layers: int
    hidden: int
    query: int
    key_value: int
    inner: int
    vocabulary: int
    tied: bool
    heads: int

    @property
    def embedding_parameters(self) -> int:
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def linear_parameters(self) -> int:
        """Those of the layers' matrices, which NF4 packs and every token is multiplied with."""
        attention = 2 * self.hidden * (self.query + self.key_value)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """All but norms and biases, which are less than a thousandth."""
        return self.embedding_parameters + self.linear_parameters

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.key_value * 2

    def linear_sizes(self, targets: str | Sequence[str] = "all-linear") -> int:
        """Σ (d_in + d_out) over the linear layers that LoRA adapts: at rank r it has r times as many parameters."""
        sizes = {
            "q_proj": self.hidden + self.query,
            "k_proj": self.hidden + self.key_value,
            "v_proj": self.hidden + self.key_value,
            "o_proj": self.query + self.hidden,
            "gate_proj": self.hidden + self.inner,
            "up_proj": self.hidden + self.inner,
            "down_proj": self.inner + self.hidden,
        }
        names = sizes if targets == "all-linear" else [targets] if isinstance(targets, str) else targets
        return self.layers * sum(sizes.get(name, 0) for name in names)


# layers, heads, KV heads, head_dim, hidden, inner, vocabulary, tied: from each model's config.json on the hub.
# tests/test_dimensions.py holds the parameters that follow against the published counts.
_TABLE: dict[str, tuple[int, int, int, int, int, int, int, bool]] = {
    "qwen2.5-0.5b": (24, 14, 2, 64, 896, 4864, 151_936, True),
    "qwen2.5-1.5b": (28, 12, 2, 128, 1536, 8960, 151_936, True),
    "qwen2.5-3b": (36, 16, 2, 128, 2048, 11_008, 151_936, True),
    "qwen2.5-7b": (28, 28, 4, 128, 3584, 18_944, 152_064, False),
    "qwen2.5-14b": (48, 40, 8, 128, 5120, 13_824, 152_064, False),
    "qwen2.5-32b": (64, 40, 8, 128, 5120, 27_648, 152_064, False),
    "qwen3-0.6b": (28, 16, 8, 128, 1024, 3072, 151_936, True),
    "qwen3-1.7b": (28, 16, 8, 128, 2048, 6144, 151_936, True),
    "qwen3-4b": (36, 32, 8, 128, 2560, 9728, 151_936, True),
    "qwen3-8b": (36, 32, 8, 128, 4096, 12_288, 151_936, False),
    "qwen3-14b": (40, 40, 8, 128, 5120, 17_408, 151_936, False),
    "llama-3.2-1b": (16, 32, 8, 64, 2048, 8192, 128_256, True),
    "llama-3.2-3b": (28, 24, 8, 128, 3072, 8192, 128_256, True),
    "llama-3.1-8b": (32, 32, 8, 128, 4096, 14_336, 128_256, False),
    "smollm2-135m": (30, 9, 3, 64, 576, 1536, 49_152, True),
    "smollm2-360m": (32, 15, 5, 64, 960, 2560, 49_152, True),
    "smollm2-1.7b": (24, 32, 32, 64, 2048, 8192, 49_152, True),
    "gemma-2-2b": (26, 8, 4, 256, 2304, 9216, 256_000, True),
    "gemma-2-9b": (42, 16, 8, 256, 3584, 14_336, 256_000, True),
    "gemma-3-1b": (26, 4, 1, 256, 1152, 6912, 262_144, True),
    "mistral-7b-v0.1": (32, 32, 8, 128, 4096, 14_336, 32_000, False),
    "mistral-7b-v0.3": (32, 32, 8, 128, 4096, 14_336, 32_768, False),
}
# What a name says beside its model: how it was tuned and how it is packed. None of it changes the dimensions.
_VARIANTS = re.compile(
    r"-(?:instruct|it|base|chat|coder|math|awq|gptq|int4|int8|fp8|bnb|4bit|8bit|w8a8|w4a16|dynamic|unsloth|2507)(?=-|$)"
)


def known(name: str) -> Dimensions | None:
    """The dimensions of a model that the table knows by `name` (a hub id or a starter, tuned or packed in any way)."""
    if (starter := models.starter(name)) is not None:
        name = starter.upstream
    row = _TABLE.get(_VARIANTS.sub("", name.rpartition("/")[2].lower().removeprefix("meta-")))
    if row is None:
        return None
    layers, heads, kv_heads, head_dim, hidden, inner, vocabulary, tied = row
    return Dimensions(layers, hidden, heads * head_dim, kv_heads * head_dim, inner, vocabulary, tied, heads)


def of_folder(folder: Path) -> Dimensions | None:
    """Those of the config.json in `folder`; None where it does not use the usual names, or has experts."""
    config: dict[str, Any] = read_json(folder / "config.json")
    config = config.get("text_config", config)
    if any("experts" in key and value for key, value in config.items()):
        return None  # by one expert's size, an 8x7B would be planned as a 7B
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        return Dimensions(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            query=heads * head_dim,
            key_value=(config.get("num_key_value_heads") or heads) * head_dim,
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", _tied_by_default(str(config.get("model_type"))))),
            heads=heads,
        )
    except KeyError:
        return None


def _tied_by_default(model_type: str) -> bool:
    """A config.json leaves out what is its type's default."""
    return model_type.startswith(("gemma", "cohere", "smollm3"))


def of(name: str, folder: Path | None = None) -> Dimensions | None:
    """Those of the model `name`: its own config.json where its files are at hand, else the table's."""
    if folder is None and Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    if folder is not None and (folder / "config.json").exists():
        return of_folder(folder)
    return known(name)


def smaller(name: str) -> list[str]:
    """Models of the same family that the table knows to be smaller, the largest first, as `name` would call them."""
    found, size = known(name), re.search(r"(?<=-)\d+(?:\.\d+)?[bm](?=-|$)", name.lower())
    # Of Qwen's Math and 2507 models there are fewer sizes than of the plain ones.
    if found is None or size is None or "/" not in name or re.search("-math-|-2507", name.lower()):
        return []
    family = _VARIANTS.sub("", name.rpartition("/")[2].lower().removeprefix("meta-")).partition(f"-{size[0]}")[0]
    unit = name[size.end() - 1]
    names = []
    for key in _TABLE:
        start, _, own = key.rpartition("-")
        if start == family and (form := known(key)) is not None and form.parameters < found.parameters:
            called = own if unit.islower() else own.upper()
            names.append((form.parameters, name[: size.start()] + called + name[size.end() :]))
    return [called for _, called in sorted(names, reverse=True)]
