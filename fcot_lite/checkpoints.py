"""Checkpoints from which a killed training goes on as if nothing had been.

The Trainer writes a checkpoint file by file, and resuming it takes the one with the highest number, whole or not
(transformers 5.19, `get_last_checkpoint`). Here a marker with the size and SHA-256 of every file is written last, and a
checkpoint counts only while they hold and while it is one of the very same training. So nothing is unpickled that was
not written here.
"""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fcot_lite import models
from fcot_lite.files import fsync_tree, read_record, sha256_file, sha256_json, write_json

MARKER = "complete.json"
KEPT = 2  # the newest, and the one before it should the newest turn out damaged
SECONDS_BETWEEN = 60.0  # what a killed training loses at most, where saving is quick
MOST_OF_THE_TIME = 0.02  # saving `full` weights with both moments of Adam takes seconds: then less often
# Whose versions a training's course depends on.
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")
BYTES_PER_PARAMETER = 12  # float32: the value and both moments of Adam


@dataclass(frozen=True, slots=True)
class Spent:
    """What a training has taken up to a checkpoint, over all its attempts. The gpu fields are None on the CPU."""

    num_tokens: int = 0
    wall_seconds: float = 0.0
    peak_gpu_allocated_gib: float | None = None
    peak_gpu_reserved_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`epochs` are the students that were kept at the ends of epochs up to here, by name."""

    path: Path
    step: int
    spent: Spent
    epochs: list[str]


def newest(folder: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole and of the training that `identity` describes.

    Each newer one is named with the reason that it is not used.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        marker = read_record(path / MARKER)
        if fault := _fault(path, marker, identity):
            say(f"{path.name} is not used: {fault}")
        else:
            return Checkpoint(path, _step(path), Spent(**marker["spent"]), marker["epochs"])
    return None


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _fault(path: Path, marker: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Why the checkpoint can't be resumed from."""
    if marker.keys() != {"identity", "spent", "epochs", "files"}:
        return f"it was not finished, {MARKER} is missing or damaged"
    known = marker["identity"]
    if known != identity:
        other = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
        return f"it is of another training, by its {', '.join(other)}"
    for name, (size, sha256) in marker["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes, not {size:,}"
        if sha256_file(file) != sha256:
            return f"{name} is damaged, its SHA-256 is another"
    return None


def identity(
    model_dir: Path,
    rows: Sequence[Any],
    method: str,
    lora: Mapping[str, Any],
    arguments: Mapping[str, Any],
    epochs_kept: bool,
) -> dict[str, Any]:
    """All that a training's course depends on, so that a checkpoint of another one is never taken for its own.

    Of the batch size only the whole: micro-batches that were halved for want of memory go on.
    """
    batch = ("per_device_train_batch_size", "gradient_accumulation_steps")
    micro, steps = (arguments.get(name, default) for name, default in zip(batch, (8, 1), strict=True))  # TRL's
    return {
        "rows": sha256_json([[row.input_ids, row.labels] for row in rows]),
        "weights": models.weights_hash(model_dir),
        "method": method,
        "lora": dict(lora),
        "options": {name: value for name, value in arguments.items() if name not in (*batch, "output_dir")},
        "batch size": micro * steps,
        "epochs kept": epochs_kept,
        "versions": {name: version(name) for name in LIBRARIES},
    }


class Interrupt:
    """Whether Ctrl-C was pressed, or SIGTERM received, since training began."""

    received = False


@contextlib.contextmanager
def after_the_step() -> Iterator[Interrupt]:
    """Lets a first interrupt wait for the end of the step, so that a checkpoint can be made there. A second one does
    not wait."""
    interrupt = Interrupt()

    def receive(number: int, frame: Any) -> None:
        if interrupt.received:
            raise KeyboardInterrupt
        interrupt.received = True

    if threading.current_thread() is not threading.main_thread():  # Python sets handlers there only
        yield interrupt
        return
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def saver(
    folder: Path,
    identity: Mapping[str, Any],
    seed: int,
    resumed: Checkpoint | None,
    interrupt: Interrupt,
    spent: Callable[[], Spent],
    epochs_dir: Path | None,
    save_student: Callable[[Path], None],
    say: Callable[[str], None],
) -> Any:
    """The Trainer's callback that makes checkpoints in `folder`: about once a minute, and where it was interrupted,
    which then raises KeyboardInterrupt.

    With `epochs_dir` the student is saved there at the end of each epoch, and a checkpoint made that vouches for those
    files too; `epochs` has their names.
    """
    from transformers import TrainerCallback

    class Saver(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kept = [] if resumed is None else [resumed.path]
            self.epochs = [] if resumed is None else resumed.epochs
            self.save_seconds, self.saved_at = 0.0, time.monotonic()

        def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any, **_: Any) -> None:
            # The Trainer's sampler draws an epoch's order from torch's global generator, whose state at the beginning
            # of the epoch is gone when training resumes in the middle of it.
            import torch

            order = int(sha256_json([seed, int(state.epoch or 0)])[:8], 16)
            train_dataloader.batch_sampler.sampler.generator = torch.Generator().manual_seed(order)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if epochs_dir is not None and state.epoch == int(state.epoch):
                return  # the epoch's student first, which the checkpoint then vouches for
            wait = max(SECONDS_BETWEEN, self.save_seconds / MOST_OF_THE_TIME)
            if interrupt.received or time.monotonic() - self.saved_at >= wait:
                self.ask(state, control, model)

        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if epochs_dir is not None:
                save_student(epochs_dir / f"epoch-{state.epoch:g}")
                self.epochs = [*self.epochs, f"epoch-{state.epoch:g}"]
                self.ask(state, control, model)

        def ask(self, state: Any, control: Any, model: Any) -> None:
            """For a checkpoint after this step, if there is room for it. The last step needs none: training is done."""
            if state.global_step >= state.max_steps:
                return
            self.saved_at = time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
            needed, free = parameters * BYTES_PER_PARAMETER, shutil.disk_usage(folder).free
            control.should_save = free > needed
            if control.should_save:
                _remove(folder / f"checkpoint-{state.global_step}")  # a killed attempt may have left its half there
                return
            say(f"no checkpoint: {free / 2**30:.1f} GiB of disk are free, one takes {needed / 2**30:.1f}")
            if interrupt.received:
                raise KeyboardInterrupt

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = folder / f"checkpoint-{state.global_step}"
            places = [] if epochs_dir is None else [epochs_dir / name for name in self.epochs]
            _complete(path, identity, spent(), places)
            self.save_seconds = time.monotonic() - self.saved_at
            self.kept = [*self.kept[1 - KEPT :], path]
            for other in folder.glob("checkpoint-*"):
                if other not in self.kept:
                    _remove(other)
            if interrupt.received:
                raise KeyboardInterrupt

    return Saver()


def _complete(path: Path, identity: Mapping[str, Any], spent: Spent, epochs: Sequence[Path]) -> None:
    """Makes the checkpoint durable, then writes its marker."""
    fsync_tree(path)
    files = sorted(file for place in (path, *epochs) for file in place.rglob("*") if file.is_file())
    marker = {
        "identity": identity,
        "spent": asdict(spent),
        "epochs": [place.name for place in epochs],
        "files": {os.path.relpath(file, path): [file.stat().st_size, sha256_file(file)] for file in files},
    }
    write_json(path / MARKER, marker)


def _remove(path: Path) -> None:
    """The marker first: what a kill leaves of it is then no checkpoint."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
