"""Coverage-guided fuzz of everything that reads what a model wrote: the four grading modes, the checks, the replays.

    pip install -e '.[fuzz]'
    python tests/fuzz_answers.py -max_total_time=600 FOLDER     # libFuzzer's options; FOLDER keeps its inputs
    python tests/fuzz_answers.py --keep FOLDER                  # those that reach more: data/fuzz_corpus.jsonl

What an input stands for, and what must hold, is in test_fuzz_corpus.py, which replays the kept ones without atheris.
"""

import base64
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

LONGEST_BYTES = 4096
WORDS = (
    *(
        "answer is",
        "The answer is not ",
        "Answer:",
        "#### ",
        "-->",
        "Therefore, the answer is",
        "Wait, ",
        "So ",
        " or ",
    ),
    *(
        "\\boxed{",
        "\\frac{1}{2}",
        "\\text{",
        "\\sqrt{2}",
        "\\pm",
        "\\%",
        "$",
        "=",
        "%",
        "```python\n",
        "Step 1: ",
        "Let",
    ),
    *("1,234.5", "1e9", "10**10**10", "½", "²", "٣", "−", "5 + 3 = 8", "12 dollars", "(B)", "(A) or (B)", "yes", "no"),
    *("heads up", "tails", "flips the coin", "does not flip", "last letter of", "10/22/2026", "yesterday"),
    *("gets the red ball", "swap"),
)


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["fcot_lite"]):
        from test_fuzz_corpus import case, check

    with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="ascii") as dictionary:
        for word in WORDS:
            dictionary.write('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n')
        dictionary.flush()
        options = [f"-dict={dictionary.name}", f"-max_len={LONGEST_BYTES}", "-timeout=5", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], lambda data: check(case(data)))
        atheris.Fuzz()


def keep(folder: Path) -> None:
    """Writes those inputs of `folder` that go from one line of code to another as no shorter one does."""
    from test_fuzz_corpus import CORPUS, case, check

    steps: set[tuple[str, int, int]] = set()  # file, and the lines

    def tracer() -> Callable[[FrameType, str, object], object]:
        before = 0

        def step(frame: FrameType, event: str, arg: object) -> object:
            nonlocal before
            steps.add((frame.f_code.co_filename, before, frame.f_lineno))
            before = frame.f_lineno
            return step

        return step

    def trace(frame: FrameType, event: str, arg: object) -> object:
        return tracer() if "fcot_lite" in frame.f_code.co_filename else None

    kept = []
    for data in sorted((path.read_bytes() for path in folder.iterdir()), key=lambda data: (len(data), data)):
        num_before = len(steps)
        sys.settrace(trace)
        check(case(data))
        sys.settrace(None)
        if len(steps) > num_before:
            kept.append(data)
    CORPUS.write_text("".join(json.dumps(base64.b64encode(data).decode()) + "\n" for data in kept), encoding="ascii")
    print(f"{len(kept)} inputs, {CORPUS.stat().st_size} bytes, {len(steps)} steps")


if __name__ == "__main__":
    keep(Path(sys.argv[2])) if sys.argv[1:2] == ["--keep"] else main()
