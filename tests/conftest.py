"""Unit tests see no home, no cache and no network; a test that needs the real ones is marked e2e."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def isolated(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    if request.node.get_closest_marker("e2e"):
        yield
        return
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the same machine everywhere: see Machine
    for name in ("FCOT_DATA", "FCOT_LIFELINE", "FCOT_PROGRESS_FD", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))

    connect = socket.socket.connect

    def refuse_the_network(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise OSError(f"a unit test wanted the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse_the_network)
    cwd = Path.cwd()
    yield
    assert Path.cwd() == cwd


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE of 300 tokens with a ChatML template. As with Qwen's base models, eos is not the token that
    ends a turn, and the control tokens of the chat have no role by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(["The answer is 12. Start with 3. Add 4. What is the result?"] * 9, trainer)
    bpe.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", chat_template=CHATML)


@pytest.fixture(scope="session")
def model_dir(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory, for what reads its tokenizer, its config.json and the headers of its weights, of which it
    holds the embeddings alone."""
    import numpy
    from safetensors.numpy import save_file
    from transformers import LlamaConfig

    path = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(path)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=300, max_position_embeddings=9000, architectures=["LlamaForCausalLM"], **sizes)
    config.save_pretrained(path)
    save_file({"model.embed_tokens.weight": numpy.zeros((300, 8), numpy.float16)}, path / "model.safetensors")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the e2e tests: a folder with a finished run, `e2e`, that was interrupted once while sampling."""
    from fcot_lite.models import resolve

    resolve("starter:smollm2-135m-instruct", say=print)
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "fcot_lite", "run", str(REPOSITORY / "tests" / "e2e.yaml"), "--runs", str(runs)]
    log = runs / "first.log"
    with open(log, "w") as stderr:
        first = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not re.search(r"sample: \d+/48 samples", log.read_text()) and time.monotonic() < deadline:
            assert first.poll() is None, log.read_text()
            time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130, log.read_text()
    assert not (runs / "e2e" / "result.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (runs / "stdout.txt").write_text(done.stdout)
    return runs
