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
from fcot_lite.tasks import generated, sources, splits
from fcot_lite.tasks.splits import normalised

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
DATA_SETS = [name for name, task in tasks.TASKS.items() if task.data is not None]


def texts(problems: list[Problem]) -> set[str]:
    return {normalised(problem.question) for problem in problems}


def spelled(i: int) -> str:
    """Row i's number in letters: questions that differ in a number have one template, and lie in one group."""
    return "q" + "".join("abcdefghij"[int(digit)] for digit in str(i))


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
    with pytest.raises(RecipeError, match=r"choose one of single_eq, addsub, .*chain_arithmetic.*, or rg:"):
        tasks.load("svhn!", "train")


@pytest.mark.parametrize("split", ["dev", "examples", "", "Train"])
def test_an_unknown_split_is_refused(split: Any) -> None:
    with pytest.raises(RecipeError, match="train, validation, test"):
        tasks.load("chain_arithmetic", split)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10"])
def test_a_limit_is_a_whole_number_from_one(limit: Any) -> None:
    with pytest.raises(RecipeError, match="limit"):
        tasks.load("chain_arithmetic", "train", limit=limit)


# How a solution ends, for each kind of answer.
FINAL_SENTENCES = {
    "number": r"The answer is (-?[\d.]+)\.",
    "choice": r"The answer is \(([A-Z])\)\.",
    "yes_no": r"The answer is (yes|no)\.",
    "letters": r"The answer is ([A-Za-z]+)\.",
}


@pytest.mark.parametrize("name", tasks.TASKS)
def test_solved_examples_end_in_their_answer(name: str) -> None:
    examples = tasks.solved_examples(name)
    assert len(set(examples)) == 4
    kind = tasks.TASKS[name].answer_kind
    for question, solution in examples:
        final = re.search(FINAL_SENTENCES[kind] + r"\Z", solution)
        assert final
        assert solution.count("The answer is") == 1
        if kind == "number":
            assert grade(solution, Problem("p", question, final[1])).correct
        for left, stated in re.findall(r"(\d+ [-+*/] \d+(?: [-+*/] \d+)*) = (\d+)(?![/\d])", solution):
            assert eval(left) == int(stated)
    assert tasks.solved_examples(name, count=2) == examples[:2]
    assert tasks.solved_examples(name, count=0) == []
    with pytest.raises(RecipeError):
        tasks.solved_examples(name, count=-1)


@pytest.mark.parametrize("name", [n for n in DATA_SETS if tasks.TASKS[n].answer_kind == "choice"])
def test_solved_choices_are_worded_as_the_task_words_them(name: str) -> None:
    answers = []
    for question, solution in tasks.solved_examples(name):
        _, _, options = question.rpartition(" Answer choices: ")
        assert re.fullmatch(r"\(A\) [^()]+(?:, \([A-Z]\) [^()]+)+\.", options)
        letters = re.findall(r"\(([A-Z])\) ", options)
        assert letters == list("ABCDEFG"[: len(letters)])
        answers.append(solution[-3])
        assert answers[-1] in letters
        assert ("\nWhich choice is true? Answer" in question) == (tasks.TASKS[name].category == "other")
    assert len(set(answers)) >= 3 or name == "tracking_shuffled_objects"


def test_solved_letters_and_coins_are_right() -> None:
    for question, solution in tasks.solved_examples("last_letter_concatenation"):
        words = question.split('"')[1].split()
        assert solution.endswith(f"The answer is {''.join(word[-1] for word in words)}.")
        for word in words:
            assert f'The last letter of "{word}" is "{word[-1]}".' in solution
    for question, solution in tasks.solved_examples("coin_flip"):
        is_heads = question.count(" flips the coin.") % 2 == 0
        assert question.count(" the coin.") == 4
        assert solution.endswith(f"The answer is {'yes' if is_heads else 'no'}.")


def test_solved_shuffled_objects_are_right() -> None:
    for question, solution in tasks.solved_examples("tracking_shuffled_objects"):
        people = question.split(" each ")[0].split(" sit in")[0].split(" feed animals")[0].split(" borrow")[0]
        names = re.findall(r"[A-Z]\w+", people)
        holds = dict(zip(names, "ABC", strict=True))
        for one, other in re.findall(r"(?:First|Then|Finally), (\w+) and (\w+) ", question):
            holds[one], holds[other] = holds[other], holds[one]
        (asked,) = re.findall(r"At the end of the \w+, (\w+) ", question)
        assert solution.endswith(f"The answer is ({holds[asked]}).")


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_have_no_options_and_four_examples(name: str) -> None:
    with pytest.raises(RecipeError, match="digits"):
        tasks.load(name, "test", options={"digits": [1, 2]})
    with pytest.raises(RecipeError, match="digits"):
        tasks.solved_examples(name, options={"digits": [1, 2]})
    with pytest.raises(RecipeError, match="5 solved examples"):
        tasks.solved_examples(name, count=5)


