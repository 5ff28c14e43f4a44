"""The command: exit codes, messages on stderr, results on stdout, and a start that nobody waits for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from test_report import made

from fcot_lite import models
from fcot_lite.files import write_json

QUICKSTART = REPOSITORY / "recipes" / "quickstart.yaml"


def fcot(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fcot_lite", *map(str, arguments)]
    environ = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environ, check=False)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    write_json(tmp_path / "runs" / "quick" / "result.json", made())
    return tmp_path / "runs" / "quick"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "Missing argument 'RECIPE'"),
        (["runn", QUICKSTART], 2, "No such command 'runn'"),
        (["run", QUICKSTART, "--forc"], 2, "No such option"),
        (["run", "missing.yaml"], 2, "missing.yaml: No such file or directory; name a recipe file"),
        (["run", "."], 2, "Is a directory"),
        (["run", QUICKSTART, "teachr.n=2"], 2, "teachr (from the command line): unknown key; did you mean 'teacher'?"),
        (
            ["sample", QUICKSTART, "teacher.n=0"],
            2,
            "teacher.n (from the command line): Input should be greater than 0 (it is 0)",
        ),
        (["curate", QUICKSTART, "name=../x"], 2, "name (from the command line): String should match pattern"),
        (["train", QUICKSTART, "nonsense"], 2, "overrides are written key.path=value"),
        (
            ["evaluate", QUICKSTART, "seed=-1"],
            2,
            "seed (from the command line): Input should be greater than or equal to 0",
        ),
        (["run", QUICKSTART, "--runs", "/proc/fcot"], 4, "make the folder writable"),
        (["report", "runs/none"], 3, "result.json: no such file; a run writes it when all its stages are done"),
        (["report", "/dev/null"], 3, "result.json"),
    ],
    ids=lambda value: " ".join(str(part).rpartition("/")[2] for part in value) if isinstance(value, list) else "",
)
def test_faults(tmp_path: Path, arguments: list[object], code: int, message: str) -> None:
    done = fcot(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is written before the recipe is right"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}', "\x00"])
def test_a_damaged_result_is_a_message(finished: Path, content: str) -> None:
    (finished / "result.json").write_text(content)
    for arguments in ([], ["--json"]):
        done = fcot("report", finished, *arguments)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"fcot: {finished / 'result.json'}: ")
        assert done.stderr.count("\n") == 1


def test_the_report_is_on_stdout_alone(finished: Path) -> None:
    done = fcot("report", finished)
    assert (done.returncode, done.stderr) == (0, "")
    assert "student after (trained)" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "%" in line) <= 120
    as_json = fcot("report", finished, "--json")
    assert json.loads(as_json.stdout) == made()


def test_names_with_brackets_are_shown_as_they_are(finished: Path) -> None:
    value: dict[str, Any] = made()
    value["teacher"]["model"] = "[red]t[/] :cat:"
    value["student"]["model"] = "[/nothing] :cat:"
    write_json(finished / "result.json", value)
    done = fcot("report", finished)
    assert done.returncode == 0
    assert "teacher pass rate (] :cat:)" in done.stdout  # what follows the last slash
    assert "nothing] :cat:" in done.stdout


def test_a_pipe_that_is_closed_is_no_traceback(finished: Path) -> None:
    for arguments in (f"report {finished}", "models"):
        command = f"set -o pipefail; {sys.executable} -m fcot_lite {arguments} | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_models(tmp_path: Path) -> None:
    done = fcot("models")
    assert done.returncode == 0
    as_json = json.loads(fcot("models", "--json").stdout)
    assert [row["name"] for row in as_json] == [f"starter:{name}" for name in models.STARTERS]
    for row in as_json:
        assert row["path"] is None
        assert row["license"] == "Apache-2.0"
        assert len(row["gguf_sha256"]) == 64
        assert row["upstream"] in done.stdout


def test_a_model_that_is_here_has_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fcot_lite import cli

    monkeypatch.setattr(models, "_is_ready", lambda path, starter: True)
    cli.models(as_json=True)
    assert all(
        row["path"].endswith(row["name"].removeprefix("starter:")) for row in json.loads(capsys.readouterr().out)
    )


HEAVY = ["torch", "transformers", "vllm", "trl", "peft", "numpy", "pydantic", "yaml", "sqlite3"]


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys
sys.argv = ["fcot", "--help"]
from fcot_lite.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "Fine-tune-CoT" in done.stdout
    for command in ("run", "sample", "curate", "train", "evaluate", "report", "doctor", "models"):
        assert command in done.stdout


def test_a_dry_run_prints_the_whole_recipe_and_runs_nothing(tmp_path: Path) -> None:
    from fcot_lite.recipe import load

    done = fcot("run", QUICKSTART, "teacher.n=7", "--dry-run", "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "shown.yaml").write_text(done.stdout)
    assert load(tmp_path / "shown.yaml") == load(QUICKSTART, ["teacher.n=7"])
    assert not (tmp_path / "runs").exists()
    as_json = json.loads(fcot("run", QUICKSTART, "teacher.n=7", "--dry-run", "--json").stdout)
    assert as_json == load(QUICKSTART, ["teacher.n=7"]).model_dump()


@pytest.mark.parametrize(
    "override",
    ["teacher.m=7", "task.name=bogus", "task.options.foo=1", "task.options={terms: [4, 2]}", "student.model=gpt2"],
)
def test_a_dry_run_of_what_cannot_be(override: str) -> None:
    wrong = fcot("run", QUICKSTART, override, "--dry-run")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Traceback" not in wrong.stderr


def test_a_fault_of_the_recipe_loads_no_model_library() -> None:
    program = f"""
