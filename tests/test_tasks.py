"""Tasks: nothing leaks between splits, everything repeats exactly, every fault names its place.

Tests of the real data sets run where FCOT_DATA names the folder that holds them; the loaders are tested everywhere on
small files of the same layout.
"""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.answers import grade
from fcot_lite.errors import DataError, RecipeError, ResourceError
from fcot_lite.records import Problem
from fcot_lite.tasks import generated, sources
from fcot_lite.tasks.splits import hold_out, normalised, permutation, without

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
DATA_SETS = ["gsm8k", "multiarith", "svamp"]


def texts(problems: list[Problem]) -> set[str]:
    return {normalised(problem.question) for problem in problems}


def operations(question: str) -> str:
    """What a chain question asks for, read from its words: start number and steps, whatever the wording."""
    words = re.sub(r"[.,?]", " ", question.lower()).replace("multiply by", "*").replace("divide by", "/").split()
    return "".join(w for w in words if w.isdigit() or w in {"add", "subtract", "*", "/"})


# --- any task


def test_an_unknown_task_names_its_neighbour() -> None:
    with pytest.raises(RecipeError, match="did you mean 'gsm8k'"):
        tasks.load("gsm8", "train")
    with pytest.raises(RecipeError, match="did you mean 'chain_arithmetic'"):
        tasks.solved_examples("Chain-Arithmetics")
    with pytest.raises(RecipeError, match="chain_arithmetic, gsm8k, multiarith, svamp, or rg:"):
        tasks.load("svhn!", "train")


@pytest.mark.parametrize("split", ["dev", "examples", "", "Train"])
def test_an_unknown_split_is_refused(split: Any) -> None:
    with pytest.raises(RecipeError, match="train, validation, test"):
        tasks.load("chain_arithmetic", split)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10"])
def test_a_limit_is_a_whole_number_from_one(limit: Any) -> None:
    with pytest.raises(RecipeError, match="limit"):
        tasks.load("chain_arithmetic", "train", limit=limit)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_solved_examples_end_in_their_answer(name: str) -> None:
    examples = tasks.solved_examples(name)
    assert len(set(examples)) == 4
    for question, solution in examples:
        target = solution.rsplit(" ", 1)[1].removesuffix(".")
        assert grade(solution, Problem("p", question, target)).correct
        for left, stated in re.findall(r"(\d+ [-+*/] \d+(?: [-+*/] \d+)*) = (\d+)", solution):
            assert eval(left) == int(stated)
    assert tasks.solved_examples(name, count=2) == examples[:2]
    assert tasks.solved_examples(name, count=0) == []
    with pytest.raises(RecipeError):
        tasks.solved_examples(name, count=-1)


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_have_no_options_and_four_examples(name: str) -> None:
    with pytest.raises(RecipeError, match="digits"):
        tasks.load(name, "test", options={"digits": [1, 2]})
    with pytest.raises(RecipeError, match="5 solved examples"):
        tasks.solved_examples(name, count=5)


# --- chain_arithmetic


@pytest.fixture(scope="module")
def chains() -> dict[str, list[Problem]]:
    return {split: tasks.load("chain_arithmetic", split, limit=5000) for split in tasks.SPLITS}


def test_no_chain_stands_in_two_splits_or_twice_in_one(chains: dict[str, list[Problem]]) -> None:
    examples = [question for question, _ in tasks.solved_examples("chain_arithmetic", count=2000)]
    asked = {split: {operations(p.question) for p in problems} for split, problems in chains.items()}
    asked["examples"] = {operations(question) for question in examples}
    assert [len(a) for a in asked.values()] == [5000, 5000, 5000, 2000]
    assert sum(len(a) for a in asked.values()) == len(set().union(*asked.values()))


def test_other_knobs_cannot_leak_the_test_split_either(chains: dict[str, list[Problem]]) -> None:
    test = {operations(p.question) for p in chains["test"]}
    others: list[dict[str, Any]] = [{"terms": [2, 3]}, {"operators": "-+"}, {"digits": [1, 3], "operators": "+-*/"}]
    for options in others:
        train = {operations(p.question) for p in tasks.load("chain_arithmetic", "train", options=options, limit=3000)}
        assert not train & test


def test_golden_solutions_are_graded_correct_and_every_step_is_true(chains: dict[str, list[Problem]]) -> None:
    for problem in chains["test"]:
        solution = problem.metadata["solution"]
        assert grade(solution, problem).correct
        value = None
        for left, operator, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", solution):
            assert value in (None, left)
            assert eval(f"{left} {operator} {right}") == int(result)
            assert 0 <= int(result) < 1000
            value = result
        assert value == problem.target


