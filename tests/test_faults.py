"""Whatever fails under a sampling run: one message that says what to do, the right exit code, nothing lost.

The sample stage in a process of its own on a real store; the kernel fails its writes.
"""

import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faulty_disk
import light_stage
import pytest
from faulty_disk import BROKEN, FULL
from test_kills import lines, stored

from fcot_lite import files, prompts
from fcot_lite.errors import INTERRUPTED, DataError, EngineError, ResourceError
from fcot_lite.recipe import STORE, dump
from fcot_lite.store import SampleStore

pytestmark = pytest.mark.real


def run(folder: Path, before: Callable[[], None] | None = None) -> int | None:
    process = light_stage.start(folder, before)
    process.join()
    code: int | None = process.exitcode
    return code


def message(folder: Path) -> str:
    """The stage's last words, as the run's user reads them."""
    said = [json.loads(line) for line in lines(folder / "said")]
    return next((str(line["error"]) for line in reversed(said) if "error" in line), "")


def engine_started(folder: Path) -> bool:
    return any(line.startswith("core") for line in lines(folder / "pids"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = light_stage.prepare(tmp_path_factory.mktemp("straight"), n=1)
    assert run(folder) == 0, lines(folder / "log")
    return (folder / "light" / "samples.jsonl").read_bytes()


def nothing_is_lost(folder: Path, straight: bytes) -> None:
    """The store is whole, the next run completes it, and at most one poll's samples were made twice."""
    kept = stored(folder)
    finished = [key for line in lines(folder / "finished") for key in json.loads(line)]
    assert len(set(finished) - kept) <= light_stage.PER_POLL
    assert run(folder) == 0, lines(folder / "log")
    assert (folder / "light" / "samples.jsonl").read_bytes() == straight
    again = [key for line in lines(folder / "finished") for key in json.loads(line)][len(finished) :]
    assert not kept & set(again)


def fails_at(which: int, fault: tuple[set[str], int]) -> None:
    """The disk fails at the so manieth time that something is to become durable."""
    count = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def fails(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == which:
                faulty_disk.fail(*fault)
            return write(*arguments)

        return fails

    SampleStore.transaction = counted(SampleStore.transaction)  # type: ignore[method-assign]
    files.open_atomic = counted(files.open_atomic)
    if which == 0:
        faulty_disk.fail(*fault)


@pytest.mark.parametrize(("fault", "says"), [(FULL, "full"), (BROKEN, "fail")], ids=["no space left", "fsync says EIO"])
def test_a_disk_that_fails_at_any_write(tmp_path: Path, straight: bytes, fault: Any, says: str) -> None:
    which, code = 0, None
    while code != 0:
        folder = light_stage.prepare(tmp_path / str(which), n=1)
        code = run(folder, partial(fails_at, which, fault))
        if code != 0:
            assert code == ResourceError.exit_code, (which, lines(folder / "log"))
            assert says in message(folder), (which, message(folder))
            assert "then run again" in message(folder)
            nothing_is_lost(folder, straight)
            which += 1
    assert which > 8, "so many writes it takes at least"


@pytest.mark.parametrize("most_bytes", [0, 100, 6_000, 40_000, 80_000])
def test_files_that_cannot_grow(tmp_path: Path, straight: bytes, most_bytes: int) -> None:
    """Of all kinds, the log too: the limit that a disk quota is."""
    folder = light_stage.prepare(tmp_path, n=1)
    code = run(folder, partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most_bytes, most_bytes)))
    assert code == ResourceError.exit_code, lines(folder / "log")
    nothing_is_lost(folder, straight)


def with_a_full_log() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    light_stage.Core.poll = died  # type: ignore[method-assign]


def died(*_: Any, **__: Any) -> Any:
    raise EngineError("the engine died: out of fuel")


def test_a_fault_is_told_though_the_log_cannot_be_written(tmp_path: Path, straight: bytes) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    assert run(folder, with_a_full_log) == EngineError.exit_code
    assert message(folder) == "the engine died: out of fuel"
    nothing_is_lost(folder, straight)


def without_memory() -> None:
    """From the third poll on the stage asks for more than it may have."""
    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    poll, polls = light_stage.Core.poll, 0

    def hungry(self: light_stage.Core, timeout: float) -> Any:
        nonlocal polls
        polls += 1
        return bytearray(2**33) if polls > 2 else poll(self, timeout)

    light_stage.Core.poll = hungry  # type: ignore[method-assign]


def test_out_of_memory(tmp_path: Path, straight: bytes) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    assert run(folder, without_memory) == ResourceError.exit_code
    assert "out of memory" in message(folder)
    assert "lower engine.max_num_seqs" in message(folder)
    assert len(stored(folder)) == 2 * light_stage.PER_POLL
    nothing_is_lost(folder, straight)


def never_starts() -> None:
    def start(*_: Any) -> Any:
        raise EngineError("vLLM could not start: no such kernel")

    light_stage.Core.__init__ = start  # type: ignore[assignment,method-assign]


def test_an_engine_that_does_not_start(tmp_path: Path, straight: bytes) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    assert run(folder, never_starts) == EngineError.exit_code
    assert message(folder) == "vLLM could not start: no such kernel"
    nothing_is_lost(folder, straight)


def interrupted_in(place: str, name: str, number: int) -> None:
    """The signal comes just before that is done for the first time."""
    where = pkgutil.resolve_name(place)
    does = getattr(where, name)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        setattr(where, name, does)
        os.kill(os.getpid(), number)
        return does(*arguments, **more)

    setattr(where, name, interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("fcot_lite.stage", "questions"),
        ("light_stage:Core", "__init__"),
        ("light_stage:Core", "submit"),
        ("fcot_lite.store:SampleStore", "put"),
        ("fcot_lite.stage", "_graded"),
        ("fcot_lite.stage", "write_jsonl"),
        ("fcot_lite.stage", "write_json"),
    ],
    ids=["rendering", "loading", "submitting", "storing", "grading", "writing samples", "writing the outcome"],
)
def test_an_interrupt_at_every_step(tmp_path: Path, straight: bytes, place: str, name: str, number: int) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    assert run(folder, partial(interrupted_in, place, name, number)) == INTERRUPTED, lines(folder / "log")
    assert message(folder) == ""
    nothing_is_lost(folder, straight)


