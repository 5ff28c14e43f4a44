"""The result keeps its contract, and the tables say what it says."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fcot_lite.errors import DataError
from fcot_lite.files import write_json
from fcot_lite.recipe import build
from fcot_lite.report import SCHEMA_VERSION, funnel, markdown, notes, read, result, tables

RECIPE: dict[str, Any] = {
    "name": "quick",
    "seed": 3,
    "task": {"name": "chain_arithmetic"},
    "prompts": {"plain": {}, "steps": {}},
    "teacher": {
        "model": "t", "prompt": "plain", "n": 1, "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 99},
    },
    "curate": {"max_length": 99},
    "student": {"model": "org/s", "prompt": "plain"},
    "evaluate": {"before": ["plain"], "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 99}},
    "cost": {"usd_per_hour": 0.5},
}  # fmt: skip
METHOD = {"accuracy": 0.25, "ci95": [0.1, 0.5], "n": 8, "correct": 2, "wrong": 3, "truncated": 2, "errored": 1}
AFTER = {"accuracy": 0.5, "ci95": [0.2, 0.8], "n": 8, "correct": 4, "wrong": 4, "truncated": 0, "errored": 0}
OUTCOMES: dict[str, dict[str, Any]] = {
    "sample": {
        "model": "starter:teacher-0.5b", "samples": 16, "samples_new": 10, "samples_reused": 6, "pass_rate": 0.625,
        "samples_unfinished": 0,
        "pass_rate_ci95": [0.4, 0.8], "coverage": 0.75, "num_tokens": 12_345, "num_tokens_cancelled": 17,
        "tokens_per_accepted": 1234.5, "tokens_per_second": 700.0, "outputs": {},
    },
    "curate": {"kept": 9, "dropped": {"wrong": 6, "duplicate": 1}, "outputs": {}},
    "train": {
        "model": "org/student-135m", "method": "lora", "trainable_parameters": 9_876_543, "num_tokens": 4_321,
        "tokens_per_second": 2000.0, "rows": 9, "steps": 6, "batching": "padding-free", "padding": 0.0, "outputs": {},
    },
    "evaluate": {
        "methods": {"plain": METHOD, "trained": AFTER}, "validation": {"plain": METHOD, "steps": AFTER},
        "before": "plain", "after": "trained", "difference": {"accuracy": 0.25, "ci95": [-0.1, 0.6]},
        "served": "merged into the unquantised base", "num_tokens": 555, "outputs": {},
    },
}  # fmt: skip
METERS = {
    name: {"key": "k", "wall_seconds": seconds, "peak_memory_gib": 1.25, "peak_gpu_nvml_gib": None}
    for name, seconds in (("models", 36.0), ("sample", 72.0), ("curate", 3.6), ("train", 360.0), ("evaluate", 36.0))
}


def made(recipe: dict[str, Any] = RECIPE, **outcomes: dict[str, Any]) -> dict[str, Any]:
    merged = {name: {**outcome, **outcomes.get(name, {})} for name, outcome in OUTCOMES.items()}
    return result(build(recipe, "here"), merged, METERS)


def test_the_contract_of_result_json() -> None:
    value = made()
    assert value["schema_version"] == 1
    assert (value["task"], value["seed"]) == ("chain_arithmetic", 3)
    assert value["teacher"].keys() >= {
        "model", "samples", "samples_new", "samples_reused", "samples_unfinished", "pass_rate", "coverage",
        "num_tokens", "num_tokens_cancelled", "tokens_per_accepted",
    }  # fmt: skip
    kept = {"kept": 9, "dropped": {"wrong": 6, "duplicate": 1}}
    assert value["curation"] == {**kept, "input": None, "contamination": None}  # as an earlier version curated
    assert value["student"].keys() >= {"model", "method", "trainable_parameters", "num_tokens", "tokens_per_second"}
    for method in value["methods"].values():
        assert method.keys() >= {"accuracy", "ci95", "n", "correct", "wrong", "truncated", "errored"}
    assert (value["before"], value["after"]) == ("plain", "trained")
    for stage in value["stages"].values():
        assert stage.keys() >= {
            "wall_seconds", "peak_memory_gib", "peak_gpu_allocated_gib", "peak_gpu_reserved_gib",
            "peak_gpu_nvml_gib", "energy_kwh", "cost_usd",
        }  # fmt: skip


def test_times_and_money_add_up() -> None:
    value = made()
    assert value["wall_seconds"] == pytest.approx(507.6)
    assert value["cost_usd"] == pytest.approx(507.6 / 3600 * 0.5)
    assert value["cost_usd"] == pytest.approx(sum(stage["cost_usd"] for stage in value["stages"].values()))


def test_what_was_not_measured_is_none() -> None:
    value = made({**RECIPE, "cost": {}}, train={"tokens_per_second": None, "trainable_parameters": None})
    assert value["cost_usd"] is None
    for name, stage in value["stages"].items():
        assert stage["cost_usd"] is None
        assert stage["energy_kwh"] is None
        assert stage["peak_gpu_allocated_gib"] is None
        assert (stage["num_tokens"] is None) == (name in ("models", "curate"))
    text = markdown(value)
    assert "no price given" in text
    assert "– tok/s in training" in text
    assert made(sample={"tokens_per_accepted": None})["teacher"]["tokens_per_accepted"] is None


def test_a_chosen_epoch_is_said_with_what_it_was_chosen_from() -> None:
    candidates = {"epoch-1": METHOD, "epoch-2": AFTER}
    for by, lines in (
        ("validation_accuracy", [
            "student after: epoch-2, the best on validation by greedy accuracy "
            f"(epoch-1 {100 * METHOD['accuracy']:.1f} %, epoch-2 {100 * AFTER['accuracy']:.1f} %)"
        ]),
        ("last", []),
    ):  # fmt: skip
        value = made(evaluate={"selection": {"by": by, "picked": "epoch-2", "candidates": candidates}})
        assert value["selection"]["picked"] == "epoch-2"
        assert [line for line in notes(value) if line.startswith("student after")] == lines


def test_the_trainers_own_peaks_are_the_training_stages() -> None:
    stages = made(train={"peak_gpu_allocated_gib": 3.5, "peak_gpu_reserved_gib": 4.0})["stages"]
    assert (stages["train"]["peak_gpu_allocated_gib"], stages["train"]["peak_gpu_reserved_gib"]) == (3.5, 4.0)
    assert stages["sample"]["peak_gpu_allocated_gib"] is None


def test_a_budget_says_what_it_does_to_the_figures() -> None:
    assert not [note for note in notes(made()) if note.startswith("sampling:")]
    assert not [note for note in notes(made(sample={"policy": "n = 8"})) if note.startswith("sampling:")]
    value = made(sample={"policy": "until 4 accepted of 16"})
    assert value["teacher"]["policy"] == "until 4 accepted of 16"
    (note,) = [note for note in notes(value) if note.startswith("sampling:")]
    assert "until 4 accepted of 16; 16 samples, and 17 tokens of cancelled ones" in note
    assert "nor the mix of difficulties compares" in note


def printed(value: dict[str, Any]) -> str:
    console = Console(width=160, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        for table in tables(value):
            console.print(table)
        for note in notes(value):
            console.print(note, soft_wrap=True)
    return capture.get()


def figures(text: str) -> list[str]:
    return re.findall(r"[+-]?\d[\d.,:]*", text)


def test_the_report_has_the_figures_of_the_tables() -> None:
    value = made()
    assert figures(markdown(value)) == figures(printed(value))
    for figure in ("62.5 %", "25.0 %", "50.0 %", "+25.0", "-10.0 … +60.0", "6:00 min", "12,345", "9,876,543", "0.0705"):
        assert figure in markdown(value), figure
        assert figure in printed(value), figure
    assert "quick: chain_arithmetic, seed 3" in printed(value)


def test_gpu_memory_is_shown_where_it_was_measured() -> None:
    value = made()
    value["stages"]["train"]["peak_gpu_nvml_gib"] = 7.75
    assert "7.75 GiB" in markdown(value)
    value["stages"]["train"]["peak_gpu_nvml_gib"] = 0.0
    assert "0.00 GiB" in markdown(value)  # measured and nothing: not the same as not measured


def test_hostile_names_stay_text() -> None:
    name = "/models/[red]a|b[/] :cat: [link=x]"
    value = made(sample={"model": name}, train={"model": name})
    for text in (printed(value), markdown(value)):
        assert ":cat: [link=x]" in text
    value["before"] = "[bold]x"
    value["methods"]["[bold]x"] = METHOD
    assert "student before ([bold]x)" in printed(value)
    value["teacher"]["model"] = "a|b"
    table = [line for line in markdown(value).splitlines() if line.startswith("|")][:6]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {5}
    assert r"a\|b" in table[2]


def test_markdown_is_a_document() -> None:
    lines = markdown(made()).splitlines()
    assert lines[0] == "# quick: chain_arithmetic, seed 3"
    rows = [line for line in lines if line.startswith("|")]
    assert rows[1] == "|---|--:|--:|--:|"
    assert sum(line.startswith("* ") for line in lines) == len(notes(made()))


def test_a_stored_result_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", made())
    assert read(tmp_path / "result.json") == made()


@pytest.mark.parametrize("damage", ["missing", "cut", "list", "version", "part"])
def test_a_result_that_is_none(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "result.json"
    value: Any = copy.deepcopy(made())
    if damage == "list":
        value = [value]
    elif damage == "version":
        value["schema_version"] = SCHEMA_VERSION + 1
    elif damage == "part":
        del value["stages"]
    if damage != "missing":
        write_json(path, value)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"result\.json: (no such file; a run|no result of schema|not valid JSON)"):
        read(path)


@pytest.mark.parametrize(
    ("graded", "lines"),
    [
        (None, []),
        ({"new": 16, "regraded": 0, "changed": 0, "math_verify": 0, "not_judged": 0}, []),
        (
            {"new": 16, "regraded": 16, "changed": 3, "math_verify": 0, "not_judged": 0},
            ["graded again by a newer grader: 16 samples, 3 otherwise"],
        ),
        (
            {"new": 16, "regraded": 0, "changed": 0, "math_verify": 5, "not_judged": 1},
            ["math-verify gave 5 verdicts and could not judge 1"],
        ),
    ],
)
def test_what_the_grader_did_is_said_where_it_matters(graded: dict[str, int] | None, lines: list[str]) -> None:
    outcomes = copy.deepcopy(OUTCOMES)
    if graded is not None:
        outcomes["sample"]["graded"] = graded
    printed = notes(result(build(RECIPE, "here"), outcomes, METERS))
    assert [line for line in printed if line.startswith(("graded again", "math-verify"))] == lines


CONTAMINATION = {
    "train": 1000, "test": 500, "test_too_short": 3, "exact": 1, "normalised": 2, "ngram": 40, "test_ngram": 30,
    "examples": [
        {"problem_id": "a/train/1", "kind": "exact", "test_problem_id": "a/test/2", "words": None},
        {"problem_id": "a/train/3", "kind": "ngram", "test_problem_id": "a/test/4", "words": "w"},
    ],
}  # fmt: skip


def test_the_funnel_of_curation() -> None:
    curation = {"input": 20, "kept": 9, "dropped": {"unfinished": 4, "wrong": 6, "[red]": 1}}
    columns = [list(column.cells) for column in funnel(curation).columns]
    assert list(zip(*columns, strict=True)) == [
        ("input", "", "20"),
        ("unfinished", "4", "16"),
        ("wrong", "6", "10"),
        ("[red]", "1", "9"),
        ("kept", "", "9"),
    ]


def test_the_report_says_what_train_shares_with_test() -> None:
    assert not [note for note in notes(made()) if "13 words" in note]
    (note,) = [note for note in notes(made(curate={"contamination": CONTAMINATION})) if "13 words" in note]
    assert note == (
        "train questions that stand in test: 3 of 1,000; "
        "that share 13 words in a row with one of 30 (of 500): 40, such as a/train/3 with a/test/4"
    )


@pytest.mark.parametrize("num", [0, 2, None])
def test_samples_that_were_cut_off_come_with_the_fix(num: int | None) -> None:
    value = made(sample={"samples_unfinished": num})
    line = "2 of 16 samples (12%) were cut off at max_tokens and teach nothing; raise teacher.sampling.max_tokens"
    assert (f"sampling: {line}" in notes(value)) == (num == 2)
    assert (line in markdown(value)) == (num == 2)