def test_a_chain_asks_for_what_its_solution_works_out(chains: dict[str, list[Problem]]) -> None:
    words = {"+": "add", "-": "subtract", "*": "*", "/": "/"}
    for problem in chains["validation"]:
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) =", problem.metadata["solution"])
        assert operations(problem.question) == steps[0][0] + "".join(words[op] + n for _, op, n in steps)


def test_wordings_vary(chains: dict[str, list[Problem]]) -> None:
    first_words = Counter(problem.question.split()[0] for problem in chains["train"])
    assert len(first_words) == 4
    assert min(first_words.values()) > 1000


def test_ids_are_unique_and_say_where_they_come_from(chains: dict[str, list[Problem]]) -> None:
    assert chains["train"][17].id == "chain_arithmetic/train/17"
    assert len({problem.id for problems in chains.values() for problem in problems}) == 15_000


def test_a_smaller_limit_is_a_prefix(chains: dict[str, list[Problem]]) -> None:
    for split, problems in chains.items():
        for limit in (1, 50, 200):
            assert tasks.load("chain_arithmetic", split, limit=limit) == problems[:limit]  # type: ignore[arg-type]
    assert [len(tasks.load("chain_arithmetic", split)) for split in tasks.SPLITS] == [1000, 100, 500]


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(2, 8), st.integers(2, 8)).map(sorted),
    st.tuples(st.integers(1, 3), st.integers(1, 3)).map(sorted),
    st.sets(st.sampled_from("+-*/"), min_size=1).map("".join),
)
def test_knobs_are_kept(terms: list[int], digits: list[int], operators: str) -> None:
    options = {"terms": terms, "digits": digits, "operators": operators}
    try:
        problems = tasks.load("chain_arithmetic", "train", options=options, limit=20)
    except DataError:
        reject()  # such as 8 three-digit numbers multiplied
    for problem in problems:
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) =", problem.metadata["solution"])
        assert terms[0] <= len(steps) + 1 <= terms[1]
        assert {operator for _, operator, _ in steps} <= set(operators)
        assert all(digits[0] <= len(n) <= digits[1] for n in [steps[0][0], *[right for _, _, right in steps]])


def test_the_order_of_operators_does_not_matter() -> None:
    plus_minus, minus_plus = (
        tasks.load("chain_arithmetic", "test", options={"operators": o}, limit=20) for o in ("+-", "-+")
    )
    assert plus_minus == minus_plus


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digit": [1, 2]}, "did you mean 'digits'"),
        ({"qqq": 1}, "it has terms, digits, operators"),
        ({"terms": 3}, "terms is 3"),
        ({"terms": [1, 3]}, "between 2 and 32"),
        ({"terms": [4, 2]}, "terms is"),
        ({"terms": [2, 10**9]}, "terms is"),
        ({"terms": ["2", "3"]}, "terms is"),
        ({"terms": [True, 3]}, "terms is"),
        ({"digits": [0, 1]}, "digits is"),
        ({"digits": [1, 4]}, "between 1 and 3"),
        ({"operators": ""}, "operators is"),
        ({"operators": "+%"}, "operators is"),
        ({"operators": ["+"]}, "operators is"),
        ({1: 2}, "unknown option 1"),
    ],
)
def test_wrong_knobs_are_named(options: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        tasks.load("chain_arithmetic", "train", options=options, limit=1)


def test_a_space_that_is_too_small_ends_in_an_error_that_names_the_knobs() -> None:
    tiny = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}  # 9 x 9 additions, some 57 of them in train
    few = tasks.load("chain_arithmetic", "train", options=tiny, limit=40)
    assert len({operations(problem.question) for problem in few}) == 40
    with pytest.raises(DataError, match=r"no more than \d+ different train problems .*terms \[2, 2\].*digits \[1, 1\]"):
        tasks.load("chain_arithmetic", "train", options=tiny)
    with pytest.raises(DataError, match="no more than 0"):  # 100 * 100 is over 999 already
        tasks.load("chain_arithmetic", "train", options={"digits": [3, 3], "operators": "*"})


def test_every_bucket_of_the_tiny_space_is_found_completely() -> None:
    tiny = {"terms": [2, 2], "digits": [1, 1], "operators": "+"}
    contents = [generated.Chain(a, (("+", b),)) for a in range(1, 10) for b in range(1, 10)]
    for split, size in Counter(chain.split for chain in contents).items():
        if split != "examples":
            assert len(tasks.load("chain_arithmetic", split, options=tiny, limit=size)) == size  # type: ignore[arg-type]


