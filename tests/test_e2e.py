"""The whole loop, once, for real: `fcot run` with the 135M starter as teacher and as student."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fcot_lite.files import read_json, read_jsonl

pytestmark = pytest.mark.e2e
MOST_MEMORY_GIB = 7  # of the whole process tree, so that a machine with 8 GB passes
COMMAND = [sys.executable, "-m", "fcot_lite", "run", str(Path(__file__).parent / "e2e.yaml")]


@pytest.fixture(scope="session")
def result(runs: Path) -> dict:
    return read_json(runs / "e2e" / "result.json")


def test_result_is_complete(result: dict) -> None:
    assert result["schema_version"] == 1
    assert result["task"] == "chain_arithmetic"
    assert result["seed"] == 0
    teacher = result["teacher"]
    assert teacher["samples"] == 48 == teacher["samples_new"] + teacher["samples_reused"]
    assert 0 < teacher["pass_rate"] <= teacher["coverage"] <= 1
    assert teacher["num_tokens"] > 48
    assert teacher["num_tokens_cancelled"] >= 0
    assert teacher["tokens_per_accepted"] == pytest.approx(teacher["num_tokens"] / (48 * teacher["pass_rate"]))
    curation = result["curation"]
    assert curation["kept"] + sum(curation["dropped"].values()) == 48
    assert result["student"]["method"] == "qlora"
    assert result["student"]["trainable_parameters"] > 0
    assert result["student"]["tokens_per_second"] > 0
    for key in ("before", "after"):
        method = result["methods"][result[key]]
        assert method["correct"] + method["wrong"] + method["truncated"] + method["errored"] == method["n"] == 8
        assert method["ci95"][0] <= method["accuracy"] <= method["ci95"][1]


def test_what_each_stage_took(result: dict) -> None:
    assert list(result["stages"]) == ["models", "sample", "curate", "train", "evaluate"]
    for name, stage in result["stages"].items():
        assert stage["wall_seconds"] > 0
        assert stage["peak_gpu_allocated_gib"] is None, "nothing was measured on a GPU, so it is null and not 0"
        assert stage["cost_usd"] == pytest.approx(stage["wall_seconds"] / 3600 * 0.10)
        if name != "models":
            assert 0.1 < stage["peak_memory_gib"] < MOST_MEMORY_GIB
    assert result["wall_seconds"] == pytest.approx(math.fsum(s["wall_seconds"] for s in result["stages"].values()))


def test_training_rows_come_from_right_samples(runs: Path) -> None:
    rows = read_jsonl(runs / "e2e" / "train.jsonl")
    samples = {(s["problem_id"], s["sample_index"]): s for s in read_jsonl(runs / "e2e" / "samples.jsonl")}
    assert rows
    for row in rows:
        sample = samples[row["problem_id"], row["sample_index"]]
        assert sample["finish_reason"] == "stop"
        assert [message["role"] for message in row["completion"]] == ["assistant"]
        assert row["prompt"][-1]["role"] == "user"
        assert "/train/" in row["problem_id"]


def test_every_item_of_the_evaluation_is_kept(runs: Path, result: dict) -> None:
    for name, method in result["methods"].items():
        items = read_jsonl(runs / "e2e" / "eval" / f"{name}.jsonl")
        assert len(items) == method["n"]
        assert sum(item["correct"] for item in items) == method["correct"]
        for item in items:
            assert "/test/" in item["problem_id"]
            assert {"prompt", "text", "target", "extracted", "reason", "finish_reason"} <= set(item)


def test_adapter_and_nothing_else_is_left(runs: Path) -> None:
    run = runs / "e2e"
    assert (run / "adapter" / "adapter_model.safetensors").stat().st_size > 100_000
    assert not list(run.rglob("*.tmp")), "temporary files"
    assert not (run / ".merged").exists()
    assert not (run / "checkpoints").exists()


def test_the_table_says_what_the_json_says(runs: Path, result: dict) -> None:
    table = (runs / "stdout.txt").read_text()
    assert f"{100 * result['teacher']['pass_rate']:.1f} %" in table
    for key in ("before", "after"):
        assert f"{100 * result['methods'][result[key]]['accuracy']:.1f} %" in table


def test_again_there_is_nothing_to_do(runs: Path) -> None:
    start = time.monotonic()
    again = subprocess.run([*COMMAND, "--runs", str(runs)], capture_output=True, text=True, timeout=60)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert again.stdout == (runs / "stdout.txt").read_text()
    assert time.monotonic() - start < 20


def test_nothing_of_it_is_still_running(runs: Path) -> None:
    import psutil

    for process in psutil.process_iter(["pid", "cmdline"]):
        assert str(runs) not in " ".join(process.info["cmdline"] or []), process.info


def test_json_on_stdout(runs: Path, result: dict) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fcot_lite", "report", str(runs / "e2e"), "--json"], capture_output=True, text=True
    )
    assert json.loads(shown.stdout) == result


def test_full_fine_tuning_on_the_same_samples(runs: Path, result: dict) -> None:
    changed = ["name=full", "student.method=full", "student.sft.learning_rate=5e-5", "student.sft.num_train_epochs=1"]
    done = subprocess.run(
        [*COMMAND, *changed, "--runs", str(runs), "--json"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    full = json.loads(done.stdout)
    assert full["teacher"]["samples_new"] == 0, "another student costs no teacher token"
    assert full["teacher"]["samples_reused"] == 48
    assert full["teacher"]["pass_rate"] == result["teacher"]["pass_rate"]
    assert full["stages"]["sample"]["num_tokens"] == 0
    assert full["student"]["trainable_parameters"] > 100_000_000
    assert full["methods"][full["before"]] == result["methods"][result["before"]]


def test_what_is_exported_answers_as_the_adapter_does(runs: Path, result: dict) -> None:
    """A qlora adapter merged into what NF4 makes of the base; the adapter itself is served beside it."""
    command = [sys.executable, "-m", "fcot_lite", "export", str(runs / "e2e"), "--base", "nf4", "--problems", "4"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    folder = Path(record["folder"])
    assert record["base"] == "nf4"
    assert record["parity"]["n"] == 4
    assert record["parity"]["same_answer"] + len(record["parity"]["differing"]) == 4
    assert {"model.safetensors", "README.md", "recipe.yaml", "fcot_export.json", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert "NF4" in (folder / "README.md").read_text()
    assert not list(folder.parent.glob("*.tmp"))
    assert result == read_json(runs / "e2e" / "result.json"), "the run stays as it was"
