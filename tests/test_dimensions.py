"""Models' dimensions: the table against published counts, and against config.json."""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

from fcot_lite import dimensions, models
from fcot_lite.dimensions import Dimensions
from fcot_lite.recipe import load

# Parameters as the hub counts them in the weights (norms and biases included, tied embeddings once).
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct-AWQ": 7_615_616_512,
    "Qwen/Qwen2.5-Math-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen/Qwen3-8B-AWQ": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": 8_030_261_248,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "google/gemma-2-2b-it": 2_614_341_888,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-3-1b-it": 999_885_952,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_the_table_explains_the_published_count(name: str, parameters: int) -> None:
    form = dimensions.known(name)
    assert form is not None
    assert form.parameters < parameters, "norms and biases are left out"
    assert form.parameters == pytest.approx(parameters, rel=1e-3)


def test_every_row_of_the_table_is_held_against_a_count() -> None:
    assert {dimensions.known(name) for name in PUBLISHED} == {
        dimensions.known(f"org/{key}") for key in dimensions._TABLE
    }


def test_every_model_of_the_recipes_is_known() -> None:
    for file in sorted((REPOSITORY / "recipes").glob("*.yaml")):
        for name in load(file).models:
            assert dimensions.known(name) is not None, f"{file.name}: {name}"


def test_published_adapters_and_caches() -> None:
    """LoRA's trainable parameters at rank 16 and KV KiB a token, as published for these models."""
    for name, millions, kib in (("7B", 40.37, 56), ("3B", 29.93, 36), ("1.5B", 18.46, 28), ("0.5B", 8.80, 12)):
        form = dimensions.known(f"Qwen/Qwen2.5-{name}")
        assert form is not None
        assert 16 * form.linear_sizes() / 1e6 == pytest.approx(millions, rel=0.001)
        assert form.kv_bytes_per_token == kib * 1024


@pytest.mark.parametrize("name", ["org/mystery-7B", "Qwen/Qwen2.5", "starter:none", "Qwen/Qwen3-30B-A3B", "", "/"])
def test_a_model_that_is_not_known(name: str) -> None:
    assert dimensions.of(name) is None
    assert dimensions.smaller(name) == []


def test_smaller_models_of_a_family_are_called_as_the_larger() -> None:
    assert dimensions.smaller("Qwen/Qwen2.5-7B-Instruct-AWQ") == [
        f"Qwen/Qwen2.5-{size}-Instruct-AWQ" for size in ("3B", "1.5B", "0.5B")
    ]
    assert dimensions.smaller("google/gemma-2-9b-it") == ["google/gemma-2-2b-it"]
    assert dimensions.smaller("HuggingFaceTB/SmolLM2-135M-Instruct") == []
    assert dimensions.smaller("starter:qwen2.5-coder-0.5b-instruct") == []
    assert dimensions.smaller("Qwen/Qwen3-4B-Instruct-2507") == [], "there is no Qwen3-1.7B-Instruct-2507"


def test_targets_of_lora_by_name() -> None:
    form = dimensions.known("mistralai/Mistral-7B-v0.1")
    assert form is not None
    attention = form.linear_sizes(["q_proj", "k_proj", "v_proj", "o_proj"])
    assert 0 < attention < form.linear_sizes()
    assert form.linear_sizes("q_proj") == 32 * 2 * 4096


def test_a_config_at_hand_goes_first(tmp_path: Path) -> None:
    config = {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24}
    config |= {"intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    form = dimensions.of("Qwen/Qwen2.5-7B", tmp_path)
    assert form == Dimensions(24, 896, 896, 128, 4864, 151936, True, 14) == dimensions.of(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config}))
    assert dimensions.of("", tmp_path) == form
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_local_experts": 8}))
    assert dimensions.of("", tmp_path) is None, "not all of its parameters are known"
    del config["tie_word_embeddings"]
    for model_type, tied in (("gemma2", True), ("llama", False)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
        form = dimensions.of("", tmp_path)
        assert form is not None
        assert form.tied is tied, f"the default of {model_type} in transformers"
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    assert dimensions.of("Qwen/Qwen2.5-7B", tmp_path) is None, "another architecture is not guessed"


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def test_the_starters_are_what_the_table_says(name: str) -> None:
    folder = models.resolve(f"starter:{name}", say=print)
    assert dimensions.of_folder(folder) == dimensions.known(f"starter:{name}")