def test_every_process_makes_the_same_problems() -> None:
    code = (
        "import hashlib; from fcot_lite import tasks\n"
        "rows = [tasks.load('chain_arithmetic', s, limit=300) for s in tasks.SPLITS]\n"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    # Pinned: a problem that changes its text is another problem, and every sample bought for it is lost.
    assert digests == {"16600d5a67584f37c422ebbd8aef3e25a619f8201155db9c9956f2ab011db49a\n"}


# --- splits


@given(st.lists(st.sampled_from([f"Question {i}?" for i in range(60)]), min_size=2, max_size=300))
def test_hold_out_partitions_and_keeps_duplicates_together(questions: list[str]) -> None:
    problems = [Problem(f"t/train/{i}", q if i % 2 else f" {q.upper()}\n", "1") for i, q in enumerate(questions)]
    train, validation = hold_out(problems, "key")
    assert sorted(p.id for p in train + validation) == sorted(p.id for p in problems)
    assert not texts(train) & texts(validation)
    assert hold_out(problems, "key") == (train, validation)


@pytest.mark.parametrize(("n", "expected"), [(7473, 500), (1000, 100), (415, 42), (100, 30), (40, 20), (2, 1), (1, 0)])
def test_validation_is_a_tenth_within_bounds(n: int, expected: int) -> None:
    problems = [Problem(f"t/{i}", f"question {i}", "1") for i in range(n)]
    _, validation = hold_out(problems, "key")
    assert len(validation) == expected
    if n > 2:
        assert texts(validation) != texts(problems[:expected])
        assert texts(validation) != texts(hold_out(problems, "another key")[1])


def test_without_drops_questions_that_differ_in_case_and_space_only() -> None:
    train = [Problem("a", "How  many\u00a0cats? ", "1"), Problem("b", "How many dogs?", "1")]
    assert [p.id for p in without(train, [Problem("c", "how many CATS?", "2")])] == ["b"]


def test_permutations_of_neighbouring_keys_have_nothing_in_common() -> None:
    a, b = permutation("task/0", 500), permutation("task/1", 500)
    assert sorted(a) == sorted(b) == list(range(500))
    assert sum(x == y for x, y in zip(a, b, strict=True)) < 10
    assert sum(x == y for x, y in zip(a[1:], b, strict=False)) < 10


# --- data sets, on small files in the layout of the real ones


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    """Makes `content` the pinned file `name` in FCOT_DATA."""
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    source = sources.SOURCES[name]
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(sources.SOURCES, name, sources.Source(source.repository, source.commit, source.path, digest))
    monkeypatch.setenv("FCOT_DATA", str(folder / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache or reaches the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "HOST", "http://127.0.0.1:9")  # the discard port: refused at once
    return tmp_path / "cache" / "fcot-lite" / "data"


def gsm8k_row(i: int, answer: str) -> bytes:
    row = {
        "question": f"Row {i}:\u2028 how many? ",
        "answer": f"There are 2+3=<<2+3=5>>5.\nSo $<<5*1=5>>5.\n#### {answer}",
    }
    return json.dumps(row, ensure_ascii=False).encode()


@pytest.fixture
def small_gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [gsm8k_row(i, "1,000") for i in range(100)] + [gsm8k_row(200, "7")]
    put(tmp_path, monkeypatch, "grade-school-math/train.jsonl", b"\n".join(train) + b"\n")
    put(tmp_path, monkeypatch, "grade-school-math/test.jsonl", b"\n".join(gsm8k_row(i, "-3") for i in range(200, 205)))


@pytest.mark.usefixtures("small_gsm8k")
def test_gsm8k_rows_become_problems() -> None:
    test = {problem.id: problem for problem in tasks.load("gsm8k", "test")}
    assert sorted(test) == [f"gsm8k/test/{i}" for i in range(5)]
    problem = test["gsm8k/test/3"]
    assert problem.question == "Row 203:\u2028 how many?"
    assert problem.target == "-3"
    assert problem.metadata["solution"] == "There are 2+3=5.\nSo $5.\nThe answer is -3."
    assert grade(problem.metadata["solution"], problem).correct


@pytest.mark.usefixtures("small_gsm8k")
def test_gsm8k_train_has_no_test_question_and_no_validation_question() -> None:
    train, validation, test = (tasks.load("gsm8k", split) for split in tasks.SPLITS)
    assert len(train) == 70
    assert len(validation) == 30
    rows = [int(problem.id.rsplit("/", 1)[1]) for problem in train + validation]
    assert sorted(rows) == list(range(100))  # row 100 is test question 200
    assert not texts(train) & texts(validation)
    assert not (texts(train) | texts(validation)) & texts(test)
    assert all(problem.id.startswith("gsm8k/validation/") for problem in validation)
    assert {problem.target for problem in train} == {"1,000"}


@pytest.mark.usefixtures("small_gsm8k")
def test_limits_of_a_data_set_are_nested_and_not_the_first_rows() -> None:
    whole = tasks.load("gsm8k", "train")
    assert tasks.load("gsm8k", "train", limit=10) == whole[:10]
    assert tasks.load("gsm8k", "train", limit=10_000) == whole
    assert [problem.id for problem in whole] != sorted(
        (problem.id for problem in whole), key=lambda id: int(id.rsplit("/", 1)[1])
    )


@pytest.mark.usefixtures("small_gsm8k")
@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"null", b'{"question": "q"}', b'{"question": "q", "answer": "no mark"}', b"\xff\xfe", b"",
     b'{"question": 5, "answer": "#### 5"}', b'{"question": "q", "answer": 5}',
     b'{"question": "q", "answer": "#### 1 #### 2"}'],
)  # fmt: skip
def test_a_broken_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    put(tmp_path, monkeypatch, "grade-school-math/test.jsonl", gsm8k_row(1, "5") + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"grade-school-math/test\.jsonl:2: "):
        tasks.load("gsm8k", "test")


