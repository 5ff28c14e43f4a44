"""The real math-verify in its real process: what it says, and that nothing a model writes gets out of there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from fcot_lite import math_check
from fcot_lite.errors import ResourceError
from fcot_lite.math_check import LONGEST_CHARACTERS, MathVerifier

pytestmark = pytest.mark.real

# Its first operation takes minutes and holds the interpreter, so that no alarm inside the process would end it.
ENDLESS = "9^{9^{9^9}}"


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier() as opened:
        yield opened


def children():
    return [child for child in psutil.Process().children() if "fcot_lite.math_worker" in child.cmdline()]


def gone(pid, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("target", "answer", "equal"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}", True),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\{1,2\}", "1,2", True),
        ("(3,4)", "[3,4]", False),
        ("5", "x=5", True),
        ("5", "$5$", True),
        ("5", "6", False),
        ("5", "5 or 6", False),  # no number is picked out of what is not one
        ("5", "about 5 apples", False),
        (r"\frac{1}{2}", "banana", False),
        ("5", "", None),
        ("5", "10**10**10", None),
        ("5", "1e999999999", False),
        ("5", "9" * 1900, False),
        ("5", "__import__('os').abort()", None),
        ("5", "\ud800", None),
        ("5", "5\0", None),
        ("5", "\u2028", None),
        ("5", "6\n[true]\n", None),  # a line of its own in the worker's input would answer the next question
    ],
)
def test_verdicts(verifier, target, answer, equal):
    assert verifier(target, answer) is equal


@pytest.mark.parametrize(
    ("target", "answer", "why"),
    [
        ("", "5", "the target is no formula"),
        ("\0", "\0", "the target is no formula"),
        ("5", "5" * (LONGEST_CHARACTERS + 1), f"longer than {LONGEST_CHARACTERS} characters"),
        ("5", r"\boxed{" * 10_000, f"longer than {LONGEST_CHARACTERS} characters"),
        # A RecursionError that sympy swallows, to say that the pair is unequal.
        ("5", r"\frac{1}{" * 100 + "2" + "}" * 100, "math-verify gave up"),
    ],
)
def test_what_cannot_be_judged_is_neither_right_nor_wrong(target, answer, why):
    with MathVerifier() as verifier:
        assert verifier(target, answer) is None
        assert verifier.reasons == {why: 1}
        assert verifier(r"\frac{1}{2}", "0.5") is True, "and the next pair is judged"
        assert (verifier.num_asked, verifier.num_not_judged) == (2, 1)


SWALLOWS = """
class LatexExtractionConfig: pass

def parse(text, *arguments, **options):
    return [text]

def verify(gold, given, **options):
    try:
        bytearray(2**31)
    except Exception:
        return False
    raise SystemExit("there is no limit on memory")
