"""Training that is killed goes on as if it had not been: the same losses, the same adapter, byte for byte.

Each kill is a real SIGKILL of a forked process: what it takes to import TRL is paid once.
"""
# ruff: noqa: E402

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from test_student import ROWS, model_dir  # noqa: F401
from test_student import train as train_student

from fcot_lite import checkpoints, student
from fcot_lite.checkpoints import MARKER
from fcot_lite.files import read_json
from fcot_lite.machine import Machine

pytestmark = pytest.mark.real

ONE_CORE = Machine("cpu", (0,))  # a fork keeps only the thread that forked
KILLS = 20
SFT = {"learning_rate": 1e-2, "num_train_epochs": 3, "per_device_train_batch_size": 4}
STEPS = 9  # 10 rows
ARGUMENTS: dict[str, Any] = {
    "machine": ONE_CORE,
    "sft": SFT,
    "lora": {"r": 4, "lora_dropout": 0.1},  # dropout asks for torch's random state too
}


@pytest.fixture(autouse=True)
def at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(checkpoints, "MOST_OF_THE_TIME", 1e9)


def train(model_dir: Path, folder: Path, **changes: Any) -> student.TrainOutcome:  # noqa: F811
    return train_student(model_dir, folder, **(ARGUMENTS | changes))


def adapter(folder: Path, name: str = "adapter_model.safetensors") -> bytes:
    return (folder / "adapter" / name).read_bytes()


STRAIGHT: dict[str, tuple[student.TrainOutcome, bytes]] = {}


def straight(model_dir: Path, folder: Path, method: str = "lora") -> tuple[student.TrainOutcome, bytes]:  # noqa: F811
    """The outcome of training without an interruption or a checkpoint, and its weights."""
    if method not in STRAIGHT:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 1e9)
            outcome = train(model_dir, folder / "straight", method=method)
        assert not list((folder / "straight" / "checkpoints").glob("checkpoint-*"))
        STRAIGHT[method] = outcome, adapter(folder / "straight", WEIGHTS[method])
    return STRAIGHT[method]


WEIGHTS = {
    "lora": "adapter_model.safetensors",
    "qlora": "adapter_model.safetensors",
    "full": "model.safetensors",
}


def forked(work: Callable[[], Any], kill_after: float | None = None) -> int:
    """Does `work` in a fork, which may be killed from here; returns how it ended, 0 where it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def progress_that(act: Callable[[], Any], at_step: int) -> Callable[[int, int, str], None]:
    """As `progress`, which is called after a step and before its checkpoint is made."""

    def progress(done: int, total: int, note: str) -> None:
        if total and done == at_step:
            act()

    return progress


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("method", list(WEIGHTS))
def test_killed_at_steps_and_resumed(method: str, model_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    """In the first epoch, in a later one, at the end of one, and before the last step."""
    outcome, weights = straight(model_dir, tmp_path, method)
    assert [step for step, _ in outcome.losses] == list(range(1, STEPS + 1))
    said: list[str] = []
    for step in (2, 5, 7, STEPS):
        progress = progress_that(kill, step)
        assert forked(lambda: train(model_dir, tmp_path, method=method, progress=progress)) == -signal.SIGKILL  # noqa: B023
    resumed = train(model_dir, tmp_path, method=method, say=said.append)
    assert said == [f"training goes on from the checkpoint of step {STEPS - 1}"]
    assert resumed.resumed_at == STEPS - 1
    assert resumed.losses == outcome.losses
    assert resumed.num_tokens == outcome.num_tokens == 3 * sum(len(row.input_ids) for row in ROWS)
    assert adapter(tmp_path, WEIGHTS[method]) == weights
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(
    ("lora", "sft"),
    [({"loraplus_lr_ratio": 16.0}, {}), ({"init_lora_weights": "eva"}, {}), ({}, {"optim": "adamw_8bit"})],
)
def test_other_optimisers_and_beginnings_resume_too(
    lora: dict[str, Any],
    sft: dict[str, Any],
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    chosen: dict[str, Any] = {"lora": {"r": 4} | lora, "sft": SFT | sft}
    whole = train(model_dir, tmp_path / "straight", **chosen)
    assert forked(lambda: train(model_dir, tmp_path, progress=progress_that(kill, 6), **chosen)) == -signal.SIGKILL
    resumed = train(model_dir, tmp_path, **chosen)
    assert (resumed.resumed_at, resumed.losses) == (5, whole.losses)
    assert adapter(tmp_path) == adapter(tmp_path / "straight")


def test_killed_at_any_moment(model_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    outcome, weights = straight(model_dir, tmp_path)
    start = time.monotonic()
    assert forked(lambda: train(model_dir, tmp_path / "timed")) == 0
    seconds, clock, kills, runs = time.monotonic() - start, random.Random("kills"), 0, 0
    while kills < KILLS:
        runs += 1
        folder = tmp_path / str(runs)
        while forked(lambda: train(model_dir, folder), clock.uniform(0.2, 1) * seconds) == -signal.SIGKILL:  # noqa: B023
            kills += 1
        assert adapter(folder) == weights
        again = train(model_dir, folder)  # from its last checkpoint
        assert again.losses == outcome.losses
    print(f"{kills} kills in {runs} trainings, all with the uninterrupted one's losses and weights")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_step_and_leaves_a_checkpoint(
    number: signal.Signals,
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome, weights = straight(model_dir, tmp_path)
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 1e9)
    interrupted = progress_that(lambda: os.kill(os.getpid(), number), 4)
    assert forked(lambda: train(model_dir, tmp_path, progress=interrupted)) == 130
    assert names(tmp_path) == ["checkpoint-4"]
    resumed = train(model_dir, tmp_path)
    assert (resumed.resumed_at, resumed.losses) == (4, outcome.losses)
    assert adapter(tmp_path) == weights


def test_a_second_interrupt_does_not_wait() -> None:
    with checkpoints.after_the_step() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Which checkpoint is taken.


@pytest.fixture(scope="module")
def left_behind(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """What a training leaves that was killed when the files of its seventh checkpoint stood and its marker did not."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0)
        monkeypatch.setattr(checkpoints, "MOST_OF_THE_TIME", 1e9)
        complete = checkpoints._complete

        def killed_before(path: Path, *rest: Any) -> None:
            kill() if path.name == "checkpoint-7" else complete(path, *rest)

        monkeypatch.setattr(checkpoints, "_complete", killed_before)
        assert forked(lambda: train(model_dir, folder)) == -signal.SIGKILL
    assert names(folder) == ["checkpoint-5", "checkpoint-6", "checkpoint-7"]
    return folder


