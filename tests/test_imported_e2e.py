"""Rationales that are there already, from a file to a trained adapter: real curation, real TRL."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from fcot_lite import tasks
from fcot_lite.files import read_json, read_jsonl

pytestmark = pytest.mark.e2e
TASK = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}


def test_an_imported_file_trains_a_student(tmp_path: Path) -> None:
    problems = tasks.load("chain_arithmetic", "train", options=TASK, limit=8)
    rows = [
        {"question": f" {p.question.upper()} ", "rationale": f"Adding gives {p.target}. The answer is {p.target}."}
        for p in problems
    ]
    rows[6] = dict(rows[5])
    rows[7] |= {"rationale": "The answer is -1."}
    file = tmp_path / "rationales.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": "Who?", "rationale": "I."}]))
    recipe = yaml.safe_load((REPOSITORY / "tests" / "e2e.yaml").read_text())
    recipe |= {"name": "import", "teacher": {"file": str(file)}}
    recipe["task"]["train"] = 8
    recipe["student"] |= {"method": "lora"}
    recipe["student"]["sft"] |= {"num_train_epochs": 1}
    (tmp_path / "import.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "fcot_lite", "train", str(tmp_path / "import.yaml"), "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "import"
    imports = read_json(run_dir / "imports.json")
    assert [imports[kind] for kind in ("rationales", "imported", "unmatched", "duplicates", "bad")] == [9, 7, 1, 1, 0]
    assert [row["row"] for row in imports["first"]] == [7, 9]
    assert {row["verdict"]["correct"] for row in read_jsonl(run_dir / "samples.jsonl")} == {True, False}
    trained = read_jsonl(run_dir / "train.jsonl")
    assert [row["problem_id"] for row in trained] == [problem.id for problem in problems[:6]]
    outcome = read_json(run_dir / "stages" / "train.json")
    assert outcome["rows"] == 6
    assert (run_dir / "adapter" / "adapter_model.safetensors").stat().st_size > 0