"""


def test_the_memory_is_limited_and_want_of_it_is_seen_where_it_is_swallowed(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text(SWALLOWS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    before = children()
    with MathVerifier() as verifier:
        assert verifier("5", "6") is None
        assert verifier.reasons == {"out of memory": 1}
        assert children() == before, "what took the memory is gone"


def test_each_pair_is_asked_once_and_what_never_ends_is_waited_for_once(monkeypatch):
    asked = []
    answer = math_check._answer

    def counted(worker, question, seconds):
        asked.append(question)
        return answer(worker, question, seconds)

    monkeypatch.setattr(math_check, "_answer", counted)
    monkeypatch.setattr(math_check, "WALL_SECONDS", 0.5)
    monkeypatch.setattr(math_check, "PAIRS_KEPT", 2)
    with MathVerifier() as verifier:
        assert [verifier("5", ENDLESS) for _ in range(3)] == [None] * 3
        assert verifier.why_not == "out of time"
        assert verifier.reasons == {"out of time": 3}
        monkeypatch.undo()
        monkeypatch.setattr(math_check, "_answer", counted)
        assert verifier("5", "5") is True
        assert verifier.why_not is None
        assert len([question for question in asked if question]) == 2
        monkeypatch.setattr(math_check, "PAIRS_KEPT", 2)
        verifier("5", "6")  # the third pair: the first is forgotten
        assert list(verifier._kept) == [("5", "5"), ("5", "6")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        "10^{10^{10}}",
        "(10^9)!",
        r"\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}",
        "(" * 900 + "5" + ")" * 900,
        r"\prod_{n=1}^{10^8} n",
    ],
)
def test_what_never_ends_is_ended_by_the_kernel(answer):
    with MathVerifier() as verifier:
        start = time.monotonic()
        assert verifier("5", answer) is None
        assert verifier.num_not_judged == 1
        assert time.monotonic() - start < math_check.WALL_SECONDS + 5


def test_the_wall_clock_kills_a_worker_that_uses_no_cpu(verifier, monkeypatch):
    assert verifier("5", "5") is True
    (worker,) = children()
    worker.suspend()
    monkeypatch.setattr(math_check, "WALL_SECONDS", 0.5)
    before = verifier.reasons["out of time"]
    assert verifier("5", "5.0") is None
    assert verifier.reasons["out of time"] == before + 1
    assert gone(worker.pid)
    monkeypatch.undo()
    assert verifier("5", "5.00") is True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_is_killed_costs_no_verdict(verifier, number):
    verifier("5", f"{number}/7")
    (worker,) = children()
    worker.suspend()  # so that it has the question and not yet an answer
    timer = threading.Timer(0.3, lambda: (worker.send_signal(number), worker.resume()))
    before = verifier.num_not_judged
    timer.start()
    assert verifier(f"{number}x+{number}", f"{number}(x+1)") is True
    timer.join()
    assert gone(worker.pid)
    assert verifier.num_not_judged == before


def test_a_pair_that_crashes_each_worker_is_asked_twice_and_then_given_up(monkeypatch):
    started = []
    start = math_check._start

    def start_and_kill():
        started.append(start())
        started[-1].kill()
        return started[-1]

    monkeypatch.setattr(math_check, "_start", start_and_kill)
    with MathVerifier() as verifier:
        assert verifier("5", "5") is None
        assert verifier.reasons == {"crashed twice": 1}
    assert len(started) == 2


def test_ctrl_c_leaves_the_worker_alone_and_an_interrupted_question_leaves_no_answer_behind(verifier, monkeypatch):
    verifier("5", "5/1")
    (worker,) = children()
    worker.send_signal(signal.SIGINT)
    assert verifier("5", "10/2") is True
    assert [child.pid for child in children()] == [worker.pid]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(math_check.select, "select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            verifier("5", "15/3")  # asked, and its answer not read
    assert verifier("5", "6/5") is False
    assert verifier("5", "15/3") is True


def test_nothing_starts_before_a_question_and_nothing_is_left_after_the_context():
    before = {child.pid for child in children()}
    with MathVerifier() as verifier:
        assert {child.pid for child in children()} == before
        verifier("5", "5")
        (pid,) = {child.pid for child in children()} - before
    assert not psutil.pid_exists(pid)


PARENT = f"""
import sys
from fcot_lite.math_check import MathVerifier
verifier = MathVerifier()
assert verifier("1/2", "0.5")
loaded = [name for name in ("sympy", "math_verify", "antlr4", "torch", "numpy") if name in sys.modules]
print(verifier._worker.pid, *loaded, flush=True)
verifier("5", r"{ENDLESS}")
"""


def test_the_worker_dies_with_its_parent_and_keeps_sympy_out_of_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid, *loaded = parent.stdout.readline().split()
    assert loaded == []
    time.sleep(0.5)  # in the middle of the endless question
    parent.kill()
    parent.communicate()
    assert gone(int(pid), seconds=2)


def test_a_worker_that_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no antlr here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    with MathVerifier() as verifier, pytest.raises(ResourceError, match=r"ImportError: no antlr here.*pip install"):
        verifier("5", "5")


def test_the_worker_is_imported_by_nothing():
    package = Path(math_check.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "math_worker.py":
            text = path.read_text(encoding="utf-8")
            assert "import math_worker" not in text
            assert "import math_verify" not in text