@pytest.fixture
def killed(left_behind: Path, tmp_path: Path) -> Path:
    shutil.copytree(left_behind, tmp_path / "killed")
    return tmp_path / "killed"


def newest(folder: Path, **changed: Any) -> tuple[int | None, list[str]]:
    """The step of the checkpoint that would be taken, and what is said of others."""
    said: list[str] = []
    identity = read_json(folder / "checkpoints" / "checkpoint-5" / MARKER)["identity"]
    found = checkpoints.newest(folder / "checkpoints", identity | changed, said.append)
    return found and found.step, said


def test_killed_while_each_of_its_files_was_written(killed: Path) -> None:
    unfinished = killed / "checkpoints" / "checkpoint-7"
    files = sorted((file for file in unfinished.iterdir()), key=lambda file: -file.stat().st_mtime_ns)
    assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"} <= {
        file.name for file in files
    }
    for file in files:  # the last one written first: half of it, then nothing of it
        for size in (file.stat().st_size // 2, 0):
            os.truncate(file, size)
            assert newest(killed) == (
                6,
                [f"checkpoint-7 is not used: it was not finished, {MARKER} is missing or damaged"],
            )
        file.unlink()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_taken(name: str, killed: Path) -> None:
    shutil.rmtree(killed / "checkpoints" / "checkpoint-7")
    file = killed / "checkpoints" / "checkpoint-6" / name
    whole = file.read_bytes()
    for content, reason in (
        (whole[:100], f"{name} has 100 bytes, not {len(whole):,}"),
        (b"", f"{name} has 0 bytes, not {len(whole):,}"),
        (bytes([whole[0] ^ 1]) + whole[1:], f"{name} is damaged, its SHA-256 is another"),
        (whole[:-1] + bytes([whole[-1] ^ 128]), f"{name} is damaged, its SHA-256 is another"),
        (None, f"{name} is missing"),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        assert newest(killed) == (5, [f"checkpoint-6 is not used: {reason}"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"files": {}}'])
def test_a_damaged_marker_makes_no_checkpoint(content: bytes, killed: Path) -> None:
    (killed / "checkpoints" / "checkpoint-7" / MARKER).write_bytes(content)
    step, said = newest(killed)
    assert step == 6
    assert len(said) == 1


def test_with_no_whole_checkpoint_training_starts_over(killed: Path, model_dir: Path) -> None:  # noqa: F811
    outcome, weights = straight(model_dir, killed)
    for step in (5, 6):
        (killed / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt").unlink()
    said: list[str] = []
    resumed = train(model_dir, killed, say=said.append)
    assert [line.split(" is not used: ")[0] for line in said] == ["checkpoint-7", "checkpoint-6", "checkpoint-5"]
    assert (resumed.resumed_at, resumed.losses) == (None, outcome.losses)
    assert adapter(killed) == weights
    assert names(killed) == ["checkpoint-7", "checkpoint-8"]  # what was of no use is gone


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"train_rows": ROWS[::-1]}, "rows"),
        ({"seed": 2}, "options"),
        ({"lora": {"r": 8}}, "lora"),
        ({"method": "qlora"}, "method"),
        ({"sft": SFT | {"learning_rate": 2e-2}}, "options"),
        ({"sft": SFT | {"per_device_train_batch_size": 5}}, "batch size"),
    ],
)
def test_a_checkpoint_of_another_training_is_never_taken(
    changes: dict[str, Any],
    other: str,
    killed: Path,
    model_dir: Path,  # noqa: F811
) -> None:
    said: list[str] = []

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model_dir, killed, say=said.append, progress=progress_that(stop, 1), **changes)
    assert f"checkpoint-6 is not used: it is of another training, by its {other}" in said
    assert not any("goes on" in line for line in said)
    assert "checkpoint-6" in names(killed)  # until this one has a checkpoint of its own


