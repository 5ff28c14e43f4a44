"""The sample store with a million samples: what a resume waits for, and what it holds in memory.

    python benchmarks/store.py            # writes benchmarks/results/store.json

62,500 questions with 16 samples each, rationales of 640 characters, one verdict a sample; a quarter of that beside it,
for the growth. Every step runs in a process of its own; the file is on the disk that TMPDIR names, and comes from the
page cache as far as the machine has room for it there. Takes ten minutes and 6 GB of disk.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

QUESTIONS, N = 62_500, 16
DESCRIPTION = {"weights": "w", "sampling": {"temperature": 0.7}}
TURNS = 5
NEW = 50  # samples that a resumed run adds, one put each


def fill(path: Path, questions: int) -> None:
    from fcot_lite import answers
    from fcot_lite.records import Sample, Verdict
    from fcot_lite.store import SampleKey, SampleStore, VerdictKey

    verdict = Verdict(True, "7", "correct")
    with SampleStore(path) as store:
        campaign = store.add_campaign(DESCRIPTION)
        for start in range(0, questions, 500):
            keys = [SampleKey(f"train/{q:06}", f"{q:016x}", i) for q in range(start, start + 500) for i in range(N)]
            samples = [
                Sample(k.problem_id, k.sample_index, f"{k.problem_id} {k.sample_index} ".ljust(640, "x"), None, "stop",
                       80, 160, k.sample_index)
                for k in keys
            ]  # fmt: skip
            prompts = [key.prompt_hash for key in keys]
            store.put(campaign, list(zip(prompts, samples, strict=True)), "benchmark")
            rules = (answers.GRADER_VERSION, "strict", "number", "7")
            store.put_verdicts(campaign, {VerdictKey(key, *rules): verdict for key in keys})


def open_and_ask(path: Path) -> int:
    """What `fcot sample` does before it asks for its first new sample."""
    from fcot_lite.store import SampleStore

    with SampleStore(path) as store:
        there = store.indices(store.add_campaign(DESCRIPTION))
        return sum(len(there[key]) < N for key in there)


def add(path: Path) -> int:
    """NEW samples, each committed by itself, to the file as it is."""
    from fcot_lite.records import Sample
    from fcot_lite.store import SampleStore

    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": str(time.time_ns())})
        for i in range(NEW):
            store.put(campaign, [("h", Sample("p", i, "x" * 640, None, "stop", 80, 160, i))], "benchmark")
    return NEW


def read_all(path: Path) -> int:
    """Every sample and its verdict, a question at a time."""
    from fcot_lite.store import SampleStore

    count = 0
    with SampleStore(path) as store:
        campaign = store.add_campaign(DESCRIPTION)
        for problem_id, prompt in store.indices(campaign):
            count += len(store.samples(campaign, problem_id, prompt))
            count += len(store.verdicts(campaign, problem_id, prompt, "strict"))
    return count


def listing(path: Path) -> int:
    from fcot_lite import sampling_runs

    return len(sampling_runs.listing(path))


def export(path: Path) -> int:
    from fcot_lite import samples

    return samples.export(path, path.with_suffix(".jsonl")).total()


def restore(path: Path) -> int:
    from fcot_lite import samples

    return samples.restore(path.with_suffix(".jsonl"), path.with_name(f"restored {path.name}")).total()


def check(path: Path) -> int:
    """Opening after a process that died: every page is read."""
    import sqlite3

    from fcot_lite.store import SampleStore

    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO opened VALUES ('the benchmark')")
    database.close()
    SampleStore(path).close()
    return 1


def _child(step: Callable[[Path], int], path: Path, said: "multiprocessing.SimpleQueue[tuple[float, float]]") -> None:
    from fcot_lite import samples, sampling_runs  # noqa: F401 - imports are no part of what is measured

    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _peak_mib()
    start = time.perf_counter()
    step(path)
    seconds = time.perf_counter() - start
    said.put((seconds, _peak_mib() - before))


def _peak_mib() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measured(step: Callable[[Path], int], path: Path) -> tuple[float, float]:
    """(seconds, MiB by which the peak of resident memory grew)."""
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    child = context.Process(target=_child, args=(step, path, said))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{step.__name__} failed")
    return said.get()


STEPS = {
    "open and ask what is missing": (open_and_ask, TURNS),
    f"add {NEW} samples, one commit each": (add, TURNS),
    "fcot samples": (listing, TURNS),
    "read every sample and verdict by question": (read_all, 1),
    "fcot samples export, .jsonl": (export, 1),
    "fcot samples import, .jsonl": (restore, 1),
    "open after a kill (quick_check)": (check, 1),
}


def main() -> None:
    sizes = [QUESTIONS // 4, QUESTIONS]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in STEPS}
    gigabytes = []
    for questions in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "samples.sqlite"
            fill(path, questions)
            gigabytes.append(path.stat().st_size / 1e9)
            for name, (step, turns) in STEPS.items():
                took = [measured(step, path) for _ in range(turns)]
                row = {
                    "seconds": sorted(seconds for seconds, _ in took)[turns // 2],
                    "seconds_max": max(seconds for seconds, _ in took),
                    "memory_mib": max(memory for _, memory in took),
                }
                rows[name].append(row)
                print(f"{questions * N:>9,} samples: {name}: {row}", flush=True)
    result = {"samples": [questions * N for questions in sizes], "gigabytes": gigabytes, "steps": rows}
    path = Path(__file__).parent / "results" / "store.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n| | {' | '.join(f'{count:,} samples' for count in result['samples'])} | time, ratio | memory, MiB |")
    print("|---|--:|--:|--:|--:|")
    for name, (small, large) in rows.items():
        print(
            f"| {name} | {small['seconds']:.2f} s | {large['seconds']:.2f} s | "
            f"{large['seconds'] / small['seconds']:.1f} | {small['memory_mib']:.0f} … {large['memory_mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
