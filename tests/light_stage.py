"""The sample stage with an engine in processes of its own and no model: real signals, a real store, nothing heavy.

`start` forks a run from a server that has loaded the stage's code once, so that a hundred runs cost seconds. The run
starts the stage, the stage the engine's core, the core its worker, as with vLLM on a card.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jinja2  # noqa: F401 - the stage imports these two late, and a hundred runs would each do so
import pynvml  # noqa: F401
from fake_engine import Answer, FakeEngine

from fcot_lite import models, stage, tasks, training_preflight
from fcot_lite.engines import Completion, Request
from fcot_lite.engines.lifeline import LIFELINE, follow_parent
from fcot_lite.errors import EngineError
from fcot_lite.files import write_atomic
from fcot_lite.interrupts import undisturbed
from fcot_lite.progress import PROGRESS_FD
from fcot_lite.recipe import Recipe, build, dump

PER_POLL = 3
SECONDS_PER_POLL = 0.003
QUESTIONS = 12
PROBLEMS = tasks.load("chain_arithmetic", "train", limit=QUESTIONS)
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["light_stage"])


def prepare(folder: Path, **teacher: Any) -> Path:
    """The folder with a recipe for `start`."""
    write_atomic(folder / "light" / "recipe.yaml", dump(recipe(**teacher)))
    return folder


def recipe(**teacher: Any) -> Recipe:
    engine = {"max_model_len": 4000, "max_num_seqs": 4}
    sampling = {"max_tokens": 9}
    return build(
        {
            "name": "light",
            "task": {"name": "chain_arithmetic", "train": QUESTIONS},
            "prompts": {"plain": {}},
            "teacher": {"model": "starter:t", "prompt": "plain", "sampling": sampling, "engine": engine, **teacher},
            "curate": {"max_length": 4000},
            "student": {"model": "starter:s", "prompt": "plain"},
            "evaluate": {"before": ["plain"], "sampling": sampling, "engine": engine},
        },
        "here",
    )


class Tokenizer:
    """ChatML over bytes."""

    chat_template = "ChatML"
    all_special_tokens, all_special_ids = ("<|im_end|>",), (256,)
    added_tokens_decoder: ClassVar[dict[int, Any]] = {256: SimpleNamespace(content="<|im_end|>", special=True)}

    def apply_chat_template(self, turns: Any, add_generation_prompt: bool = False, **how: Any) -> Any:
        text = "".join(f"{turn['role']}\n{turn['content']}<|im_end|>" for turn in turns)
        text += "assistant\n" * add_generation_prompt
        return {"input_ids": list(text.encode())} if how.get("return_dict") else text

    def __call__(self, text: str, **how: Any) -> dict[str, list[int]]:
        return {"input_ids": [256] if text == "<|im_end|>" else list(text.encode())}


class Core:
    """The stage's side of an engine whose core is another process.

    What every poll brings is written to `finished` before the stage learns of it, and who lives to `pids`.
    """

    version = "fake 1.0"

    def __init__(self, folder: Path) -> None:
        self._finished = folder / "finished"
        self._pipe, theirs = multiprocessing.Pipe()
        pid = _fork(lambda: _core(theirs, folder), theirs)
        theirs.close()
        _note(folder, "core", pid)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            with undisturbed():
                self._pipe.send((method, arguments))
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"the engine died: {error!r}") from error

    def submit(self, requests: Sequence[Request]) -> None:
        self._call("submit", requests)

    def poll(self, timeout: float) -> list[Completion]:
        time.sleep(SECONDS_PER_POLL)
        done: list[Completion] = self._call("poll", timeout)
        if done:
            with open(self._finished, "a") as file:
                file.write(json.dumps([completion.key for completion in done]) + "\n")
        return done

    def cancel(self, keys: Sequence[str]) -> None:
        self._call("cancel", keys)

    def num_tokens_generated(self) -> int:
        with contextlib.suppress(EngineError):
            self._num_tokens: int = self._call("num_tokens_generated")
        return getattr(self, "_num_tokens", 0)

    def close(self) -> None:
        self._pipe.close()


def _core(pipe: Connection, folder: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    _note(folder, "worker", _fork(lambda: _worker(theirs), theirs))
    theirs.close()

    def answer(request: Request) -> Answer:
        ours.send((request.seed, bytes(i for i in request.prompt_token_ids if i < 256).decode()))
        made: Answer = ours.recv()  # EOFError where the worker is gone: the core dies of it
        return made

    engine = FakeEngine(answer, per_poll=PER_POLL)
    while True:
        method, arguments = pipe.recv()
        if method == "cancel":  # an interrupt just before submit leaves keys that no engine has seen
            arguments = ([key for key in arguments[0] if key in engine._pending],)
        pipe.send(getattr(engine, method)(*arguments))


def _worker(pipe: Connection) -> None:
    while True:
        seed, prompt = pipe.recv()
        (problem,) = (problem for problem in PROBLEMS if problem.question in prompt)
        answer = problem.target if seed % 3 else "-1"
        pipe.send(Answer(f"Way {seed}. The answer is {answer}.", "length" if seed % 7 == 0 else "stop", 1 + seed % 9))


def _fork(program: Callable[[], None], pipe: Connection | None = None) -> int:
    """A child that ends with its parent. With a pipe it shares nothing else, as if it had been spawned: a lock that
    it inherits would outlive its holder."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            follow_parent()
            if pipe is not None:
                os.closerange(3, pipe.fileno())
                os.closerange(pipe.fileno() + 1, 1000)
            program()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except (EOFError, OSError):  # whoever it worked for is gone
            pass
        finally:
            os._exit(code)
    return pid


def _note(folder: Path, name: str, pid: int) -> None:
    with open(folder / "pids", "a") as file:
        file.write(f"{name} {pid}\n")


def start(folder: Path, before: Callable[[], None] | None = None) -> Any:
    """A run in `folder`, which holds light/recipe.yaml. `before` is called in the stage before anything else."""
    run = server.Process(target=_run, args=(folder, before))
    run.start()
    return run


def _run(folder: Path, before: Callable[[], None] | None) -> None:
    """As a run does: starts the stage, takes down what it says, ends with its code."""
    stage.load_tokenizer = lambda path: Tokenizer()
    models.resolve = lambda name, say: Path(name)
    models.weights_hash = lambda path: "w"
    training_preflight.of_model = lambda path: []  # the student is no file
    stage.Engines.start = lambda engines, *_: _engine(engines, folder)
    reading, writing = os.pipe()
    os.environ |= {LIFELINE: str(os.getpid()), PROGRESS_FD: str(writing)}
    sys.argv = ["stage", "sample", str(folder / "light")]

    def program() -> None:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if before is not None:
            before()
        stage.main()

    pid = _fork(program)
    os.close(writing)
    _note(folder, "stage", pid)
    with open(folder / "said", "ab", buffering=0) as said:
        while chunk := os.read(reading, 65536):
            said.write(chunk)
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _engine(engines: Any, folder: Path) -> Core:
    engines._engine = Core(folder)
    return engines._engine