@pytest.mark.parametrize("part", ["weights", "versions", "epochs kept"])
def test_other_weights_or_libraries_are_another_training(part: str, killed: Path) -> None:
    step, said = newest(killed, **{part: "other"})
    assert step is None
    assert f"checkpoint-6 is not used: it is of another training, by its {part}" in said


# When one is made.


def test_one_a_minute_and_less_often_where_saving_takes_long(
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 20 s. At first one takes no time to save, then 2 s, of which 50 may pass."""
    now, saved, save_seconds = [0.0], [], [0.0]
    complete = checkpoints._complete

    def slowly(path: Path, *rest: Any) -> None:
        now[0] += save_seconds[0]
        saved.append(int(path.name.split("-")[1]))
        save_seconds[0] = 2.0
        complete(path, *rest)

    def step(done: int, total: int, note: str) -> None:
        now[0] += 20 if total else 0

    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 60)
    monkeypatch.setattr(checkpoints, "MOST_OF_THE_TIME", 0.02)
    monkeypatch.setattr(checkpoints, "_complete", slowly)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    train(model_dir, tmp_path, progress=step, sft=SFT | {"num_train_epochs": 5})
    assert saved == [3, 6, 11]  # after 60, 60 and 102 s: the clock starts again when a checkpoint is asked for


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    outcome, weights = straight(model_dir, tmp_path)
    assert train(model_dir, tmp_path, say=said.append).losses == outcome.losses
    assert adapter(tmp_path) == weights
    assert names(tmp_path) == []
    assert said[0] == "no checkpoint: 0.0 GiB of disk are free, one takes 0.0"


# Students by epoch.


def test_the_student_of_each_epoch_is_kept_over_kills(model_dir: Path, tmp_path: Path) -> None:  # noqa: F811
    def run(folder: Path, **changes: Any) -> student.TrainOutcome:
        return train(model_dir, folder, epochs_dir=folder / "epochs", **changes)

    def weights(folder: Path) -> dict[str, bytes]:
        files = folder.glob("epochs/*/adapter_model.safetensors")
        return {file.parent.name: file.read_bytes() for file in files}

    outcome = run(tmp_path / "straight")
    whole = weights(tmp_path / "straight")
    assert outcome.epochs == sorted(whole) == ["epoch-1", "epoch-2", "epoch-3"]
    assert whole["epoch-3"] == adapter(tmp_path / "straight") == straight(model_dir, tmp_path)[1]
    assert len(set(whole.values())) == 3
    save_student = student._save_student

    def killed_before_the_second(*arguments: Any) -> None:
        kill() if arguments[-1].name == "epoch-2" else save_student(*arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(student, "_save_student", killed_before_the_second)
        assert forked(lambda: run(tmp_path)) == -signal.SIGKILL
    assert forked(lambda: run(tmp_path, progress=progress_that(kill, 9))) == -signal.SIGKILL
    # The newest checkpoint vouches for the students of the epochs before it too.
    damaged = tmp_path / "epochs" / "epoch-2" / "adapter_model.safetensors"
    damaged.write_bytes(b"")
    said: list[str] = []
    resumed = run(tmp_path, say=said.append)
    assert [line.partition(" is not used: ")[2] for line in said] == [
        f"../../epochs/epoch-2/adapter_model.safetensors has 0 bytes, not {len(whole['epoch-2']):,}"
    ] * 2
    assert resumed.epochs == outcome.epochs
    assert weights(tmp_path) == whole
