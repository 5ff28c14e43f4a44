"""Rationales of a file in place of a teacher: every one is accounted for, matched without a guess, and judged by us."""

import dataclasses
import json
import re
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import models, pipeline, report, samples, sampling_runs, stage, tasks
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.files import read_json, read_jsonl
from fcot_lite.imported import ends_in_answer, layouts
from fcot_lite.imported.layouts import source
from fcot_lite.imported.matching import Counts, Matcher, Unmatched, bring_in
from fcot_lite.imported.rows import rationales
from fcot_lite.machine import Machine
from fcot_lite.progress import Reporter
from fcot_lite.recipe import ImportBlock, Recipe, build, dump, load
from fcot_lite.records import Problem, Sample
from fcot_lite.store import SampleStore
from fcot_lite.tasks.rows import BadRowError

PROBLEMS = [
    Problem("pets/train/1", "Ann has 3 cats and gets 4. How many?", "7"),
    Problem("pets/train/2", "Bo has 12 dogs and sells 2. How many?", "10"),
    Problem("pets/train/3", "What is 3² as a number?", "9"),
    Problem("pets/train/4", "What is 32 as a number?", "32"),
]
OTHERS = {"test": [Problem("pets/test/9", "Cy has 1 fish. How many?", "1")]}
SEVEN = "3 + 4 = 7. The answer is 7."


def silent(done: int, total: int, note: str) -> None:
    pass


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def block(path: Path, **keys: Any) -> ImportBlock:
    return ImportBlock(file=str(path), **keys)


def brought(path: Path, folder: Path, **keys: Any) -> tuple[Counts, list[Sample]]:
    """What an import of the file counts, and what is in the store after it."""
    made = block(path, **keys)
    file = source(made)
    with SampleStore(folder / "samples.sqlite") as store:
        campaign = store.add_campaign({"import": file.sha256, **file.layout.columns()})
        matcher = Matcher(PROBLEMS, OTHERS, named=made.id is not None)
        counts = bring_in(store, campaign, file, matcher, silent)
        assert bring_in(store, campaign, file, matcher, silent).summary() == counts.summary()
        samples = list(store.read(campaign).values())
    assert Counter(sample.problem_id for sample in samples) == counts.by_problem
    return counts, samples


# ---- layouts -----------------------------------------------------------------------------------------------------

QUESTION = PROBLEMS[0].question
LAYOUTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "fcot": (
        "samples of fcot-lite",
        {
            "problem_id": "pets/train/1", "sample_index": 5, "text": SEVEN, "answer_text": None,
            "finish_reason": "stop", "num_prompt_tokens": 20, "num_tokens": 11, "seed": 3,
            "verdict": {"correct": False, "extracted": None, "reason": "wrong"},
        },
    ),
    "OpenR1-Math": (
        "OpenR1-Math",
        {
            "problem": QUESTION, "solution": "no", "answer": "8", "generations": [SEVEN], "finish_reasons": ["stop"],
            "correctness_math_verify": [False], "messages": [{"role": "user", "content": "other"}],
        },
    ),
    "OpenThoughts": (
        "OpenThoughts",
        {
            "system": "Think.",
            "conversations": [{"from": "user", "value": QUESTION}, {"from": "assistant", "value": SEVEN}],
        },
    ),
    "OpenThoughts metadata": (
        "metadata of OpenThoughts",
        {"problem": QUESTION, "deepseek_reasoning": "hm", "deepseek_solution": SEVEN, "ground_truth_solution": "x"},
    ),
    "chats in parts": (
        "chats",
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Think."}]},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
                {"role": "assistant", "content": [{"type": "text", "text": text} for text in (SEVEN[:5], SEVEN[5:])]},
            ]
        },
    ),
    "TRL": (
        "columns",
        {"prompt": [{"role": "user", "content": QUESTION}], "completion": [{"role": "assistant", "content": SEVEN}]},
    ),
    "Alpaca": ("columns", {"instruction": QUESTION, "output": SEVEN, "finish_reason": "end_turn"}),
}  # fmt: skip


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".json"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_common_layouts_tell_themselves(name: str, ending: str, tmp_path: Path) -> None:
    layout, row = LAYOUTS[name]
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if ending == ".json" else row))
    counts, (sample,) = brought(path, tmp_path)
    assert source(block(path)).layout.name == layout
    assert counts.summary() == {
        "rows": 1, "rationales": 1, "imported": 1, "unmatched": 0, "duplicates": 0, "bad": 0
    }  # fmt: skip
    assert (sample.problem_id, sample.sample_index, sample.text, sample.answer_text) == ("pets/train/1", 0, SEVEN, None)
    finished = "finish_reason" in row or "finish_reasons" in row
    assert sample.finish_reason == ("stop" if finished else "unknown")
    assert sample.num_tokens == row.get("num_tokens", 0)


