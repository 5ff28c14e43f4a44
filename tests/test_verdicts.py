"""Stored verdicts: asked for once, given again where the grader or the gold answer changed, never for another text."""

import sqlite3
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from fcot_lite import answers, tasks, verdicts
from fcot_lite.prompts import Prompt
from fcot_lite.records import Problem, Sample, Verdict
from fcot_lite.store import SampleStore
from fcot_lite.teacher import Question
from fcot_lite.verdicts import Judged, judge, judging

PROBLEM = Problem("p/0", "What is 3 + 4?", "7")
QUESTION = Question(PROBLEM, (1, 2, 3))
RIGHT = Sample("p/0", 0, "3 + 4 = 7. The answer is 7.", None, "stop", 3, 9, 1)
WRONG = Sample("p/0", 1, "3 + 4 = 8. The answer is 8.", None, "stop", 3, 9, 2)


class Graders:
    """Counts what is graded, and can be made to grade otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        self._grade = tasks.grade
        monkeypatch.setattr(tasks, "grade", self)

    def __call__(self, text: str, *rest: object) -> Verdict:
        self.texts.append(text)
        return self._grade(text, *rest)  # type: ignore[arg-type]


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> Graders:
    return Graders(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.sqlite"


def judged(path: Path, question: Question = QUESTION, samples: tuple[Sample, ...] = (RIGHT, WRONG)) -> Judged:
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        store.put(campaign, [(question.key(s.sample_index).prompt_hash, s) for s in samples], "fake 1.0")
        return judge(store, campaign, [question], Prompt(), [samples])


def counts(judged: Judged) -> tuple[int, ...]:
    return tuple(judged.counts[name] for name in ("new", "reused", "regraded", "changed"))


def test_a_sample_is_graded_once(path: Path, graded: Graders) -> None:
    first = judged(path)
    assert [verdict.correct for verdict in first.verdicts[0]] == [True, False]
    assert counts(first) == (2, 0, 0, 0)
    graded.texts.clear()
    second = judged(path)
    assert second.verdicts == first.verdicts
    assert counts(second) == (0, 2, 0, 0)
    assert graded.texts == []


def test_only_what_is_new_is_graded(path: Path, graded: Graders) -> None:
    judged(path, samples=(RIGHT,))
    assert judged(path).counts["new"] == 1
    assert graded.texts == [RIGHT.text, WRONG.text]


def test_another_grader_grades_again_and_says_what_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(path)
    monkeypatch.setattr(answers, "GRADER_VERSION", "999")
    monkeypatch.setattr(tasks, "grade", lambda *_: Verdict(True, "8", "correct"))
    again = judged(path)
    assert counts(again) == (2, 0, 2, 1)
    # What an earlier grader said is kept beside it.
    rows = sqlite3.connect(path).execute("SELECT grader, correct FROM verdict WHERE sample_index = 1 ORDER BY 2")
    assert [correct for _, correct in rows] == [0, 1]


@pytest.mark.parametrize(
    "other", [replace(PROBLEM, target="8"), replace(PROBLEM, answer_kind="text")], ids=["gold answer", "kind"]
)
def test_another_gold_answer_or_kind_grades_again(path: Path, graded: Graders, other: Problem) -> None:
    judged(path)
    graded.texts.clear()
    again = judged(path, replace(QUESTION, problem=other))
    assert counts(again) == (2, 0, 0, 0)
    assert len(graded.texts) == 2


def test_what_was_given_up_is_not_remembered(path: Path) -> None:
    given_up = replace(RIGHT, finish_reason="abort")
    assert judged(path, samples=(given_up,)).verdicts[0][0].reason == "unfinished"
    assert judged(path, samples=(RIGHT,)).verdicts[0][0].correct


def test_what_could_not_be_judged_is_asked_again_and_is_no_wrong_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_judged = Verdict(False, "x", f"{answers.NOT_JUDGED}: math-verify took over 5 s")
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "grade", lambda *_: not_judged)
        assert judged(path).counts["not_judged"] == 2
    assert [verdict.correct for verdict in judged(path).verdicts[0]] == [True, False]


def test_a_damaged_sample_takes_its_verdict_with_it(path: Path) -> None:
    judged(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE sample SET text = 'The answer is 9.' WHERE sample_index = 0")
    with SampleStore(path) as store:
        campaign = store.add_campaign({"weights": "w"})
        assert len(store.read(campaign)) == 1
    assert judged(path, samples=(replace(RIGHT, text="The answer is 9."), WRONG)).counts["new"] == 1


def test_math_verify_is_counted(path: Path) -> None:
    problem = replace(PROBLEM, target=r"\frac{x+1}{2}", answer_kind="math")
    sample = replace(RIGHT, text=r"The answer is $\boxed{\frac{1}{2}x + 0.5}$.")
    counted = judged(path, replace(QUESTION, problem=problem), (sample,))
    assert counted.verdicts[0][0].correct
    assert counted.counts["math_verify"] == 1


def many(num_questions: int) -> list[Question]:
    return [replace(QUESTION, problem=replace(PROBLEM, id=f"p/{q}")) for q in range(num_questions)]


def stored(store: SampleStore, asked: list[Question]) -> str:
    campaign = store.add_campaign({"weights": "w"})
    pairs = [
        (question.key(0).prompt_hash, replace(sample, problem_id=question.problem.id))
        for question in asked
        for sample in (RIGHT, WRONG)
    ]
    store.put(campaign, pairs, "fake 1.0")
    return campaign


def num_stored(path: Path) -> int:
    database = sqlite3.connect(path)
    ((count,),) = database.execute("SELECT count(*) FROM verdict")
    database.close()
    return int(count)


def test_verdicts_are_stored_while_judging_goes_on_and_at_an_interrupt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "BATCH", 4)
    asked = many(5)
    counts = []

    def interrupted() -> None:
        with SampleStore(path) as store:
            campaign = stored(store, asked)
            with judging(store, campaign, Prompt()) as judge:
                for question in asked:
                    samples = store.samples(campaign, question.problem.id, question.key(0).prompt_hash)
                    assert [verdict.correct for verdict in judge.verdicts(question, samples)] == [True, False]
                    counts.append(num_stored(path))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert counts == [0, 4, 4, 8, 8]
    assert num_stored(path) == 10


def test_samples_of_a_question_may_come_one_after_the_other(path: Path, graded: Graders) -> None:
    with SampleStore(path) as store:
        campaign = stored(store, [QUESTION])
        with judging(store, campaign, Prompt()) as judge:
            one, two = judge.verdicts(QUESTION, [RIGHT]), judge.verdicts(QUESTION, [WRONG])
            # Before anything is stored the judge knows what it said itself.
            assert judge.verdicts(QUESTION, [RIGHT, WRONG]) == [*one, *two]
            assert (judge.counts["new"], judge.counts["reused"]) == (2, 2)
    assert graded.texts == [RIGHT.text, WRONG.text]


def test_memory_does_not_grow_with_the_questions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "BATCH", 20)

    def peak_bytes(num_questions: int) -> int:
        asked = many(num_questions)
        with SampleStore(path.with_name(f"{num_questions}.sqlite")) as store:
            campaign = stored(store, asked)
            tracemalloc.start()
            with judging(store, campaign, Prompt()) as judge:
                for question in asked:
                    judge.verdicts(question, store.samples(campaign, question.problem.id, question.key(0).prompt_hash))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert judge.counts["new"] == 2 * num_questions
        return peak

    peak_bytes(30)  # what is imported and cached once
    assert peak_bytes(240) < 1.2 * peak_bytes(60) + 10_000


def test_the_same_letter_of_other_choices_is_graded_again(path: Path) -> None:
    problem = replace(PROBLEM, target="B", answer_kind="choice", metadata={"choices": ["red", "blue"]})
    sample = replace(RIGHT, text="The answer is blue.")
    assert judged(path, replace(QUESTION, problem=problem), (sample,)).verdicts[0][0].correct
    swapped = replace(problem, metadata={"choices": ["blue", "red"]})
    again = judged(path, replace(QUESTION, problem=swapped), (sample,))
    assert (again.verdicts[0][0].correct, again.counts["new"]) == (False, 1)
