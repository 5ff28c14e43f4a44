"""math-verify, asked in a process of its own that can be killed.

What a model writes can keep sympy busy for ever or fill the memory (`5^{5^{5^{5^5}}}`), and math-verify's own time
limits, alarms within the process, do not end a single long operation (Math-Verify issues #63, #65). So each question
goes to a worker with limits on time and memory; a worker that exceeds one is killed, and a new one takes the next
question. Neither sympy nor math-verify is ever imported here.
"""

import contextlib
import importlib.metadata
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from types import TracebackType

from fcot_lite.errors import ResourceError

LIFELINE = "FCOT_LIFELINE"  # see engines/lifeline.py, which the worker calls

# An ordinary pair takes 1 to 600 ms, watched (see math_worker). The worker's own CPU time is what counts, so that a
# busy machine does not change verdicts; the wall clock is the backstop. math-verify's own limit is 5 s as well.
CPU_SECONDS = 5
WALL_SECONDS = 15.0
PAIRS_KEPT = 4096  # so that further modes, and samples that agree, ask nothing: 16 MB at most
SECONDS_TO_START = 120.0  # 1 s with warm files; a cold network disk takes far longer
MEMORY_BYTES = 2**30  # of address space; the worker needs 0.06 GiB at its start, 0.1 GiB for ordinary pairs
LONGEST_CHARACTERS = 2000  # of a target or an answer: no formula that a person would call an answer is as long
READY = "ready"
OUT_OF_MEMORY, OUT_OF_TIME, NO_FORMULA = "out of memory", "out of time", "the target is no formula"


class MathVerifier:
    """Tells whether two formulas are equal: `verifier(target, answer)`. Use as a context manager, from one thread.

    The worker starts with the first question and ends with the context, with this process, or with the thread that
    asked first. The verdicts on the last PAIRS_KEPT pairs are kept, those that could not be judged as well: what never
    ends is waited for once. `num_asked` counts questions, `reasons` those that could not be judged, by why, and
    `why_not` says why the last one was not; None where it was.
    """

    def __init__(self) -> None:
        self.num_asked = 0
        self.reasons: Counter[str] = Counter()
        self.why_not: str | None = None
        self._kept: dict[tuple[str, str], bool | str] = {}
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def num_not_judged(self) -> int:
        return self.reasons.total()

    def __call__(self, target: str, answer: str) -> bool | None:
        """Whether `answer` equals the gold answer `target`, both LaTeX; None where that could not be judged, which
        says nothing about the answer.

        Raises ResourceError where math-verify cannot be started.
        """
        self.num_asked += 1
        judged: bool | str | None = self._kept.get((target, answer))
        if max(len(target), len(answer)) > LONGEST_CHARACTERS:
            judged = f"longer than {LONGEST_CHARACTERS} characters"
        if judged is None:
            judged = self._kept[target, answer] = self._ask(target, answer)
            if len(self._kept) > PAIRS_KEPT:
                del self._kept[next(iter(self._kept))]
        if isinstance(judged, bool):
            self.why_not = None
            return judged
        self.why_not = judged
        self.reasons[judged] += 1
        return None

    def close(self) -> None:
        """Ends the worker, if there is one; the next question starts another."""
        if self._worker is not None:
            self._worker.kill()
            with contextlib.suppress(BrokenPipeError), self._worker:  # closes the pipes and waits
                pass
            self._worker = None

    def _ask(self, target: str, answer: str) -> bool | str:
        for _ in range(2):  # a worker may be killed for no fault of the pair: by the kernel, or by a person
            self._worker = self._worker or _start()
            try:
                judged = _answer(self._worker, json.dumps([target, answer]), WALL_SECONDS)
            except BaseException:  # Ctrl-C: the answer under way must not become that of the next question
                self.close()
                raise
            if judged in (OUT_OF_MEMORY, OUT_OF_TIME, None):
                self.close()
            if judged is not None:
                return judged
        return "crashed twice"


def _start() -> subprocess.Popen[bytes]:
    """A worker that is ready for questions."""
    with tempfile.TemporaryFile() as errors:
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "fcot_lite.math_worker"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {LIFELINE: str(os.getpid())},
        )
        ready = _answer(worker, None, SECONDS_TO_START)
        if ready != READY:
            worker.kill()
            worker.communicate()
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ResourceError(
                f"math-verify cannot be started: {words or ready or f'it ended with {worker.returncode}'}; "
                "install it with: pip install 'math-verify[antlr4_13_2]'"
            )
    return worker


def _answer(worker: subprocess.Popen[bytes], question: str | None, seconds: float) -> bool | str | None:
    """The next line of a worker that was asked `question`; None where it ended without a reason of ours."""
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("the worker was started without pipes")
    try:
        if question is not None:
            worker.stdin.write(question.encode() + b"\n")  # at most 48 kB: a pipe holds 64, so this never waits
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not select.select([worker.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return OUT_OF_TIME
            part = os.read(worker.stdout.fileno(), 4096)
            if not part:
                return OUT_OF_TIME if worker.wait() == -signal.SIGXCPU else None
            line += part
    except BrokenPipeError:
        return None
    answer: bool | str = json.loads(line)
    return answer


def version() -> str | None:
    """Of the installed math-verify: another one may judge otherwise. None where it is missing."""
    try:
        return importlib.metadata.version("math-verify")
    except importlib.metadata.PackageNotFoundError:
        return None
