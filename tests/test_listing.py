"""`fcot tasks`: the table, one task, a recipe's own data; nothing that stands in a question steers the terminal."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import fcot
from test_custom import GOOD, KEYS, write
from test_recipe import changed

from fcot_lite import tasks
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks import listing
from fcot_lite.tasks.rg import PREFIX


def test_the_table_has_every_task_and_downloads_nothing() -> None:
    done = fcot("tasks")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["task", *tasks.TASKS]
    assert max(map(len, lines)) <= 200
    (chain,) = [line for line in lines if line.startswith("chain_arithmetic")]
    assert chain.split()[1:10] == ["arithmetic", "1,000", "100", "500", "number", "0.0", "%", "495", "of"]
    rows = json.loads(fcot("tasks", "--json").stdout)
    assert [row["name"] for row in rows] == list(tasks.TASKS)
    for row in rows:
        assert row.keys() >= {"category", "answer_kind", "source", "licence", "random_guess", "leakage"}
        assert row["is_present_offline"] == (tasks.TASKS[row["name"]].data is None)


DATA = os.environ.get("FCOT_DATA", "")  # tests see none unless they ask


@pytest.mark.skipif(not DATA, reason="FCOT_DATA is not set")
def test_the_leakage_of_the_paper_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOT_DATA", DATA)
    leaks = {row["name"]: (row["leakage"], row["test"]) for row in listing.overview()}
    assert leaks["date_understanding"] == (111, 111)
    assert leaks["tracking_shuffled_objects"] == (198, 225)
    assert leaks["aqua"] == (None, 254)
    ways = listing.details(TaskBlock(name="multiarith"), listing.PROMPTS, 0, True)["leakage"]
    assert [(way["by"], way["loaded"]["template"]) for way in ways] == [("paper", 178), ("template", 0)]


def test_a_damaged_file_hides_no_other_task(tmp_path: Path) -> None:
    damaged = tmp_path / "grade-school-math" / "test.jsonl"
    damaged.parent.mkdir()
    for name in ("train", "test"):
        damaged.with_name(f"{name}.jsonl").write_text("{}\n")
    done = fcot("tasks", FCOT_DATA=str(tmp_path))
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows.keys() >= set(tasks.TASKS)
    assert " damaged " in rows["gsm8k"]
    assert " damaged " not in rows["multiarith"]
    assert done.stderr.startswith(f"fcot: gsm8k: {damaged}: SHA-256 is ")
    missing = fcot("tasks", FCOT_DATA=str(tmp_path / "none"))
    assert missing.returncode == 0
    assert missing.stderr == f"fcot: FCOT_DATA={tmp_path / 'none'}: no such folder\n"


def test_one_task() -> None:
    done = fcot("tasks", "chain_arithmetic", "-n", "2", "--leakage")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("chain_arithmetic: 1,000 train, 100 validation, 500 test; answer: number\n")
    found = json.loads(fcot("tasks", "chain_arithmetic", "-n", "2", "--leakage", "--json").stdout)
    problems = tasks.load("chain_arithmetic", "train", limit=2)
    assert [example["id"] for example in found["examples"]] == [problem.id for problem in problems]
    for example, problem in zip(found["examples"], problems, strict=True):
        assert example["prompts"].keys() == listing.PROMPTS.keys()
        for name, rendered in example["prompts"].items():
            if listing.PROMPTS[name].format == "plain":
                assert f"Q: {problem.question}\nA:" in rendered
            else:
                prompt = listing.PROMPTS[name]
                assert len(rendered) == 2 * prompt.examples + 1 + (prompt.system is not None)
                assert problem.question in rendered[-1]["content"]
                assert rendered[-1]["content"].splitlines()[0] in done.stdout
    assert [row["by"] for row in found["leakage"]] == ["own"]
    bare = json.loads(fcot("tasks", "chain_arithmetic", "--json").stdout)
    assert bare == {key: value for key, value in found.items() if key not in ("examples", "leakage")}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["tasks", "gsm"], 2, "unknown task 'gsm': did you mean 'gsm8k'?"),
        (["tasks", "--leakage"], 2, "-n and --leakage are for one task: fcot tasks NAME"),
        (["tasks", "-n", "1"], 2, "-n and --leakage are for one task"),
        (["tasks", "gsm8k", "-n", "-1"], 2, "Invalid value for '-n'"),
        (["tasks", "gsm8k", "task.train=5"], 2, "KEY=VALUE overrides are for a recipe"),
        (["tasks", "data.jsonl"], 2, "data.jsonl: is data; write a recipe whose task.path names it, see docs/tasks.md"),
        (["tasks", "."], 2, ".: is a folder; name a task, or one recipe in it"),
        (["tasks", "none.yml"], 2, "none.yml: No such file or directory"),
        (["tasks", "none.yaml"], 2, "none.yaml: No such file or directory"),
        (["tasks", "own.yaml"], 3, "1 of 13 rows can't be used (1 not valid JSON); task.max_bad_rows is 0"),
        (["tasks", "own.yaml", "-n", "1"], 3, "data.jsonl:13: not valid JSON"),
    ],
)
def test_faults(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    write(tmp_path / "data.jsonl", [*GOOD, b"{"])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changed(task={"path": "data.jsonl", **KEYS})))
    done = fcot(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_recipe_shows_its_data_by_its_prompts(tmp_path: Path) -> None:
    steering = "\x1b[31mred\x1b[0m \x9b2J\u202e [bold]not[/bold] :cat:\nsecond line"
    rows: list[Any] = [{**row, "question": f"{row['question']} {steering}"} for row in GOOD]
    write(tmp_path / "data.jsonl", [*rows, b"{"])
    own = {"path": "data.jsonl", **KEYS, "max_bad_rows": 1}
    prompts = {"plain": {}, "steps": {"template": "{question}\nStep by step."}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changed(task=own, prompts=prompts)))
    done = fcot("tasks", "own.yaml", "-n", "4", "--leakage", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data.jsonl: 4 train, 4 validation, 4 test; answer: number" in done.stdout
    assert "bad rows, set aside: 1\n  data.jsonl:13: not valid JSON" in done.stdout
    assert done.stdout.count("      Step by step.\n") == 4
    assert done.stdout.count(r"\x1b[31mred\x1b[0m \x9b2J\u202e [bold]not[/bold] :cat:") == 8
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    found = json.loads(fcot("tasks", "own.yaml", "-n", "1", "--leakage", "--json", cwd=tmp_path).stdout)
    assert steering in found["examples"][0]["prompts"]["plain"][0]["content"]
    assert [(bad["row"], bad["reason"]) for bad in found["bad_rows"]] == [(13, "not valid JSON")]
    assert [(row["by"], row["loaded"]["template"]) for row in found["leakage"]] == [("paper", 4)]


@pytest.mark.skipif(not DATA, reason="FCOT_DATA is not set")
def test_without_its_train_file_test_is_shown() -> None:
    for arguments in ([], ["-n", "1"], ["--leakage"]):
        done = fcot("tasks", "aqua", *arguments, FCOT_DATA=DATA)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("aqua: 254 test; answer: choice\n")
        assert "no train: " in done.stdout
        assert ("\naqua/test/" in done.stdout) == ("-n" in arguments)


@pytest.mark.skipif(not DATA, reason="FCOT_DATA is not set")
def test_what_was_published_and_what_is_loaded() -> None:
    done = fcot("tasks", "multiarith", "--leakage", FCOT_DATA=DATA)
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    labels = [line[0] for line in lines]
    assert "paper, as published" in labels
    assert any(label.startswith("paper, without 5 of train") for label in labels)


def test_ids_do_not_steer_the_terminal(tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", [{**row, "id": f"\x1b[31mred{i}"} for i, row in enumerate(GOOD)])
    own = {"path": "data.jsonl", **KEYS, "id": "id"}
    (tmp_path / "own.yml").write_text(yaml.safe_dump(changed(task=own, prompts={"plain": {}, "steps": {}})))
    done = fcot("tasks", "own.yml", "-n", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert r"own/train/\x1b[31mred" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_recipe_takes_overrides(tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", [*GOOD, b"{"])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changed(task={"path": "data.jsonl", **KEYS})))
    assert fcot("tasks", "own.yaml", cwd=tmp_path).returncode == 3
    assert fcot("tasks", "own.yaml", "task.max_bad_rows=1", cwd=tmp_path).returncode == 0


@pytest.mark.real
def test_a_slow_dataset_draws_no_more_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("reasoning_gym")
    from fcot_lite.tasks import rg

    drawn = []
    whole = rg.load
    monkeypatch.setattr(
        rg, "load", lambda name, split, options, limit: drawn.append(limit) or whole(name, split, options, limit)
    )
    for name, kind, scorer in [("syllogism", "yes_no", None), ("palindrome_generation", "text", True)]:
        found = listing.details(TaskBlock(name=f"{PREFIX}{name}"), listing.PROMPTS, 2, False)
        assert (found["answer_kind"], len(found["examples"]), found["counts"]) == (kind, 2, {})
        assert (found["scorer"] is not None) == bool(scorer)
        head = next(iter(listing.details_lines(found)))
        assert head.startswith(f"{PREFIX}{name}: as many as are asked for; answer: {kind}")
        assert ("own scorer" in head) == bool(scorer)
    assert drawn == [2, 2]
    assert {"gcd", "sudoku"} < set(rg.names())
    assert not {"composite", "codeio"} & set(rg.names())


@pytest.mark.real
def test_a_dataset_of_reasoning_gym() -> None:
    pytest.importorskip("reasoning_gym")
    found = listing.details(TaskBlock(name=f"{PREFIX}gcd"), listing.PROMPTS, 1, True)
    assert found["category"] == "reasoning-gym"
    assert len(found["examples"]) == 1
