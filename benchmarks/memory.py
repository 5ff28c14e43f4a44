"""What training takes at its peak, measured, and what `fcot plan` says of it.

    python benchmarks/memory.py --minutes 9      # measures the cells that are missing, then prints the table
    python benchmarks/memory.py --table          # prints the table from benchmarks/results/memory.json

Every cell is a process of its own, forked once the imports are done, that calls `student.train` for two steps of one
micro-batch of known tokens. The allocated
peak counts every tensor that is alive, by what it is for. torch's own MemTracker cannot: it hooks the gradient of every
parameter, which torch refuses for the frozen ones of LoRA. Checked against torch.profiler's allocator events (--cross).
The resident peak is what the kernel gave: anonymous pages, above those after the imports.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from fcot_lite.files import write_json

RESULTS = Path(__file__).parent / "results" / "memory.json"
MODELS = {"135M": "starter:smollm2-135m-instruct", "0.5B": "starter:qwen2.5-coder-0.5b-instruct"}
BATCH, RANK = 2, 32
CELLS = {
    f"{model} {method} {'checkpointing' if checkpointing else 'all kept'} {length}": (
        model, method, checkpointing, length,
    )
    for model, length, method, checkpointing in product(MODELS, (128, 768), ("full", "lora", "qlora"), (False, True))
}  # fmt: skip
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="start no cell after that")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--cross", metavar="CELL", help="count this cell with torch.profiler too, and print that")
    arguments = parser.parse_args()
    if arguments.cross:
        print(f"{arguments.cross}: torch.profiler counts {in_a_process(profiled, arguments.cross):.0f} MiB")
        return
    deadline = time.monotonic() + (0 if arguments.table else 60 * arguments.minutes)
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in CELLS:
        if name not in found and time.monotonic() < deadline:
            found[name] = in_a_process(measured, name)
            write_json(RESULTS, {cell: found[cell] for cell in CELLS if cell in found})
            print(f"{name}: {found[name]['allocated_mib']:.0f} MiB", file=sys.stderr, flush=True)
    table(found)


def in_a_process(measure: Callable[[str], Any], name: str) -> Any:
    """What `measure(name)` returns, called in a process that has trained nothing yet."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""})
    import bitsandbytes  # noqa: F401  the imports are no part of what is measured
    import datasets  # noqa: F401
    import peft  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(measure, (name,))