def test_a_way_to_split_is_one_of_two_and_generated_tasks_have_one() -> None:
    with pytest.raises(RecipeError, match="paper, template"):
        tasks.load("gsm8k", "test", by="story")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"chain_arithmetic has no template split.*task\.split"):
        tasks.load("chain_arithmetic", "test", by="template")


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
    except RecipeError:
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
    with pytest.raises(
        RecipeError, match=r"no more than \d+ different train problems .*terms \[2, 2\].*digits \[1, 1\]"
    ):
        tasks.load("chain_arithmetic", "train", options=tiny)
    with pytest.raises(RecipeError, match="no more than 0"):  # 100 * 100 is over 999 already
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
        "question": f"Row {spelled(i)}:\u2028 how many? ",
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
    assert problem.question == f"Row {spelled(203)}:\u2028 how many?"
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
        ("multiarith", [378, 42, 180], "How many in {}?", [3, 9, 11, 13, 16, 19, 23, 24, 25, 28]),
        ("svamp", [630, 70, 300], "Here are rows. How many in {}?", [9, 11, 19, 23, 24, 25, 28, 29, 32, 33]),
    ],
)
def test_one_file_is_split_as_in_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sizes: list[int], text: str, first: list[int]
) -> None:
    num_rows = sum(sizes)
    put_rows(tmp_path, monkeypatch, name, [f"How many in {spelled(i)}?" for i in range(num_rows)])
    train, validation, test = (tasks.load(name, split) for split in tasks.SPLITS)
    assert [len(train), len(validation), len(test)] == sizes
    rows = sorted(int(problem.id.rsplit("/", 1)[1]) for problem in test)
    assert sorted(int(p.id.rsplit("/", 1)[1]) for p in train + validation + test) == list(range(num_rows))
    for problem in test:
        assert problem.question == text.format(spelled(int(problem.target)))
        assert problem.id == f"{name}/test/{problem.target}"
    # The first test rows of RandomState(0).permutation(n)[0.7 n:], sorted, worked out once outside this code.
    assert rows[:10] == first


@pytest.mark.parametrize("name", ["multiarith", "svamp"])
def test_duplicates_in_one_file_stay_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put_rows(tmp_path, monkeypatch, name, [f"How many in {spelled(i % 150)}?" for i in range(600)])
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


# --- the rows of each data set, as the paper words them


def data_of(name: str) -> splits.DataSet:
    data = tasks.TASKS[name].data
    assert data is not None
    return data


def put_content(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: list[Any]) -> str:
    """These rows in the layout of the data set's file, whose name comes back."""
    file = data_of(name).test_file
    if name in ("aqua", "commonsense_qa", "gsm8k"):
        content = "\n".join(json.dumps(row) for row in rows)
    else:
        listed = name in ("single_eq", "addsub", "multiarith", "svamp")
        content = json.dumps(rows if listed else {"canary": "c", "examples": rows})
    put(folder, monkeypatch, file, content.encode())
    return file