def test_the_papers_completions(tmp_path: Path) -> None:
    """As the official repository keeps them: by question, both calls, with what the run was."""

    def completion(question: str, reasoning: str, answer: str, first: str = "stop", second: str = "stop") -> Any:
        return {
            "sample_index": 0, "question": question, "answer": "?", "reasoning_prompt": "Q: …", "prompt": "Q: …",
            "reasoning_completion": reasoning, "reasoning_finish_reason": first,
            "completion": answer, "finish_reason": second,
        }  # fmt: skip

    same = [completion(QUESTION, " 3 + 4 = 7", " 7.")] * 2
    first_version = completion(PROBLEMS[3].question, " So.", " 32.")
    del first_version["finish_reason"]  # it kept that of the first call alone
    data = {
        "0": same,
        "7": [completion(PROBLEMS[1].question, " Cut", " 10.", first="length"), {"sample_index": 7}],
        "8": [first_version],
        "99": [completion(OTHERS["test"][0].question, " One.", " 1.")],
    }
    path = tmp_path / "D_pets.json"
    path.write_text(json.dumps({"metadata": {"base_model": "text-davinci-002", "train_key": None}, "data": data}))
    counts, stored = brought(path, tmp_path)
    assert [(s.problem_id, s.text, s.answer_text, s.finish_reason) for s in stored] == [
        ("pets/train/1", " 3 + 4 = 7", " 7.", "stop"),
        ("pets/train/1", " 3 + 4 = 7", " 7.", "stop"),  # of two indices: D counts both
        ("pets/train/2", " Cut", " 10.", "length"),
        ("pets/train/4", " So.", " 32.", "unknown"),
    ]
    assert counts.left_out == {("bad", "column missing"): 1, ("unmatched", "a test question"): 1}
    assert source(block(path)).metadata == {"base_model": "text-davinci-002"}


def test_columns_that_the_recipe_names(tmp_path: Path) -> None:
    rows = [{"q": QUESTION, "answer": SEVEN, "why": "length", "text": "no", "generations": ["no"], "problem": "no"}]
    _, (sample,) = brought(
        jsonl(tmp_path / "x.jsonl", rows), tmp_path, question="q", text="answer", finish_reason="why"
    )
    assert (sample.text, sample.finish_reason) == (SEVEN, "length")


@pytest.mark.parametrize(
    ("word", "meant"), [("refusal", "abort"), ("TOOL_CALLS", "abort"), (" max_new_tokens", "length"), ("eos", "stop")]
)
def test_an_end_in_others_words(tmp_path: Path, word: str, meant: str) -> None:
    row = {"question": QUESTION, "text": SEVEN, "finish_reason": word}
    _, (sample,) = brought(jsonl(tmp_path / "x.jsonl", [row]), tmp_path)
    assert sample.finish_reason == meant


