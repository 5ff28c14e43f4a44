"""What goes out says what it is, how it was made and how it compares; nothing else is ever replaced by it."""

import copy
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_report import METHOD, RECIPE, made

from fcot_lite import export, pipeline
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import read_json, write_json
from fcot_lite.model_card import model_card, upstream
from fcot_lite.recipe import Recipe, build, dump

CHAT = [{"role": "user", "content": "<question>"}]


def recipe(**student: Any) -> Recipe:
    changed = copy.deepcopy(RECIPE)
    changed["student"] |= student
    return build(changed, "here")


def item(problem: str, text: str, extracted: str | None, outcome: str) -> dict[str, Any]:
    return {"problem_id": problem, "target": "5", "text": text, "extracted": extracted, "outcome": outcome}


REFERENCE = [item("a", "2 + 3 = 5", "5", "correct"), item("b", "so 4", "4", "wrong"), item("c", "…", None, "truncated")]
EXPORTED = [item("a", "3 + 2 = 5", "5", "correct"), item("b", "so 5", "5", "correct"), item("c", "…", None, "errored")]
PARITY = export.compare("the reference", REFERENCE, EXPORTED)
RECORD = {"run": "quick", "to": "merged", "base": "unquantised", "serve": "vllm serve x", "parity": PARITY}


def test_parity_counts_answers_and_texts_and_names_what_differs() -> None:
    assert (PARITY["n"], PARITY["same_answer"], PARITY["same_text"]) == (3, 1, 1)
    assert (PARITY["accuracy_reference"], PARITY["accuracy_exported"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert [row["problem_id"] for row in PARITY["differing"]] == ["b", "c"]
    assert PARITY["differing"][0]["text_reference"] == "so 4"
    assert PARITY["differing"][0]["text_exported"] == "so 5"
    said = "\n".join(export.lines({**RECORD, "folder": "out"}))
    assert "b: 4 (wrong) there, 5 (correct) here; gold answer 5" in said
    assert said.endswith("vllm serve x")


def test_two_sides_of_different_length_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="shorter"):
        export.compare("the reference", REFERENCE, EXPORTED[:2])


@pytest.mark.parametrize(
    ("method", "to", "base", "says"),
    [
        ("full", "adapter", "unquantised", "use --to merged"),
        ("lora", "merged", "nf4", "only a qlora run"),
        ("qlora", "adapter", "nf4", "only a qlora run"),
    ],
)
def test_what_a_run_does_not_have(tmp_path: Path, method: str, to: Any, base: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        export.check(recipe(method=method), to, base, tmp_path / "new")


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no earlier export"):
        export.check(recipe(), "merged", "unquantised", tmp_path)
    write_json(tmp_path / export.RECORD, RECORD)
    export.check(recipe(), "merged", "unquantised", tmp_path)


def test_no_adapter_goes_out_that_nothing_would_serve(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "stages").mkdir(parents=True)
    write_json(tmp_path / "run" / "stages" / "train.json", {"outputs": {}})
    gpt2 = shutil.copytree(model_dir, tmp_path / "gpt2")
    write_json(gpt2 / "config.json", read_json(gpt2 / "config.json") | {"architectures": ["GPT2LMHeadModel"]})
    own, nothing = recipe(model=str(gpt2)), Any
    with pytest.raises(RecipeError, match="--to merged"):
        export.export(
            own, tmp_path / "run", {}, nothing, nothing, lambda *_: None,
            to="adapter", base="unquantised", folder=tmp_path / "out", problems=1,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_lines_that_serve_it(tmp_path: Path) -> None:
    adapter, folder = tmp_path / "adapter", tmp_path / "with a space"
    write_json(adapter / "adapter_config.json", {"r": 20, "rank_pattern": {}})
    merged = shlex.split(export.serve_line(recipe(), "merged", folder, Path("base"), adapter))
    assert merged[:3] == ["vllm", "serve", str(folder)]
    line = shlex.split(export.serve_line(recipe(), "adapter", folder, Path("base"), adapter))
    assert line[line.index("--max-lora-rank") + 1] == "32", "the smallest that vLLM takes"
    assert line[line.index("--lora-modules") + 1] == f"quick={folder}"
    assert line[line.index("--max-model-len") + 1] == "99"


@pytest.mark.parametrize(("known", "ends"), [(None, [7]), (1, [1, 7]), ([1, 2], [1, 2, 7]), ([7, 1], [7, 1]), (7, [7])])
def test_servers_stop_where_the_student_learnt_to(tmp_path: Path, known: Any, ends: list[int]) -> None:
    if known is not None:
        write_json(tmp_path / "generation_config.json", {"eos_token_id": known, "bos_token_id": 0})
    export._end_turns(tmp_path, 7)
    written = read_json(tmp_path / "generation_config.json")
    assert written["eos_token_id"] == ends
    assert written.get("bos_token_id") == (0 if known is not None else None)


@pytest.mark.parametrize("to", ["merged", "adapter"])
def test_the_model_card(to: str) -> None:
    own = recipe(model="starter:smollm2-135m-instruct", method="qlora")
    base = "nf4" if to == "merged" else None
    card = model_card(own, made(), {**RECORD, "to": to, "base": base}, CHAT)
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == ("peft" if to == "adapter" else "transformers")
    assert f"{METHOD['accuracy']:.1%}" in body
    assert "50.0%" in body
    assert "chain_arithmetic" in body
    assert ("NF4 makes of the base" in body) is (to == "merged")
    assert json.dumps(CHAT, indent=1) in body
    assert "1 answers are the same" in body.replace("\n", " ")


def test_what_is_not_known_is_said_to_be_not_known(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    card = model_card(recipe(model=str(tmp_path / "my-model")), made(), RECORD, "Q: <question>")
    front = yaml.safe_load(card.split("---\n", 2)[1])
    assert "license" not in front
    assert "base_model" not in front
    assert "| base | my-model | not known here" in card
    assert str(tmp_path) not in card
    assert upstream("org/model") == "org/model"


def test_a_run_that_is_not_done_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"result\.json"):
        pipeline.export(tmp_path / "run", to="merged")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(dump(recipe()))
    write_json(tmp_path / "run" / "result.json", made())
    (tmp_path / "run" / "export" / "merged").mkdir(parents=True)
    with pytest.raises(RecipeError, match="no earlier export"):
        pipeline.export(tmp_path / "run", to="merged")
