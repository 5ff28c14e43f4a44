"""`fcot plan`: every recipe on every device, and what the command prints."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from fcot_lite import advice, devices, rates, report, tasks
from fcot_lite.devices import CARDS
from fcot_lite.errors import RecipeError
from fcot_lite.files import write_atomic, write_json
from fcot_lite.machine import Machine
from fcot_lite.plan import notes, plan, tables
from fcot_lite.rates import Observed
from fcot_lite.recipe import Recipe, dump, load
from fcot_lite.workload import QUESTIONS, questions, workload

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
FREE_GIB = 20.0


def recipe(name: str, *overrides: str) -> Recipe:
    return load(REPOSITORY / "recipes" / f"{name}.yaml", overrides)


def planned(made: Recipe, device: str = "rtx4090", free_gib: float = FREE_GIB) -> dict[str, Any]:
    return plan(made, devices.machine(device), free_gib, [])


DOCUMENT = (REPOSITORY / "docs" / "plan.md").read_text()
SCHEMA = {
    "schema_version": "int", "name": "str", "device": "dict", "teacher": "dict", "student": "dict",
    "evaluation": "dict", "methods": "dict", "questions": "dict", "samples": "int", "training_rows": "int",
    "stages": "dict", "wall_seconds": "float", "cost_usd": "float", "usd_per_hour": "float", "energy_kwh": "float",
    "changes": "list", "rates": "dict", "assumptions": "list",
}  # fmt: skip


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
@pytest.mark.parametrize("device", ["cpu", *CARDS])
def test_every_recipe_on_every_device(file: Path, device: str) -> None:
    made = planned(load(file), device)
    assert json.loads(json.dumps(made)) == made
    assert {key: type(value).__name__ for key, value in made.items() if value is not None}.items() <= SCHEMA.items()
    assert made.keys() == SCHEMA.keys()
    for key in SCHEMA:
        assert f"`{key}`" in DOCUMENT, f"docs/plan.md says what {key} is"
    assert made["student"]["peak_gib"] > 0, "every recipe's models are known"
    assert set(made["methods"]) == {"full", "lora", "qlora"}
    peaks = [made["methods"][method]["peak_gib"] for method in ("qlora", "lora", "full")]
    assert peaks[1] <= peaks[2]
    assert peaks[0] <= peaks[1] or device == "cpu", "where packing itself takes more than a small model's training"
    for stage in made["stages"].values():
        assert (stage["wall_seconds"] is None) == (stage["basis"] is None or stage["num_tokens"] is None)
    assert tables(made)
    assert all(notes(made))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
@pytest.mark.parametrize("device", ["cpu", "rtx3060", "rtx4090"])
def test_each_change_lowers_the_peak_and_is_what_it_says(file: Path, device: str) -> None:
    """Also with everything made as large as can be, so that changes are needed."""
    large = ["student.method=full", "student.sft.per_device_train_batch_size=64", "curate.max_length=4096"]
    machine = devices.machine(device)
    for overrides in ([], large):
        made = load(file, overrides)
        for stage in advice.stages(made):
            before, done = advice.need(made, stage, machine), []
            changes = advice.changes(made, stage, machine, 6.0)
            room = advice.room_gib(made, stage, machine, 6.0)
            assert before is not None
            assert bool(changes) or before.gib <= room or stage != "train"
            last = before.gib
            for change in changes:
                assert change.peak_gib < last, change
                last = change.peak_gib
                done += change.overrides
                after = advice.need(load(file, [*overrides, *done]), stage, machine)
                assert after is not None
                assert after.gib == pytest.approx(change.peak_gib), "what a user would get who types them"
                assert change.fits == (change.peak_gib <= room)
                assert not change.fits or change is changes[-1], "nothing more than is needed"


HARM = ["per_device_train_batch_size", "gradient_checkpointing", "optim", "method", "max_length", "model"]


@pytest.mark.parametrize("name", ["gsm8k", "cpu", "gpu-12gb"])
def test_changes_come_in_the_order_of_their_harm(name: str) -> None:
    large = ["student.method=full", "student.sft.gradient_checkpointing=false", "curate.max_length=8192"]
    made = recipe(name, "student.model=Qwen/Qwen2.5-3B-Instruct", "student.sft.per_device_train_batch_size=16", *large)
    changes = [change["overrides"] for change in planned(made, "rtx4070")["changes"] if change["stage"] == "train"]
    keys = [overrides[0].partition("=")[0].rpartition(".")[2] for overrides in changes]
    assert keys == sorted(keys, key=HARM.index)
    assert keys[0] == HARM[0]
    steps = made.student.sft.get("gradient_accumulation_steps", 1)
    assert changes[0] == [
        "student.sft.per_device_train_batch_size=1",
        f"student.sft.gradient_accumulation_steps={16 * steps}",
    ], "the optimiser sees the same batch"


def test_a_teacher_that_is_too_large_for_the_card() -> None:
    made = planned(recipe("gsm8k"), "rtx4070")
    assert made["teacher"]["fits"] is False
    assert made["teacher"]["average_sequences"] == 0
    assert made["stages"]["sample"]["wall_seconds"] is None
    assert made["wall_seconds"] is None, "the whole is not known where a part is not"
    overrides = [override for change in made["changes"] for override in change["overrides"]]
    assert "teacher.engine.quantization=fp8" in overrides
    assert planned(recipe("gpu-12gb"), "rtx4070")["teacher"]["fits"] is True


def test_an_unknown_model_is_unknown() -> None:
    made = planned(recipe("gsm8k", "student.model=org/mystery", "teacher.model=org/mystery"))
    for key in ("teacher", "student", "evaluation"):
        assert (made[key]["peak_gib"], made[key]["fits"]) == (None, None)
    assert made["wall_seconds"] is None
    shown = "".join(str(cell) for table in tables(made) for column in table.columns for cell in column.cells)
    assert "the dimensions of org/mystery are not known here" in shown
    assert notes(made)


@pytest.mark.parametrize("device", CARDS)
def test_more_samples_take_longer(device: str) -> None:
    few, many = (planned(recipe("gpu-12gb", f"teacher.n={n}"), device)["stages"] for n in (4, 8))
    for stage in ("sample", "train"):
        assert few[stage]["wall_seconds"] < many[stage]["wall_seconds"]
    assert few["evaluate"] == many["evaluate"]


def test_the_published_speed_of_a_card() -> None:
    """Mistral-7B, LoRA with checkpointing on an A100: 3,598 tokens/s (fms-acceleration). A plan promises less."""
    mistral = rates.dimensions.known("mistralai/Mistral-7B-v0.1")
    assert mistral is not None
    rate = rates.fine_tuning(mistral, "lora", True, CARDS["a100-80"])
    assert 0.6 * 3598 < rate.tokens_per_second < 3598


# ---- what finished runs tell -------------------------------------------------------------------------------------


def observed(run: str, model: str, speed: float, device: str = "2 CPU cores", stage: str = "sample") -> Observed:
    form = rates.dimensions.known(model)
    assert form is not None
    return Observed(run, stage, device, model, form.parameters, speed, 10.0)


SMALL, LARGE = "starter:smollm2-135m-instruct", "starter:qwen2.5-coder-0.5b-instruct"


def test_a_rate_is_learnt_from_the_run_nearest_in_size() -> None:
    form = rates.dimensions.known(LARGE)
    assert form is not None
    seen = [observed("a", SMALL, 900), observed("b", LARGE, 200), observed("c", LARGE, 9999, "another card")]
    rate = rates.measured("sample", form, None, "2 CPU cores", seen)
    assert rate is not None
    assert (rate.tokens_per_second, rate.basis) == (200, "measured in run b")
    scaled = rates.measured("sample", form, None, "2 CPU cores", seen[:1])
    assert scaled is not None
    assert 200 < scaled.tokens_per_second < 300, "in proportion to the parameters"
    assert rates.measured("train", form, "lora", "2 CPU cores", seen) is None


def test_the_error_of_rates_is_that_of_each_run_told_from_the_others() -> None:
    seen = [observed("a", LARGE, 200), observed("b", LARGE, 250)]
    assert rates.errors("2 CPU cores", seen) == pytest.approx([250 / 200 - 1, 200 / 250 - 1])
    assert rates.errors("2 CPU cores", seen[:1]) == []
    assert rates.typical_error([]) is None


def finished(runs: Path, name: str, *, train_speed: float = 500.0) -> None:
    """A run of the quickstart as result.json, recipe.yaml and manifest.json tell of it."""
    made = recipe("quickstart", f"name={name}")
    sides = {"model": made.teacher.model, "samples": 1000, "num_tokens": 30_000, "tokens_per_second": 200.0}  # type: ignore[union-attr]
    student = {"model": made.student.model, "method": "lora", "num_tokens": 96_000, "tokens_per_second": train_speed}
    stages = {"sample": (30_000, 170.0), "train": (96_000, 20 + 96_000 / train_speed), "evaluate": (64_000, 80.0)}
    value = dict.fromkeys(report.KEYS) | {
        "schema_version": report.SCHEMA_VERSION,
        "name": name,
        "teacher": sides,
        "student": student,
        "curation": {"kept": 400, "dropped": {}},
        "validation": {"plain": {"n": 60}},
        "methods": {"trained": {"n": 200}},
        "after": "trained",
        "stages": {key: {"num_tokens": n, "wall_seconds": seconds} for key, (n, seconds) in stages.items()},
    }
    write_json(runs / name / "result.json", value)
    write_json(runs / name / "manifest.json", {"machine": {"gpu_name": None, "cpus": [0, 1]}})
    write_atomic(runs / name / "recipe.yaml", dump(made))


def test_a_plan_learns_from_finished_runs(tmp_path: Path) -> None:
    machine, made = Machine("cpu", (0, 1)), recipe("quickstart")
    assert plan(made, machine, FREE_GIB, rates.finished(tmp_path))["wall_seconds"] is None
    finished(tmp_path, "first")
    found = plan(made, machine, FREE_GIB, rates.finished(tmp_path))
    assert found["stages"]["sample"] == {
        "num_tokens": 30_000,  # 500 questions, n = 2, 30 tokens each as in that run
        "tokens_per_second": 200.0,
        "startup_seconds": pytest.approx(20),
        "wall_seconds": pytest.approx(170),
        "cost_usd": pytest.approx(170 / 3600 * 0.1),
        "energy_kwh": None,
        "basis": "measured in run first",
    }
    assert found["stages"]["train"]["wall_seconds"] == pytest.approx(20 + 96_000 / 500), "the same rows and epochs"
    assert found["stages"]["evaluate"]["wall_seconds"] == pytest.approx(80)
    assert found["methods"]["full"]["train_wall_seconds"] is None, "no full run to tell"
    assert (found["rates"]["median_error"], found["assumptions"]) == (None, ["lengths and yield as in run first"])
    finished(tmp_path, "second", train_speed=250.0)
    assert plan(made, machine, FREE_GIB, rates.finished(tmp_path))["rates"] == {
        "runs_on_this_device": 2,
        "rates_compared": 6,
        "median_error": 0.0,
        "worst_error": pytest.approx(1.0),
    }
    another = plan(made, Machine("cpu", (0, 1, 2, 3)), FREE_GIB, rates.finished(tmp_path))
    assert another["stages"]["sample"]["wall_seconds"] is None, "four cores are not two"


@pytest.mark.parametrize("damage", ["", "{}", "not json", '{"schema_version": 1}'])
def test_a_run_that_cannot_be_read_is_left_out(tmp_path: Path, damage: str) -> None:
    finished(tmp_path, "whole")
    finished(tmp_path, "damaged")
    (tmp_path / "damaged" / "result.json").write_text(damage)
    assert [run.recipe.name for run in rates.finished(tmp_path)] == ["whole"]
    (tmp_path / "whole" / "recipe.yaml").write_text("name: [")
    (tmp_path / "whole" / "manifest.json").write_text("")
    assert rates.finished(tmp_path) == []
    assert rates.finished(tmp_path / "nowhere") == []


def test_questions_without_a_file_and_without_a_network() -> None:
    assert questions(recipe("gsm8k").task) == {"train": 6973, "validation": 500, "test": 1319}
    assert questions(recipe("cpu").task) == {"train": 300, "validation": 50, "test": 200}
    assert questions(recipe("gpu").task) == {"train": 2000, "validation": 200, "test": 500}
    assert set(questions(recipe("aqua").task)) == {"train", "validation", "test"}
    assert QUESTIONS.keys() >= {load(file).task.name for file in RECIPES} - {"chain_arithmetic", "rg:gsm_symbolic"}


@pytest.mark.skipif(REAL_DATA is None, reason="FCOT_DATA names no folder with the paper's data")
def test_questions_as_the_files_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOT_DATA", str(REAL_DATA))
    counted = {row.name: (row.train, row.validation, row.test) for row in tasks.describe() if row.name in QUESTIONS}
    assert counted == QUESTIONS


def test_a_card_that_is_not_in_the_table_fits_or_not_but_its_speed_is_unknown() -> None:
    made = plan(recipe("gsm8k"), Machine("cuda", (0,), "NVIDIA L40S", 44.9, (8, 9)), FREE_GIB, [])
    assert (made["teacher"]["fits"], made["student"]["fits"], made["wall_seconds"]) == (True, True, None)
    assert made["device"] == {"name": "NVIDIA L40S", "memory_gib": 44.9}


def test_the_budget_decides_how_much_is_sampled() -> None:
    fixed = workload(recipe("gsm8k"), [])
    assert fixed.samples == 8 * 6973
    adaptive = workload(recipe("gpu"), [])
    assert adaptive.samples is not None
    assert 4 * 2000 < adaptive.samples < 16 * 2000
    assert any("samples a question" in line for line in adaptive.assumptions)


# ---- the command -------------------------------------------------------------------------------------------------


def fcot(*arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fcot_lite", "plan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_command(tmp_path: Path) -> None:
    file = REPOSITORY / "recipes" / "gsm8k.yaml"
    table, as_json = (fcot(file, "--device", "rtx4090", *more, cwd=tmp_path) for more in ([], ["--json"]))
    assert (table.returncode, table.stderr, as_json.stderr) == (0, "", "")
    assert all(word in table.stdout for word in ("teacher", "student", "evaluation", "qlora", "sample", "assumed:"))
    assert json.loads(as_json.stdout) == planned(load(file))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("arguments", [["--device", "rtx4080ti"], ["student.method=dora"], ["--device", ""]])
def test_a_fault_is_one_message(arguments: list[str]) -> None:
    done = fcot("recipes/gsm8k.yaml", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fcot: ")
    assert "Traceback" not in done.stderr


def test_a_device_that_is_not_there_is_told_from_its_neighbour() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean rtx4090\? There are cpu, rtx3060"):
        devices.machine("rtx-4090")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from fcot_lite.cli import main\n"
        "sys.argv = ['fcot', 'plan', 'recipes/gsm8k.yaml', '--device', 'rtx4090']\n"
        "try: main()\n"
        "finally: print({'torch', 'vllm', 'trl', 'peft', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