def train(name: str) -> tuple[int, int]:
    """Two steps of the cell. Returns the tokens of a micro-batch, and how many of them carry a label."""
    from transformers import AutoTokenizer

    from fcot_lite import models, student
    from fcot_lite.machine import detect
    from fcot_lite.prompts import end_of_turn_id
    from fcot_lite.rows import IGNORED, TokenRow

    model, method, checkpointing, length = CELLS[name]
    model_dir = models.resolve(MODELS[model], say=lambda line: print(line, file=sys.stderr))
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    end = end_of_turn_id(tokenizer)
    draw = random.Random("rows")
    rows = []
    for _ in range(2 * BATCH):
        ids = [*(draw.randrange(3, len(tokenizer)) for _ in range(length - 1)), end]
        rows.append(TokenRow(ids, [IGNORED] * (length // 2) + ids[length // 2 :]))
    sft = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "gradient_checkpointing": checkpointing,
    }
    with tempfile.TemporaryDirectory() as folder:
        student.train(
            model_dir,
            rows,
            method=method,
            lora={"r": RANK},
            sft=sft,
            seed=0,
            machine=detect(),
            output_dir=Path(folder) / "out",
            checkpoints_dir=Path(folder) / "checkpoints",
            progress=lambda *_: None,
            say=print,
        )
    return BATCH * length, sum(label != IGNORED for row in rows[:BATCH] for label in row.labels)


def measured(name: str) -> dict[str, Any]:
    allocations, resident = _allocations(), Resident()
    start = time.monotonic()
    with allocations:
        num_tokens, num_labelled = train(name)
    return {
        "num_tokens": num_tokens,
        "num_labelled": num_labelled,
        "allocated_mib": allocations.peak / MIB,
        "parts_mib": {part: size / MIB for part, size in allocations.parts_at_peak.items()},
        **resident.stop(),
        "wall_seconds": time.monotonic() - start,
    }


def profiled(name: str) -> float:
    """The peak of what the allocator says it gave, in MiB."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(name)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / MIB


def _allocations() -> Any:
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Allocations(TorchDispatchMode):  # type: ignore[misc]
        """Counts the bytes of every storage that an operator returned and that is still alive."""

        def __init__(self) -> None:
            super().__init__()
            self.peak = 0
            self.parts_at_peak: dict[str, int] = {}
            self._live: dict[int, tuple[str, int, Any]] = {}  # by address: part, bytes, a reference that tells its end
            self._parts: Counter[str] = Counter()
            self._total = 0
            self._seen = False
            torch.nn.modules.module.register_module_forward_pre_hook(self._look_at)
            register_optimizer_step_post_hook(self._optimizer_stepped)

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, self._note, result)
            if self._total > self.peak:
                self.peak, self.parts_at_peak = self._total, dict(self._parts)
            return result

        def _note(self, tensor: Any, part: str | None = None) -> None:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if (known := self._live.get(key)) is not None:
                self._remove(key)
            part = part or (known[0] if known else "activations" if self._seen else "loading")
            self._live[key] = part, size, weakref.ref(storage, lambda _: self._remove(key))
            self._parts[part] += size
            self._total += size

        def _remove(self, key: int) -> None:
            part, size, _ = self._live.pop(key)
            self._parts[part] -= size
            self._total -= size

        def _look_at(self, model: Any, inputs: Any) -> None:
            """At the first forward of all: which storages are the model's."""
            if self._seen:
                return
            self._seen = True
            adapted = any(not parameter.requires_grad for parameter in model.parameters())
            for parameter in model.parameters():
                self._note(parameter, "adapters" if parameter.requires_grad and adapted else "weights")
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(lambda owner: self._note(owner.grad, "gradients"))
                if (state := getattr(parameter, "quant_state", None)) is not None:  # bitsandbytes' scales
                    for tensor in (state.absmax, state.code, state.state2.absmax, state.state2.code):
                        self._note(tensor, "weights")
            for buffer in model.buffers():
                self._note(buffer, "weights")

        def _optimizer_stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
            for state in optimizer.state.values():
                for tensor in state.values():
                    if isinstance(tensor, torch.Tensor):
                        self._note(tensor, "optimizer")

    return Allocations()


class Resident:
    """The peak of this process's anonymous pages from now on, looked at every 20 ms; and the kernel's own VmHWM."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        self._before = self._peak = _status("RssAnon")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        return {"resident_mib": self._peak - self._before, "resident_with_files_mib": _status("VmHWM") - self._before}

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _status("RssAnon"))


def _status(field: str) -> float:
    """MiB, from /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(f"{field}:"))


def table(found: dict[str, Any]) -> None:
    """Markdown: measured, estimated, and the first against the second, for what is in `found`."""
    from fcot_lite import dimensions, memory
    from fcot_lite.machine import Machine
    from fcot_lite.recipe import StudentBlock

    print("| student | method | activations | row | allocated | estimate | estimate ÷ allocated | resident |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    ratios = []
    for name, cell in found.items():
        model, method, checkpointing, length = CELLS[name]
        form = dimensions.known(MODELS[model])
        sft = {"gradient_checkpointing": checkpointing, "per_device_train_batch_size": BATCH}
        student = StudentBlock(model="", prompt="", method=method, lora={"r": RANK}, sft=sft)
        labelled = cell["num_labelled"] / cell["num_tokens"]
        parts = memory.training(form, student, length, Machine("cpu", (0,)), labelled).parts
        estimate = 1024 * sum(gib for part, gib in parts.items() if part != "libraries")
        ratios.append(estimate / cell["allocated_mib"])
        print(
            f"| {model} | {method} | {'checkpoints' if checkpointing else 'all kept'} | {length} "
            f"| {cell['allocated_mib']:,.0f} | {estimate:,.0f} | {ratios[-1]:.2f} | {cell['resident_mib']:,.0f} |"
        )
    if ratios:
        print(f"\nestimate ÷ allocated: {min(ratios):.2f} … {max(ratios):.2f} in {len(ratios)} of {len(CELLS)} cells")


if __name__ == "__main__":
    main()