def test_a_text_that_the_recipe_names_takes_nothing_from_another(tmp_path: Path) -> None:
    row = {**LAYOUTS["OpenR1-Math"][1], "best": "Other. The answer is 7.", "finish_reasons": ["length"]}
    _, (sample,) = brought(jsonl(tmp_path / "x.jsonl", [row]), tmp_path, text="best")
    assert (sample.text, sample.finish_reason) == ("Other. The answer is 7.", "unknown")


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"a": 1, "b": 2}, {}, r"which column holds the rationale\? Name it in teacher\.text; there are: 'a', 'b'"),
        ({"text": "x", "b": 2}, {}, r"which column holds the question\? Name it in teacher\.question or teacher\.id"),
        ({"question": "?", "text": "x"}, {"text": "txt"}, r"no column 'txt', which teacher\.text names"),
        ({"question": "?", "text": "x"}, {"finish_reason": "why"}, r"no column 'why', which teacher\.finish_reason"),
    ],
)
def test_columns_that_nobody_can_tell(row: dict[str, Any], keys: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        source(block(jsonl(tmp_path / "x.jsonl", [row]), **keys))


# ---- matching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "id", "named", "found"),
    [
        (QUESTION, None, False, "1"),
        (f"  {QUESTION.upper()}\n", None, False, "1"),
        (None, "pets/train/2", False, "2"),
        (QUESTION, "pets/train/1", False, "1"),
        (None, "2", True, "2"),
        (None, "2", False, "no such id in train"),  # upstream's row 2 may be another's
        (QUESTION, "no/such/id", False, "1"),
        (QUESTION, "pets/train/2", False, "the id of another question"),
        ("What is 3² as a number?", None, False, "3"),
        ("What is 32 as a number?", None, False, "4"),
        ("WHAT IS 32 AS A NUMBER?", None, False, "more than one such question in train"),
        ("Cy has 1 fish. How many?", None, False, "a test question"),
        ("Dee has 5 owls. How many?", None, False, "no such question in train"),
        (None, "pets/test/9", False, "a test question"),
        (None, "pets/test/8", False, "no such id in train"),
    ],
)
def test_matching_never_guesses(question: str | None, id: str | None, named: bool, found: str) -> None:
    match = Matcher(PROBLEMS, OTHERS, named).match(question, id)
    assert (match.reason if isinstance(match, Unmatched) else match.id.removeprefix("pets/train/")) == found


def test_two_problems_of_one_question_get_nothing() -> None:
    twins = [dataclasses.replace(PROBLEMS[0], id=f"pets/train/{i}") for i in (7, 8)]
    match = Matcher(twins, {}, named=False).match(QUESTION, None)
    assert match == Unmatched("more than one such question in train", "pets/train/7, pets/train/8")


# ---- what a row says ---------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": SEVEN}]
HOSTILE: Sequence[tuple[dict[str, Any], str]] = [
    ({"question": QUESTION}, "column missing"),
    ({"question": QUESTION, "text": None}, "empty"),
    ({"question": QUESTION, "text": " \n"}, "empty"),
    ({"question": QUESTION, "text": []}, "empty"),
    ({"question": QUESTION, "text": 7}, "wrong type"),
    ({"question": QUESTION, "text": {"a": SEVEN}}, "wrong type"),
    ({"question": QUESTION, "text": [[SEVEN]]}, "wrong type"),
    ({"question": QUESTION, "text": [None]}, "empty"),
    ({"question": QUESTION, "text": "x" * 1_000_001}, "too long"),
    ({"question": ["?"], "text": SEVEN}, "wrong type"),
    ({"question": None, "text": SEVEN}, "empty"),
    ({"question": [*CHAT, *CHAT], "text": SEVEN}, "not a chat of one question"),
    ({"question": CHAT, "text": CHAT[:1]}, "not a chat of one question"),
    ({"question": CHAT, "text": [{"role": "assistant", "content": [{"type": "image", "url": "x"}]}]}, "wrong type"),
    ({"question": CHAT, "text": [{"role": "assistant", "content": None}]}, "empty"),
    ({"question": CHAT, "text": [*CHAT, "x"]}, "not a chat"),
    ({"question": QUESTION, "text": SEVEN, "finish_reason": "tired"}, "unknown finish_reason"),
    ({"question": QUESTION, "text": SEVEN, "finish_reason": 1}, "unknown finish_reason"),
    ({"question": QUESTION, "text": SEVEN, "finish_reason": ["stop", "stop"]}, "wrong length"),
]