import sys
sys.argv = ["fcot", "run", {str(QUICKSTART)!r}, "seed=-1"]
from fcot_lite.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 2, end.code
print([name for name in ("torch", "transformers", "vllm", "trl", "peft", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


HELP_MODULES, FAULT_MODULES = 350, 320  # 294 and 257 when this was written; torch alone brings more than 1,000


def test_what_is_imported_before_anything_is_asked() -> None:
    """`fcot --help` and the fault of a recipe answer at once, because so little is loaded: seconds depend on the
    machine, modules do not."""
    program = """
import sys
bare = set(sys.modules)
sys.argv = ["fcot", *sys.argv[1:]]
from fcot_lite.cli import main
try:
    main()
except SystemExit:
    pass
print(len(set(sys.modules) - bare), file=sys.stderr)
"""
    for arguments, most in ((["--help"], HELP_MODULES), (["run", QUICKSTART, "seed=-1"], FAULT_MODULES)):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert 50 < int(done.stderr.splitlines()[-1]) <= most, arguments


def test_every_command_has_help() -> None:
    for command in ("run", "report"):
        done = fcot(command, "--help")
        assert done.returncode == 0
        assert done.stderr == ""


def test_without_arguments_it_helps() -> None:
    done = fcot()
    assert "Usage" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_a_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fcot_lite import cli

    def full() -> None:
        raise OSError(28, "No space left on device", "runs/x/result.json")

    with pytest.raises(SystemExit) as end:
        cli._guarded(full)
    assert end.value.code == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        "fcot: runs/x/result.json: the disk is full (No space left on device); make room, then run again"
        in captured.err
    )


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    from fcot_lite import cli

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli._guarded(interrupt)
    assert end.value.code == 130
    assert capsys.readouterr().err == "fcot: interrupted; run the same command again to go on\n"


def test_curate_prints_the_funnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fcot_lite import cli, pipeline
    from fcot_lite.files import write_json

    found = {"exact": 0, "normalised": 0, "ngram": 2, "test_ngram": 1, "train": 9, "test": 5, "examples": []}
    curation = {"input": 9, "kept": 6, "dropped": {"wrong": 2, "duplicate": 1}, "contamination": found}

    def run(recipe: Any, runs: Path, *, last: str, force: bool) -> None:
        assert (last, force) == ("curate", False)
        (runs / recipe.name).mkdir(exist_ok=True)
        write_json(runs / recipe.name / "curation.json", curation | {"rows": [{"reason": "wrong"}]})

    monkeypatch.setattr(pipeline, "run", run)
    cli.curate(QUICKSTART, None, tmp_path)
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines() if line.strip()][:6] == [
        ["dropped", "left"],
        ["─" * len(line.strip()) for line in out.splitlines() if "─" in line],
        ["input", "9"],
        ["wrong", "2", "7"],
        ["duplicate", "1", "6"],
        ["kept", "6"],
    ]
    assert "stand in test: 0 of 9; that share 13 words in a row with one of 1 (of 5): 2" in out
    assert err == ""
    cli.curate(QUICKSTART, None, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == curation