MULTIARITH = "zero_shot_cot/MultiArith/MultiArith.json"
SVAMP = "zero_shot_cot/SVAMP/SVAMP.json"


def put_rows(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, questions: list[str]) -> None:
    """A file of the data set `name` with these questions; the answer of row i is i."""
    rows: list[dict[str, Any]]
    if name == "multiarith":
        rows = [{"sQuestion": f" {q} ", "lSolutions": [float(i)]} for i, q in enumerate(questions)]
    else:
        rows = [{"Body": "Here are rows.", "Question": f"{q} ", "Answer": float(i)} for i, q in enumerate(questions)]
    put(folder, monkeypatch, MULTIARITH if name == "multiarith" else SVAMP, json.dumps(rows).encode())


@pytest.mark.parametrize(
    ("name", "sizes", "text", "first"),
    [
        ("multiarith", [378, 42, 180], "How many in row {}?", [3, 9, 11, 13, 16, 19, 23, 24, 25, 28]),
        ("svamp", [630, 70, 300], "Here are rows. How many in row {}?", [9, 11, 19, 23, 24, 25, 28, 29, 32, 33]),
    ],
)
def test_one_file_is_split_as_in_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sizes: list[int], text: str, first: list[int]
) -> None:
    num_rows = sum(sizes)
    put_rows(tmp_path, monkeypatch, name, [f"How many in row {i}?" for i in range(num_rows)])
    train, validation, test = (tasks.load(name, split) for split in tasks.SPLITS)
    assert [len(train), len(validation), len(test)] == sizes
    rows = sorted(int(problem.id.rsplit("/", 1)[1]) for problem in test)
    assert sorted(int(p.id.rsplit("/", 1)[1]) for p in train + validation + test) == list(range(num_rows))
    for problem in test:
        assert problem.question == text.format(problem.target)
        assert problem.id == f"{name}/test/{problem.target}"
    # The first test rows of RandomState(0).permutation(n)[0.7 n:], sorted, worked out once outside this code.
    assert rows[:10] == first


@pytest.mark.parametrize("name", ["multiarith", "svamp"])
def test_duplicates_in_one_file_stay_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put_rows(tmp_path, monkeypatch, name, [f"How many in row {i % 150}?" for i in range(600)])
    train, validation, test = (tasks.load(name, split) for split in tasks.SPLITS)
    assert len(test) == 180
    assert not texts(train) & texts(validation)
    assert not (texts(train) | texts(validation)) & texts(test)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[("multiarith", c) for c in (b"[{}]", b'[{"sQuestion": "q", "lSolutions": []}]', b"[5]", b"[")],
        ("multiarith", b'[{"sQuestion": 1}]'),
        ("svamp", b'[{"Body": "b", "Question": "q", "Answer": "many"}]'),
        ("svamp", b'[{"Body": "b", "Answer": 1}]'),
    ],
)
def test_a_broken_row_of_one_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    file = MULTIARITH if name == "multiarith" else SVAMP
    put(tmp_path, monkeypatch, file, content)
    with pytest.raises(DataError, match=re.escape(f"{file}: ")):
        tasks.load(name, "test")


