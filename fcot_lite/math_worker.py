"""The process that `math_check` puts its questions to. It alone imports math-verify; nothing imports it.

A line of JSON in, [target, answer], a line out: true, false, or the reason why neither.
"""

import json
import logging
import os
import resource
import signal
import sys
from types import FrameType
from typing import Any

from fcot_lite.engines.lifeline import follow_parent
from fcot_lite.math_check import CPU_SECONDS, MEMORY_BYTES, NO_FORMULA, OUT_OF_MEMORY, READY

GIVEN_UP = "math-verify gave up"


class _Watch:
    """Notes the errors that math-verify and sympy swallow in dozens of places, and then call the pair unequal: what
    ran out of memory or of stack has not been compared. An ordinary pair takes 2.8 times as long under it (30 ms in
    place of 11); sys.monitoring, which would cost less, came with Python 3.12."""

    def __init__(self) -> None:
        self.seen: type[BaseException] | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> "_Watch":
        frame.f_trace_lines = False
        if event == "exception" and issubclass(arg[0], (MemoryError, RecursionError)):
            self.seen = arg[0]
        return self


def main() -> None:
    """Answers questions until its input ends."""
    follow_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets the pair finish
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Only the answers go to the pipe, whatever the parsers print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)  # it warns that its own time limit is off: ours holds
    import math_verify  # noqa: F401 (now, so that the first question does not pay for it)

    print(json.dumps(READY), file=answers)
    for line in sys.stdin.buffer:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(spent.ru_utime + spent.ru_stime) + 1 + CPU_SECONDS
        # For a parent that is stopped, or late: the kernel ends what computes on.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        print(json.dumps(_judged(*json.loads(line))), file=answers)


def _judged(target: str, answer: str) -> bool | str:
    watch = _Watch()
    sys.settrace(watch)
    try:
        verdict = _equal(target, answer)
    except (MemoryError, RecursionError) as error:
        watch.seen = type(error)
    except Exception:  # noqa: BLE001 the parsers raise anything, down to AttributeError
        return GIVEN_UP
    finally:
        was_watched = sys.gettrace() is watch  # Python drops a trace function that fails: for want of stack or memory
        sys.settrace(None)
    if watch.seen is MemoryError:
        return OUT_OF_MEMORY
    return verdict if was_watched and watch.seen is None else GIVEN_UP


def _equal(target: str, answer: str) -> bool | str:
    from math_verify import LatexExtractionConfig, parse, verify

    # Formulas only, each as a whole: with its default, ExprExtractionConfig, math-verify would also look for a number
    # somewhere inside what it cannot read. Its own time limits are alarms within the process, which do not stop a
    # single long operation (Math-Verify issue #65).
    gold, given = (
        parse(
            f"${text.strip().strip('$')}$",
            [LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
            raise_on_error=True,
        )
        for text in (target, answer)
    )
    if not gold:
        return NO_FORMULA
    if not given:
        return "the answer is no formula"
    return bool(verify(gold, given, timeout_seconds=None, raise_on_error=True))


if __name__ == "__main__":
    main()