# ---- before an engine is started --------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context(tmp_path: Path) -> None:
    longest = max(light_stage.PROBLEMS, key=lambda problem: len(problem.question))
    most = max(len(problem.question) for problem in light_stage.PROBLEMS if problem is not longest)
    room = most + len("user\n<|im_end|>assistant\n")
    assert len(longest.question) > most
    folder = light_stage.prepare(tmp_path, n=1, engine={"max_model_len": room + 9})
    assert run(folder) == DataError.exit_code
    assert message(folder) == (
        f"{longest.id}: the prompt has {room + len(longest.question) - most} tokens, but engine.max_model_len - "
        f"sampling.max_tokens leaves {room}; raise engine.max_model_len"
    )
    assert not engine_started(folder)


def template_that_chokes() -> None:
    apply = light_stage.Tokenizer.apply_chat_template

    def chokes(self: Any, turns: Any, *arguments: Any, **how: Any) -> Any:
        if turns[0]["content"] == light_stage.PROBLEMS[7].question:
            raise TypeError("can only concatenate str")
        return apply(self, turns, *arguments, **how)

    light_stage.Tokenizer.apply_chat_template = chokes  # type: ignore[method-assign]


def test_a_question_that_cannot_be_rendered(tmp_path: Path) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    assert run(folder, template_that_chokes) == DataError.exit_code
    assert message(folder).startswith(f"{light_stage.PROBLEMS[7].id}: can't be turned into tokens (TypeError")
    assert not engine_started(folder)


@pytest.mark.parametrize(
    ("question", "template"),
    [
        ("half a \ud800 character", None),
        ("any", "{{ messages[0].content + 1 }}"),
        ("any", "{{ 1 / 0 }}"),
        ("any", "{{ raise_exception('no such role') }}"),
        ("any", "{{ messages[7].content.x }}"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_what_a_real_tokenizer_refuses_names_the_problem(
    model_dir: Path, question: str, template: str | None, plain: bool
) -> None:
    tokenizer = prompts.load_tokenizer(model_dir)
    tokenizer.chat_template = template or tokenizer.chat_template
    turns: prompts.Rendered = question if plain else [{"role": "user", "content": question}]
    if plain and template:
        assert prompts.prompt_ids(tokenizer, turns, "own/train/7"), "no template is asked"
        return
    with pytest.raises(DataError, match=r"^own/train/7: "):
        prompts.prompt_ids(tokenizer, turns, "own/train/7")


def test_a_store_that_is_none_stops_the_stage_before_the_engine(tmp_path: Path) -> None:
    folder = light_stage.prepare(tmp_path, n=1)
    (folder / STORE).write_bytes(b"problem_id,text\n" * 1000)
    assert run(folder) == DataError.exit_code
    assert f"{folder / STORE}: file is not a database; the file is damaged, move it away" in message(folder)
    assert not engine_started(folder)


NO_MODEL = """
import sys
from fcot_lite import cli, models, pipeline
pipeline.LEAST_MEMORY_GIB = pipeline.LEAST_DISK_GIB = 0
def resolve(name, say):
    raise SystemExit("a model was asked for")
models.resolve = resolve
cli.main()
"""


@pytest.mark.parametrize("name", ["", "light", "light/stages", STORE, f"{STORE}.lock", ".light.lock"])
def test_what_cannot_be_written_is_named_before_a_model_is_fetched(tmp_path: Path, name: str) -> None:
    recipe, runs = tmp_path / "recipe.yaml", tmp_path / "runs"
    recipe.write_text(dump(light_stage.recipe(n=1)))
    (runs / "light" / "stages").mkdir(parents=True)
    for file in (STORE, f"{STORE}.lock", ".light.lock"):
        (runs / file).touch()
    command = [sys.executable, "-c", NO_MODEL, "sample", str(recipe), "--runs", str(runs)]
    start = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    (runs / name).chmod(0o555 if (runs / name).is_dir() else 0o444)
    try:
        done = start(preexec_fn=faulty_disk.without_roots_rights)
    finally:
        (runs / name).chmod(0o755)
    assert done.returncode == ResourceError.exit_code, done.stderr
    assert f"fcot: {runs / name}" in done.stderr
    assert "writable" in done.stderr
    if not name:
        assert "a model was asked for" in start().stderr, "where all can be written it goes on"