# --- where files come from


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A web server in upstream's place: path -> content."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"") + (9 if content == b"cut off" else 0)))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(sources, "HOST", f"http://127.0.0.1:{server.server_port}")
    yield files
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: dict[str, bytes], own_cache: Path
) -> None:
    put(tmp_path, monkeypatch, MULTIARITH, b"content")
    (tmp_path / "data" / MULTIARITH).unlink()  # pinned, but not in FCOT_DATA
    source = sources.SOURCES[MULTIARITH]
    upstream[f"/{source.repository}/{source.commit}/dataset/MultiArith/MultiArith.json"] = b"content"
    assert sources.read_source(MULTIARITH) == b"content"
    assert (own_cache / MULTIARITH).read_bytes() == b"content"
    upstream.clear()
    monkeypatch.delenv("FCOT_DATA")
    assert sources.read_source(MULTIARITH) == b"content"


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: dict[str, bytes], own_cache: Path
) -> None:
    put(tmp_path, monkeypatch, MULTIARITH, b"content")
    monkeypatch.delenv("FCOT_DATA")
    source = sources.SOURCES[MULTIARITH]
    upstream[f"/{source.repository}/{source.commit}/{source.path}"] = b"content"
    own_cache.parent.parent.write_text("a file where the cache folder should be")
    with pytest.raises(ResourceError, match="FCOT_DATA"):
        sources.read_source(MULTIARITH)


@pytest.mark.parametrize("content", [b"something else", b"", b"cut off"])
def test_a_download_that_is_not_the_pinned_file_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, upstream: dict[str, bytes], own_cache: Path, content: bytes
) -> None:
    monkeypatch.delenv("FCOT_DATA", raising=False)
    source = sources.SOURCES[MULTIARITH]
    upstream[f"/{source.repository}/{source.commit}/{source.path}"] = content
    with pytest.raises(DataError, match=r"MultiArith\.json"):
        tasks.load("multiarith", "test")
    assert not own_cache.exists()


@pytest.mark.parametrize("place", ["FCOT_DATA", "cache"])
def test_a_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path, place: str
) -> None:
    monkeypatch.setenv("FCOT_DATA", str(tmp_path / "data"))
    path = (tmp_path / "data" if place == "FCOT_DATA" else own_cache) / MULTIARITH
    path.parent.mkdir(parents=True)
    path.write_bytes(b"[]")
    expected = sources.SOURCES[MULTIARITH].sha256
    with pytest.raises(DataError, match=f"{hashlib.sha256(b'[]').hexdigest()}, expected {expected}") as error:
        tasks.load("multiarith", "test")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("folder", [None, "missing"])
def test_without_data_and_network_the_message_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path, folder: str | None
) -> None:
    monkeypatch.delenv("FCOT_DATA", raising=False)
    if folder:
        monkeypatch.setenv("FCOT_DATA", str(tmp_path / folder))
    with pytest.raises(DataError) as error:
        tasks.load("multiarith", "test")
    assert error.value.exit_code == 3
    for part in [MULTIARITH, sources.SOURCES[MULTIARITH].url, str(own_cache / MULTIARITH), "FCOT_DATA"]:
        assert part in str(error.value)
    assert str(error.value).endswith("make distill TASK=rg:gsm_symbolic")  # what works at once


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOT_DATA", str(tmp_path))
    (tmp_path / MULTIARITH).mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        tasks.load("multiarith", "test")


# --- the real data sets


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if REAL_DATA is None:
        pytest.skip("FCOT_DATA is not set")
    monkeypatch.setenv("FCOT_DATA", REAL_DATA)


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("name", "sizes"), [("gsm8k", [6973, 500, 1319]), ("multiarith", [373, 42, 180]), ("svamp", [630, 70, 300])]
)
def test_real_sizes_and_disjointness(name: str, sizes: list[int]) -> None:
    train, validation, test = (tasks.load(name, split) for split in tasks.SPLITS)
    assert [len(train), len(validation), len(test)] == sizes
    assert not texts(train) & texts(validation)
    assert not (texts(train) | texts(validation)) & texts(test)
    examples = {normalised(question) for question, _ in tasks.solved_examples(name)}
    assert not examples & (texts(train) | texts(validation) | texts(test))


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_real_golden_solutions_are_graded_correct(split: tasks.Split) -> None:
    for problem in tasks.load("gsm8k", split):
        assert "<<" not in problem.metadata["solution"]
        assert grade(problem.metadata["solution"], problem).correct, problem.id
    for problem in tasks.load("multiarith", split) + tasks.load("svamp", split):
        assert grade(f"The answer is {problem.target}.", problem).correct
