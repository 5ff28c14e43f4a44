"""The estimate of training's peak against what `student.train` allocates, counted by benchmarks/memory.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from fcot_lite import dimensions, memory
from fcot_lite.machine import Machine
from fcot_lite.recipe import StudentBlock

pytestmark = pytest.mark.real

# Rows of 128 tokens take plain attention, of 600 the fused kernel.
CELLS: dict[str, tuple[str, str, bool, int]] = {
    "full": ("tiny", "full", False, 128),
    "qlora": ("tiny", "qlora", False, 600),
}
COUNT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import memory
cells = json.loads(sys.argv[3])
memory.MODELS["tiny"] = sys.argv[2]
memory.CELLS.update({name: tuple(cell) for name, cell in cells.items()})
print(json.dumps({name: memory.in_a_process(memory.measured, name) for name in cells}))
"""


@pytest.fixture(scope="module")
def tiny(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 3000}
    config = Qwen2Config(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_estimate_is_within_15_percent_of_what_is_allocated(tiny: Path) -> None:
    arguments = [str(REPOSITORY / "benchmarks"), str(tiny), json.dumps(CELLS)]
    done = subprocess.run([sys.executable, "-c", COUNT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout.splitlines()[-1])
    form = dimensions.of_folder(tiny)
    assert form is not None
    ratios = {}
    for name, (_, method, checkpointing, length) in CELLS.items():
        sft = {"gradient_checkpointing": checkpointing, "per_device_train_batch_size": 2}
        student = StudentBlock(model="", prompt="", method=method, lora={"r": 32}, sft=sft)  # type: ignore[arg-type]
        labelled = counted[name]["num_labelled"] / counted[name]["num_tokens"]
        parts = memory.training(form, student, length, Machine("cpu", (0,)), labelled).parts
        estimate = 1024 * sum(gib for part, gib in parts.items() if part != "libraries")
        ratios[name] = estimate / counted[name]["allocated_mib"]
        measured = counted[name]["parts_mib"]
        assert measured["weights"] == pytest.approx(1024 * parts["weights"], rel=0.05)
        assert measured["optimizer"] == pytest.approx(1024 * parts["optimiser"], rel=0.05)
    assert ratios == {name: pytest.approx(1, abs=0.15) for name in CELLS}