@pytest.mark.parametrize(("row", "reason"), HOSTILE)
def test_a_row_that_cannot_be_used_costs_itself_alone(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = {"question": QUESTION, "text": SEVEN, "finish_reason": None}
    path = jsonl(tmp_path / "x.jsonl", [good, row])
    with open(path, "ab") as file:
        file.write(b'{"question": "\xff"}\nnot json\n[1]\n')
    counts, stored = brought(path, tmp_path)
    assert [sample.text for sample in stored] == [SEVEN]
    assert counts.left_out == Counter({("bad", reason): 1}) + Counter(
        {("bad", "not UTF-8"): 1, ("bad", "not valid JSON"): 1, ("bad", "not an object"): 1}
    )
    assert [left.row for left in counts.named] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "no row of it can be read"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"\xff\xff\n", "no row of it can be read"),
        (b'[{"question": "?", "text": "x"}]', "no row of it can be read"),
    ],
)
def test_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        source(block(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"{", "not valid JSON"),
        ("x.json", b"\xff", "not valid JSON"),
        ("x.json", b'{"data": {"0": 1}}', "neither a list of rows nor completions"),
        ("x.json", b"3", "neither a list of rows nor completions"),
        ("x.json", b"[1, 2]", "no row of it can be read"),
        ("x.json", b"[]", "no row of it can be read"),
        ("x.parquet", b"PAR1", "cannot be read as Parquet"),
        ("x.csv", b"question,text\n", "no row of it can be read"),
    ],
)
def test_other_files_that_are_none(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        source(block(tmp_path / name))


def test_rows_of_parquet_are_counted_through(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": QUESTION, "text": f"{i}. The answer is 7."} for i in range(2500)]
    rows[2300]["text"] = ""
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    counts, stored = brought(tmp_path / "x.parquet", tmp_path)
    assert len(stored) == 2499
    assert [left.row for left in counts.named] == [2301]


QUESTIONS = [*(p.question for p in PROBLEMS), "Cy has 1 fish. How many?", "Who?", "WHAT IS 32 AS A NUMBER?"]
TEXTS = [SEVEN, "No.", "", None, "\ud800\x00"]
ROWS = st.lists(
    st.one_of(
        st.sampled_from([row for row, _ in HOSTILE if len(str(row)) < 1000]),
        st.builds(
            lambda question, texts, word: {"question": question, "text": texts, "finish_reason": word},
            st.sampled_from(QUESTIONS),
            st.one_of(st.text(max_size=3), st.lists(st.sampled_from(TEXTS), max_size=4)),
            st.sampled_from([None, "stop", "length", "MAX_TOKENS", "tired"]),
        ),
    ),
    max_size=12,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_every_rationale_is_one_of_four(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("import")
    good = {"question": PROBLEMS[1].question, "text": "First. The answer is 10.", "finish_reason": "stop"}
    path = jsonl(folder / "x.jsonl", [good, *rows])
    counts, stored = brought(path, folder)
    found = counts.summary()
    assert found["rows"] == 1 + len(rows)
    # A row is as many rationales as it lists; one that can't be read is one.
    assert found["rationales"] == found["imported"] + found["unmatched"] + found["duplicates"] + found["bad"]
    assert found["rationales"] >= found["rows"]
    assert found["imported"] == len(stored) == len({(s.problem_id, s.text) for s in stored})
    asked = {problem.id: problem.question for problem in PROBLEMS}
    said = [(row["question"], json.dumps(row.get("text"))) for row in [good, *rows]]
    for sample in stored:  # whole, and under no other question than its own
        text = json.dumps(sample.text).replace("?", "\\ud800") if sample.text == "?\x00" else json.dumps(sample.text)
        assert any(question == asked[sample.problem_id] and text in texts for question, texts in said)


# ---- how a text ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (SEVEN, True),
        ("So \\boxed{7}", True),
        ("So the answer is $\\boxed{7}$.\n", True),
        ("3 + 4\n#### 7", True),
        ("The answer is 7 cats in all.", True),
        ("<think>\n3 + 4\n</think>\n\n**Final Answer**\n\\boxed{7}", True),
        ("<answer>7</answer>", True),
        ("The answer is 7. <|end_of_solution|>", True),
        ("The answer is 8.", True),  # wrong, but finished
        ("3 + 4 = 7", False),
        ("", False),
        ("The answer is 7. But wait, if Ann", False),
        ("The answer is 7.\n\nExplanation: three and four", False),
        ("The answer is 7 because three and four make seven as everybody knows who has counted cats, dogs and", False),
        ("I think the answer is 7. Let me check:\n3 + 4 =", False),
    ],
)
def test_an_explicit_answer_ends_a_text(text: str, ends: bool) -> None:
    assert ends_in_answer(text, PROBLEMS[0]) == ends


def test_looking_for_the_end_takes_linear_time() -> None:
    for filler in ("! ", "!", "<", "a. ", "\n"):
        assert not ends_in_answer(SEVEN + filler * 300_000 + " and", PROBLEMS[0])


def test_words_for_how_a_text_ended() -> None:
    layout = source_layout({"question": "?", "text": "x", "finish_reason": "y"})
    for word, expected in (("STOP", "stop"), ("max_tokens", "length"), ("eos_token", "stop"), (None, "unknown")):
        (found,) = rationales({"text": SEVEN, "finish_reason": word}, layout)
        assert not isinstance(found, BadRowError)
        assert found.finish_reason == expected


def source_layout(row: Mapping[str, Any]) -> layouts.Layout:
    return layouts.layout(Path("x.jsonl"), list(row), ImportBlock(file="x.jsonl"))


# ---- through the stages ------------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "name": "imported",
    "task": {"name": "chain_arithmetic", "train": 4},
    "prompts": {"plain": {}},
    "curate": {"max_length": 900},
    "student": {"model": "starter:s", "prompt": "plain"},
    "evaluate": {"before": ["plain"], "sampling": {"max_tokens": 9}, "engine": {"max_model_len": 900}},
}


class Bench:
    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.file = runs / "rationales.jsonl"
        self.problems = tasks.load("chain_arithmetic", "train", limit=4)

    def recipe(self, **teacher: Any) -> Recipe:
        return build({**RECIPE, "teacher": {"file": str(self.file), **teacher}}, "here")

    def context(self, **teacher: Any) -> stage.Context:
        return stage.Context(self.recipe(**teacher), self.runs / "run", Machine("cpu", (0,)), Reporter(None), "account")

    def samples(self) -> list[dict[str, Any]]:
        return read_jsonl(self.runs / "run" / "samples.jsonl")


@pytest.fixture
def bench(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(models, "resolve", lambda name, say: model_dir)

    def no_engine(*_: Any) -> None:
        raise AssertionError("an import starts no engine")

    monkeypatch.setattr(stage.Engines, "start", no_engine)
    return Bench(tmp_path)


def test_import_and_curation(bench: Bench) -> None:
    first, second, third, _ = bench.problems
    validation = tasks.load("chain_arithmetic", "validation", limit=1)[0]
    rows = [
        {"problem": first.question, "generations": [f"A. The answer is {first.target}.", "B. The answer is -1."]},
        {"problem": first.question, "generations": [f"A. The answer is {first.target}."]},
        {"problem": second.question, "generations": [f"So. The answer is {second.target}. But no"]},
        {
            "problem": third.question,
            "generations": [f"Cut. The answer is {third.target}."],
            "finish_reasons": ["length"],
        },
        {"problem": validation.question, "generations": ["V."]},
        {"problem": first.question, "generations": None},
    ]
    jsonl(bench.file, rows)
    sampled = stage.sample(bench.context())
    assert sampled["imported"] == {
        "file": "rationales.jsonl",
        "sha256": layouts.fingerprint(block(bench.file)),
        "layout": "OpenR1-Math",
        **{"rows": 6, "rationales": 7, "imported": 4, "unmatched": 1, "duplicates": 1, "bad": 1},
        "first_left_out": [
            "row 2: duplicate, same question and text (as in row 1)",
            f"row 5: unmatched, a validation question ({validation.question[:60]!r})",
            "row 6: bad, empty (generations)",
        ],
    }
    assert (sampled["samples"], sampled["samples_new"], sampled["pass_rate"], sampled["coverage"]) == (4, 4, 0.25, 0.25)
    # Nothing was generated, and what others spent is not known: null, not 0.
    assert (sampled["num_tokens_generated"], sampled["num_tokens"], sampled["tokens_per_accepted"]) == (0, None, None)
    assert [(row["finish_reason"], row["verdict"]["reason"], row["num_tokens"]) for row in bench.samples()] == [
        ("stop", "correct", None),
        ("stop", "wrong", None),
        ("length", "unfinished", None),
        ("length", "unfinished", None),
    ]
    with sqlite3.connect(bench.runs / "samples.sqlite") as database:
        stored = database.execute("SELECT finish_reason, engine FROM sample ORDER BY text").fetchall()
    assert stored == [("unknown", "import"), ("unknown", "import"), ("length", "import"), ("unknown", "import")]
    record = read_json(bench.runs / "run" / "imports.json")
    assert record["finish_reasons"] == {"None": 3, "length": 1}
    assert [row["row"] for row in record["first"]] == [2, 5, 6]
    curated = stage.curate(bench.context())
    assert (curated["kept"], curated["dropped"]) == (1, {"wrong": 1, "unfinished": 2})
    (row,) = read_jsonl(bench.runs / "run" / "train.jsonl")
    assert row["completion"] == [{"role": "assistant", "content": f"A.\nThe answer is {first.target}."}]


def test_the_recipe_decides_what_an_unknown_end_means(bench: Bench) -> None:
    first = bench.problems[0]
    jsonl(bench.file, [{"question": first.question, "text": f"So. The answer is {first.target}. And"}])
    for decision, accepted in (("answer", 0), ("stop", 1), ("length", 0), ("stop", 1)):
        sampled = stage.sample(bench.context(unknown_finish=decision))
        assert sampled["pass_rate"] == accepted
        assert stage.curate(bench.context(unknown_finish=decision))["kept"] == accepted
    # Neither the text nor the verdict was asked for again.
    assert (sampled["samples_new"], sampled["graded"]["new"]) == (0, 0)


def test_a_second_call_is_read_with_its_trigger(bench: Bench) -> None:
    first = bench.problems[0]
    row = {
        "question": first.question, "reasoning_completion": " One by one", "reasoning_finish_reason": "stop",
        "completion": f" {first.target}.", "finish_reason": "stop",
    }  # fmt: skip
    bench.file = bench.runs / "paper.json"
    bench.file.write_text(json.dumps({"metadata": {"base_model": "text-davinci-002"}, "data": {"0": [row]}}))
    assert stage.sample(bench.context())["pass_rate"] == 1.0
    assert stage.curate(bench.context())["kept"] == 1
    (row,) = read_jsonl(bench.runs / "run" / "train.jsonl")
    assert row["completion"][0]["content"] == f"One by one\nThe answer is {first.target}."


def test_another_runs_samples(bench: Bench) -> None:
    """samples.jsonl of one run is the file of another one, its tokens included."""
    first = bench.problems[0]
    own = Sample(first.id, 3, f"So. The answer is {first.target}.", None, "stop", 20, 9, 77)
    jsonl(
        bench.file, [{**dataclasses.asdict(own), "verdict": {"correct": False, "extracted": None, "reason": "wrong"}}]
    )
    sampled = stage.sample(bench.context())
    assert (sampled["pass_rate"], sampled["num_tokens"], sampled["tokens_per_accepted"]) == (1.0, 9, 9.0)
    (row,) = bench.samples()
    assert (row["sample_index"], row["seed"], row["num_prompt_tokens"]) == (0, 77, 20)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_another_labs_export(bench: Bench, ending: str) -> None:
    first = bench.problems[0]
    with SampleStore(bench.runs / "theirs" / "samples.sqlite") as store:
        campaign = store.add_campaign({"weights": "theirs"})
        texts = [f"So. The answer is {first.target}.", "No. The answer is -1."]
        drawn = [Sample(first.id, i, text, None, "stop", 20, 9 + i, 77) for i, text in enumerate(texts)]
        store.put(campaign, [("prompt", sample) for sample in drawn], "vllm 0.32")
    bench.file = bench.runs / f"export{ending}"
    samples.export(bench.runs / "theirs" / "samples.sqlite", bench.file)
    sampled = stage.sample(bench.context())
    assert sampled["imported"]["layout"] == "samples of fcot-lite"
    assert (sampled["imported"]["rows"], sampled["imported"]["imported"]) == (2, 2)
    assert (sampled["pass_rate"], sampled["num_tokens"], sampled["tokens_per_accepted"]) == (0.5, 19, 19.0)
    (listed,) = sampling_runs.listing(bench.runs / "samples.sqlite")
    assert (listed["model"], listed["samples"], listed["pass_rate"]) == (f"imported from export{ending}", 2, 0.5)


def test_n_takes_the_first_of_each_question(bench: Bench) -> None:
    first, second, *_ = bench.problems
    rows = [
        {"question": p.question, "text": f"{i}. The answer is {p.target}."} for i in range(4) for p in (first, second)
    ]
    jsonl(bench.file, rows)
    kept: list[str] = []
    for n in (1, 2, 4, None):
        sampled = stage.sample(bench.context(n=n))
        texts = [row["text"] for row in bench.samples() if row["problem_id"] == first.id]
        assert sampled["samples"] == 2 * (n or 4)
        assert texts[: len(kept)] == kept
        kept = texts


def test_a_sample_that_was_damaged_comes_from_the_file_again(bench: Bench) -> None:
    first = bench.problems[0]
    jsonl(bench.file, [{"question": first.question, "text": f"{i}. The answer is {first.target}."} for i in range(3)])
    stage.sample(bench.context())
    before = bench.samples()
    with sqlite3.connect(bench.runs / "samples.sqlite") as database:
        database.execute("UPDATE sample SET text = 'The answer is -1.' WHERE sample_index = 1")
    assert stage.sample(bench.context())["samples"] == 3
    assert bench.samples() == before


def test_more_train_questions_keep_every_text_with_its_own(bench: Bench) -> None:
    """What a row can be matched to changes with task.train; no index may then bring another's text."""
    jsonl(bench.file, [{"question": p.question, "text": f"{p.id}. The answer is {p.target}."} for p in bench.problems])
    for train in (2, 4, 3):
        recipe = build(
            {**RECIPE, "task": {**RECIPE["task"], "train": train}, "teacher": {"file": str(bench.file)}}, "x"
        )
        context = dataclasses.replace(bench.context(), recipe=recipe)
        assert stage.sample(context)["samples"] == train
        assert all(row["text"].startswith(row["problem_id"]) for row in bench.samples())


def test_a_file_without_a_single_question_of_train(bench: Bench) -> None:
    jsonl(bench.file, [{"question": "Who?", "text": "Me."}, {"question": "?", "text": ""}])
    with pytest.raises(DataError) as caught:
        stage.sample(bench.context())
    message = str(caught.value)
    assert "rationales.jsonl: nothing in it answers a train question" in message
    assert "row 1: unmatched, no such question in train ('Who?')" in message
    assert f"the first train question: {bench.problems[0].question[:60]!r}" in message
    assert read_json(bench.runs / "run" / "imports.json")["unmatched"] == 1
    assert not (bench.runs / "run" / "samples.jsonl").exists()


def test_the_stage_is_reused_by_the_files_bytes(bench: Bench) -> None:
    machine = Machine("cpu", (0,))
    jsonl(bench.file, [{"question": "?", "text": "x"}])

    def key(**teacher: Any) -> str:
        return pipeline.stage_key(bench.runs / "run", "sample", pipeline.stage_inputs(bench.recipe(**teacher), machine))

    first = key()
    assert key() == first
    assert key(unknown_finish="stop") != first
    assert key(n=2) != first
    moved = bench.file.rename(bench.runs / "moved.jsonl")
    bench.file = moved
    assert key() == first
    jsonl(bench.file, [{"question": "?", "text": "y"}])
    assert key() != first
    moved.unlink()
    with pytest.raises(DataError, match=r"moved\.jsonl: no such file"):
        key()


# ---- the recipe, the report --------------------------------------------------------------------------------------


def test_the_recipe_is_whole_and_comes_back(bench: Bench) -> None:
    recipe = bench.recipe(question="problem", unknown_finish="stop")
    assert recipe.models == ["starter:s"]
    path = bench.runs / "recipe.yaml"
    path.write_text(dump(recipe))
    assert load(path) == recipe
    assert "model" not in dump(recipe).partition("teacher:")[2].partition("curate:")[0]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"file": "x.jsonl", "model": "m"}, r"teacher\.model: would do nothing: with teacher\.file no model is asked"),
        ({"file": "x.jsonl", "sampling": {"max_tokens": 3}}, r"teacher\.sampling: would do nothing"),
        ({"file": "x.jsonl", "engine": {"max_model_len": 3}}, r"teacher\.engine: would do nothing"),
        ({"file": "x.txt"}, r"teacher\.file: must end in \.jsonl"),
        ({"file": 3}, r"teacher\.file: Input should be a valid string"),
        ({"file": "x.jsonl", "prompt": "nobody"}, r"teacher\.prompt: no prompt is called 'nobody'"),
        ({"file": "x.jsonl", "unknown_finish": "maybe"}, r"teacher\.unknown_finish: .*'answer', 'stop' or 'length'"),
        ({"file": "x.jsonl", "n": 0}, r"teacher\.n: Input should be greater than 0"),
        ({"file": "x.jsonl", "quesion": "q"}, r"teacher\.quesion: unknown key; did you mean 'question'\?"),
        ({"text": "x", "model": "m"}, r"teacher\.text: is for rationales that are there already: name their file"),
        ({"text": "x", "model": "m"}, r"teacher\.prompt: Field required"),
        ("x.jsonl", r"teacher: Should be a block of keys"),
    ],
)
def test_what_would_do_nothing_is_refused(teacher: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build({**RECIPE, "teacher": teacher}, "here")


def test_the_report_says_where_the_rationales_come_from(bench: Bench) -> None:
    from test_report import OUTCOMES, made, printed

    first = bench.problems[0]
    rows = [{"question": first.question, "text": f"So. The answer is {first.target}."}, {"question": "?", "text": "x"}]
    jsonl(bench.file, rows)
    value = made(sample={**OUTCOMES["sample"], **stage.sample(bench.context())})
    text = printed(value)
    assert "teacher pass rate (imported from rationales.jsonl)" in text
    assert (
        "imported from rationales.jsonl (read as columns): 1 of 2 rationales; 1 unmatched, 0 duplicates, 0 bad" in text
    )
    assert "row 2: unmatched, no such question in train ('?')" in text
    assert value["teacher"]["num_tokens"] is None
    assert value["stages"]["sample"]["num_tokens"] == 0
    assert "imported from" in report.markdown(value)
    assert "imported from" not in printed(made())


def test_a_hundred_thousand_rows_take_little_memory(tmp_path: Path) -> None:
    """A fifth of them, 100 MB of text: no more than a commit's is held at a time, and a hash of each."""
    path = tmp_path / "large.jsonl"
    with open(path, "w") as file:
        for i in range(20_000):
            file.write(json.dumps({"question": QUESTION, "text": f"{i} {'x' * 5_000} The answer is 7."}) + "\n")
    made = source(block(path))
    with SampleStore(tmp_path / "samples.sqlite") as store:
        campaign = store.add_campaign({"import": "large"})
        tracemalloc.start()
        counts = bring_in(store, campaign, made, Matcher(PROBLEMS, {}, named=False), silent)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert counts.by_problem == {"pets/train/1": 20_000}
    assert peak < 60_000_000


# ---- docs/teacher.md ---------------------------------------------------------------------------------------------

PAGE = (REPOSITORY / "docs" / "teacher.md").read_text()


def test_the_fragments_of_the_page_are_recipes() -> None:
    fragments = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(fragments) == 2
    for fragment in fragments:
        build({**RECIPE, **yaml.safe_load(fragment)}, "docs/teacher.md")


def test_the_page_knows_all_layouts_and_columns() -> None:
    for layout in layouts.LAYOUTS:
        for column in (layout.text, layout.id or layout.question):
            assert f"`{column}`" in PAGE
    for names in (layouts.QUESTIONS, layouts.TEXTS):
        assert " ".join(f"`{name}`" for name in names) in PAGE
    for key in ImportBlock.model_fields:
        assert f"`{key}`" in PAGE or f"{key}:" in PAGE, key
