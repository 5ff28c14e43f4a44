"""Files are whole or absent, locks name their holder, damaged files are named."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite import files
from fcot_lite.errors import DataError, ResourceError

HOSTILE = "a\x00b\x85c\u2028d\u2029e\ud800f\r\n\U0001f600"


def test_the_old_content_survives_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, 2)
    assert json.loads(path.read_text()) == 1
    assert os.listdir(tmp_path) == ["value.json"]


def test_nothing_is_renamed_before_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    files.write_atomic(tmp_path / "x", "text")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name


def test_a_hostile_text_is_one_line_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"text": HOSTILE}, {"text": ""}])
    assert path.read_bytes().count(b"\n") == 2
    assert path.read_bytes().isascii()
    assert files.read_jsonl(path) == [{"text": HOSTILE}, {"text": ""}]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.dictionaries(st.text(), v)))
def test_the_hash_does_not_depend_on_the_order_of_keys(value: object) -> None:
    def backwards(v: object) -> object:
        return {k: backwards(w) for k, w in reversed(list(v.items()))} if isinstance(v, dict) else v

    assert files.sha256_json(value) == files.sha256_json(backwards(value))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", r"x\.json: not valid JSON"),
        (b'{"a": ', r"x\.json: not valid JSON"),
        (b"\xff\xfe\x00", r"x\.json: not valid JSON"),
        (b"[" * 100_000, r"x\.json: not valid JSON"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes, where: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=where):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b'{"a": 1}\n\n{"a"\n', b'{"a": 1}\n\n\xff\n', b"1\n\n" + b"[" * 100_000])
def test_a_damaged_row_is_named_by_its_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jsonl:3: not valid JSON"):
        files.read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize("read", [files.read_json, files.read_jsonl])
def test_what_cannot_be_opened_is_named(tmp_path: Path, read: object) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=str(path)):
            read(path)  # type: ignore[operator]


def test_a_lock_refuses_others_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    handle = files.lock(path, "the thing")
    with pytest.raises(ResourceError, match=rf"the thing is in use by process {os.getpid()} on .* since"):
        files.lock(path, "the thing")
    os.close(handle)
    os.close(files.lock(path, "the thing"))


def test_death_frees_a_lock_and_its_next_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    take = f"from pathlib import Path; from fcot_lite.files import lock; lock(Path({str(path)!r}), 'it'); print(1)"
    child = subprocess.Popen(
        [sys.executable, "-c", take + "; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    with open(path, "a") as file:
        file.write("of a longer name " * 9)  # nothing of it may be left in the next holder's line
    with pytest.raises(ResourceError, match=f"in use by process {child.pid} "):
        files.lock(path, "it")
    child.kill()
    child.communicate()
    os.close(files.lock(path, "it"))
    assert path.read_text().startswith(f"process {os.getpid()} on")
    assert path.read_text().count("\n") == 1
    assert "longer name" not in path.read_text()


def test_a_lock_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/fcot")):  # not even root can write into /proc
        with pytest.raises(ResourceError, match=r"make the folder writable|is a file, not a folder"):
            files.lock(folder / "x.lock", "it")


def test_a_folder_is_replaced_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content in ("old", "new"):
        with files.whole_folder(path) as folder:
            assert not path.exists() or (path / "file").read_text() == "old"
            (folder / "file").write_text(content)
    assert (path / "file").read_text() == "new"
    with suppress(KeyboardInterrupt), files.whole_folder(path) as folder:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt
    assert (path / "file").read_text() == "new"
    assert [file.name for file in tmp_path.rglob("*")] == ["weights", "file"]


def test_what_a_killed_process_left_of_its_folder_goes_and_what_a_live_one_makes_stays(tmp_path: Path) -> None:
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    left = [f".weights.{dead}.tmp", f".weights.{dead}.old.tmp"]
    stays = [f".weights.{os.getppid()}.tmp", ".weights.mine.tmp", f".weights2.{dead}.tmp"]
    for name in (*left, *stays):
        (tmp_path / name).mkdir()
    with files.whole_folder(tmp_path / "weights"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"weights", *stays}