ROWS: dict[str, tuple[Any, str, str]] = {
    "single_eq": (
        {"sQuestion": " Fay has 2.5 l of oil. How much is a third? ", "lSolutions": [0.8333333333333334]},
        "Fay has 2.5 l of oil. How much is a third?",
        "0.8333333333333334",
    ),
    "addsub": (
        {"sQuestion": "A ship holds 14696 tons . How many tons ? ", "lSolutions": ["14696.0"]},
        "A ship holds 14696 tons . How many tons ?",
        "14696",
    ),
    "aqua": (
        {
            "question": " How long?\nSay it. ",
            "options": ["A)9 hours.", "B) 10 hours.", "C)−1"],
            "rationale": "So it is.\n",
            "correct": "B",
        },
        "How long?\nSay it. Answer choices: (A) 9 hours., (B) 10 hours., (C) −1.",
        "B",
    ),
    "tracking_shuffled_objects": (
        {
            "input": "Ann has a cup. \n\nThen they swap. At the end of the game, Ann has the ",
            "target_scores": {"red cup.": 0, "tin cup.": 0, "mug.": 1},
        },
        "Ann has a cup. \n\nThen they swap. At the end of the game, Ann has the \n"
        "Which choice is true? Answer choices: (A) red cup, (B) tin cup, (C) mug.",
        "C",
    ),
    "last_letter_concatenation": (
        {"question": 'Take the last letters of each words in "Ana Bo Jose A" and concatenate them.', "answer": "aoeA"},
        'Take the last letters of each words in "Ana Bo Jose A" and concatenate them.',
        "aoeA",
    ),
    "coin_flip": (
        {"question": "A coin is heads up. José Luis flips the coin. Bo does not flip the coin. Up?", "answer": "no"},
        "A coin is heads up. José Luis flips the coin. Bo does not flip the coin. Up?",
        "no",
    ),
    "commonsense_qa": (
        {
            "answerKey": "A",
            "question": {
                "stem": "What did  the fox want?",
                "choices": [{"label": "A", "text": "pretty flowers."}, {"label": "B", "text": "hen house"}],
            },
        },
        "What did  the fox want? Answer choices: (A) pretty flowers., (B) hen house.",
        "A",
    ),
    "strategy_qa": (
        {"input": "Would it sink?", "target_scores": {"Yes": 0, "No": 1}, "target": "No. It is light. It floats. "},
        "Would it sink?",
        "no",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    row, question, target = ROWS[name]
    file = put_content(tmp_path, monkeypatch, name, [row])
    (problem,) = data_of(name).read(file)
    assert (problem.id, problem.question, problem.target) == ("0", question, target)
    assert problem.answer_kind == tasks.TASKS[name].answer_kind


def test_what_upstream_knows_besides_stands_in_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in ("aqua", "strategy_qa", "tracking_shuffled_objects"):
        (problem,) = data_of(name).read(put_content(tmp_path, monkeypatch, name, [ROWS[name][0]]))
        found[name] = problem.metadata
    assert found["aqua"]["choices"] == ["9 hours.", "10 hours.", "−1"]
    assert found["aqua"]["solution"] == "So it is.\nThe answer is (B)."
    assert found["strategy_qa"]["solution"] == "It is light. It floats.\nThe answer is no."
    assert found["tracking_shuffled_objects"]["choices"] == ["red cup", "tin cup", "mug"]


def test_dates_are_permuted_by_one_random_state_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 0, 1, 5 of the data published with the paper: the permutation says where a choice goes."""
    counts = [6, 6, 6, 6, 6, 5]
    rows = [
        {"input": "Today it rains. What is the date today?", "target_scores": {f"{i}": int(i == 0) for i in range(n)}}
        for n in counts
    ]
    file = put_content(tmp_path, monkeypatch, "date_understanding", rows)
    problems = data_of("date_understanding").read(file)
    assert ["".join(problems[i].metadata["choices"]) for i in (0, 1)] == ["421350", "304125"]
    assert [problems[i].target for i in (0, 1, 2, 3, 4, 5)] == ["F", "B", "D", "F", "C", "D"]
    assert problems[5].question == (
        "Today it rains. What is the date today?\n"
        "Which choice is true? Answer choices: (A) 4, (B) 1, (C) 3, (D) 0, (E) 2."
    )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("aqua", {**ROWS["aqua"][0], "correct": "D"}),
        ("aqua", {**ROWS["aqua"][0], "correct": ""}),
        ("aqua", {**ROWS["aqua"][0], "options": None}),
        ("commonsense_qa", {**ROWS["commonsense_qa"][0], "answerKey": "a"}),
        ("strategy_qa", {**ROWS["strategy_qa"][0], "target": "Yes. It is heavy."}),
        ("tracking_shuffled_objects", {"input": "q", "target_scores": {"a": 1, "b": 1}}),
        ("tracking_shuffled_objects", {"input": "q", "target_scores": {"a": 0, "b": 0}}),
        ("date_understanding", {"input": "q"}),
        ("coin_flip", {"question": "A coin.", "answer": "yes"}),
        ("coin_flip", {**ROWS["coin_flip"][0], "answer": "maybe"}),
        ("last_letter_concatenation", {"question": "Take the last letters.", "answer": "ab"}),
        ("single_eq", {"sQuestion": "q", "lSolutions": ["many"]}),
    ],
)
def test_a_row_that_makes_no_problem_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: Any
) -> None:
    good = [ROWS[name][0]] if name in ROWS else []
    file = put_content(tmp_path, monkeypatch, name, [*good, row])
    with pytest.raises(
        DataError, match=rf"{re.escape(file)}:( row)? ?{len(good) + (name in ('aqua', 'commonsense_qa'))}: "
    ):
        data_of(name).read(file)


@pytest.mark.parametrize("content", [b"{}", b'{"examples": 5}', b"5"])
def test_a_file_without_rows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    file = data_of("coin_flip").test_file
    put(tmp_path, monkeypatch, file, content)
    with pytest.raises(DataError, match=re.escape(f"{file}: not a list")):
        tasks.load("coin_flip", "test")


def test_aqua_says_that_its_training_file_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_content(tmp_path, monkeypatch, "aqua", [ROWS["aqua"][0]])
    for by in splits.SPLITTINGS:
        assert [problem.id for problem in tasks.load("aqua", "test", by=by)] == ["aqua/test/0"]
        for split in ("train", "validation"):
            with pytest.raises(DataError, match="deepmind/aqua_rat"):
                tasks.load("aqua", split, by=by)  # type: ignore[arg-type]


def test_solved_dates_are_right() -> None:
    # 2017-06-28 + 3 + 1 days, 1995-03-08 - 14 days, 2010-12-31 - 10 days, 2024-09-30 - a year - a month
    right = ["07/02/2017", "02/22/1995", "12/21/2010", "08/30/2023"]
    for (question, solution), date in zip(tasks.solved_examples("date_understanding"), right, strict=True):
        letter = solution.removesuffix(").")[-1]
        assert f"({letter}) {date}" in question
        assert f"which is {date}." in solution


# --- the table of tasks


@pytest.mark.usefixtures("upstream")
def test_tasks_are_described_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*arguments: Any) -> bytes:
        raise AssertionError("downloaded")

    monkeypatch.setattr(sources, "_download", download)
    monkeypatch.delenv("FCOT_DATA", raising=False)
    rows = {row.name: row for row in tasks.describe()}
    assert list(rows) == list(tasks.TASKS)
    assert Counter(row.category for row in rows.values() if tasks.TASKS[row.name].data) == {
        "arithmetic": 6, "other": 2, "symbolic": 2, "commonsense": 2
    }  # fmt: skip
    aqua = rows["aqua"]
    assert (aqua.train, aqua.validation, aqua.test, aqua.random_guess, aqua.is_present_offline) == (
        None, None, None, None, False
    )  # fmt: skip
    assert (rows["coin_flip"].random_guess, rows["gsm8k"].random_guess) == (0.5, 0.0)
    chains = rows["chain_arithmetic"]
    assert (chains.train, chains.validation, chains.test, chains.is_present_offline) == (1000, 100, 500, True)
    put_content(tmp_path, monkeypatch, "aqua", [ROWS["aqua"][0]])
    (aqua,) = (row for row in tasks.describe() if row.name == "aqua")
    assert (aqua.train, aqua.validation, aqua.test, aqua.random_guess, aqua.is_present_offline) == (
        None, None, 1, pytest.approx(1 / 3), True
    )  # fmt: skip


# --- the real data sets


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_DATA:
        pytest.skip("FCOT_DATA is not set")
    monkeypatch.setenv("FCOT_DATA", REAL_DATA)


# Of the paper (method, its table of tasks): train and validation together, left out because of test, and test.
PAPER_COUNTS = {
    "single_eq": (356, 0, 152),
    "addsub": (276, 0, 119),
    "multiarith": (415, 5, 180),
    "gsm8k": (7473, 0, 1319),
    "svamp": (700, 0, 300),
    "date_understanding": (258, 0, 111),
    "tracking_shuffled_objects": (525, 0, 225),
    "last_letter_concatenation": (350, 0, 150),
    "coin_flip": (350, 0, 150),
    "commonsense_qa": (9741, 0, 1221),
    "strategy_qa": (1602, 1, 687),
}


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", PAPER_COUNTS)
def test_real_sizes_and_disjointness(name: str) -> None:
    train, validation, test = (tasks.load(name, split) for split in tasks.SPLITS)
    num_train, num_left_out, num_test = PAPER_COUNTS[name]
    assert (len(train) + len(validation), len(test)) == (num_train, num_test)
    assert len(splits.parts(data_of(name), "paper")["left_out"]) == num_left_out
    assert not texts(train) & texts(validation)
    assert not (texts(train) | texts(validation)) & texts(test)
    examples = {normalised(question) for question, _ in tasks.solved_examples(name)}
    assert not examples & (texts(train) | texts(validation) | texts(test))


@pytest.mark.usefixtures("real_data")
def test_real_aqua_has_its_test_side() -> None:
    assert len(tasks.load("aqua", "test")) == 254


# Rows of the paper's own data (github.com/itsnamgyu/reasoning-teacher at 5a5104a, folder dataset), to the letter.
PUBLISHED = {
    "date_understanding/5": (
        "Yesterday was April 30, 2021. What is the date one year ago from today in MM/DD/YYYY?\nWhich choice is true? "
        "Answer choices: (A) 05/01/1971, (B) 04/01/2020, (C) 05/15/2020, (D) 05/01/2020, (E) 05/08/2020.",
        "D",
    ),
    "date_understanding/57": (
        "Jane was born on the last day of Feburary in 2000. Today is her 16-year-old birthday. What is the date 10 "
        "days ago in MM/DD/YYYY?\nWhich choice is true? Answer choices: (A) 02/20/2016, (B) 01/09/2016, (C) "
        "02/19/2016, (D) 02/19/1979, (E) 02/12/2016, (F) 02/19/2105.",
        "C",
    ),
    "tracking_shuffled_objects/9": (
        "Alice, Bob, and Claire are playing a game. At the start of the game, they are each holding a ball: Alice has "
        "a yellow ball, Bob has a purple ball, and Claire has a blue ball. \n\nAs the game progresses, pairs of "
        "players trade balls. First, Alice and Claire swap balls. Then, Bob and Claire swap balls. Finally, Alice and "
        "Claire swap balls. At the end of the game, Alice has the \nWhich choice is true? Answer choices: (A) yellow "
        "ball, (B) purple ball, (C) blue ball.",
        "B",
    ),
    "commonsense_qa/4": (
        "The fox walked from the city into the forest, what was it looking for? Answer choices: (A) pretty flowers., "
        "(B) hen house, (C) natural habitat, (D) storybook, (E) dense forest.",
        "C",
    ),
}


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("row", PUBLISHED)
def test_real_questions_are_worded_as_published(row: str) -> None:
    name, index = row.split("/")
    data = data_of(name)
    problem = data.read(data.train_file or data.test_file)[int(index)]
    assert (problem.question, problem.target) == PUBLISHED[row]


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_real_golden_solutions_are_graded_correct(split: tasks.Split) -> None:
    for problem in tasks.load("gsm8k", split):
        assert "<<" not in problem.metadata["solution"]
        assert grade(problem.metadata["solution"], problem).correct, problem.id
    for name in ("single_eq", "addsub", "multiarith", "svamp"):
        for problem in tasks.load(name, split):
            assert grade(f"The answer is {problem.target}.", problem).correct


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", DATA_SETS)
def test_real_answers_are_of_their_kind(name: str) -> None:
    for problem in tasks.load(name, "test") if name == "aqua" else everything(name):
        assert problem.answer_kind == tasks.TASKS[name].answer_kind
        if problem.answer_kind == "choice":
            choices = problem.metadata["choices"]
            place = ord(problem.target) - ord("A")
            assert 0 <= place < len(choices) <= 6
            assert f"({problem.target}) {choices[place]}" in problem.question
            assert problem.question.endswith(f"{choices[-1]}.")
        elif problem.answer_kind == "yes_no":
            assert problem.target in ("yes", "no")
        elif problem.answer_kind == "letters":
            assert re.fullmatch(r"[^\W\d_]{4}", problem.target)


def everything(name: str) -> list[Problem]:
    return [problem for split in tasks.SPLITS for problem in tasks.load(name, split)]


@pytest.mark.usefixtures("real_data")
def test_real_coins_and_letters_follow_from_their_questions() -> None:
    for problem in everything("coin_flip"):
        flips = len(re.findall(r" flips the coin", problem.question))
        assert problem.target == ("yes" if flips % 2 == 0 else "no")
    wrong = 0
    for problem in everything("last_letter_concatenation"):
        wrong += "".join(word[-1] for word in problem.question.split('"')[1].split()) != problem.target
    assert wrong == 15  # upstream's: first names of two words


@pytest.mark.usefixtures("real_data")
def test_real_tasks_are_described() -> None:
    rows = {row.name: row for row in tasks.describe()}
    for name, (num_train, _, num_test) in PAPER_COUNTS.items():
        row = rows[name]
        assert ((row.train or 0) + (row.validation or 0), row.test) == (num_train, num_test)
    assert (rows["aqua"].train, rows["aqua"].test, rows["aqua"].is_present_offline) == (None, 254, True)
    guesses = {name: row.random_guess for name, row in rows.items() if tasks.TASKS[name].data and row.random_guess}
    assert guesses == pytest.approx(
        {
            "aqua": 0.2,
            "date_understanding": 0.1724,  # the paper's 17.12 is one over the average number of choices
            "tracking_shuffled_objects": 1 / 3,
            "coin_flip": 0.5,
            "commonsense_qa": 0.2,
            "strategy_qa": 0.5,
        },
        abs=1e-4,
    )
