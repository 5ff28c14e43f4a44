"""Curation: every sample is kept or dropped for a reason, and what is kept is right, whole and said once."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite.answers import grade
from fcot_lite.curate import curate, rationale
from fcot_lite.prompts import METHODS, Prompt, completion, completion_ids, prompt_ids, whole_text
from fcot_lite.recipe import CurateBlock
from fcot_lite.records import Problem, Sample

PROBLEM = Problem("p/0", "Start with 3. Add 4. What is the result?", "7")
CHAT = [{"role": "user", "content": PROBLEM.question}]
ROOMY = CurateBlock(max_length=10_000)


CHAT_PROMPT = Prompt()


def curated_by(
    problems: Any, samples: Any, *rest: Any, teacher: Prompt = CHAT_PROMPT, student: Prompt = CHAT_PROMPT
) -> Any:
    verdicts = [
        [grade(whole_text(teacher, sample), problem, finish_reason=sample.finish_reason) for sample in row]
        for problem, row in zip(problems, samples, strict=True)
    ]
    return curate(problems, samples, verdicts, *rest, teacher_prompt=teacher, student_prompt=student)


def sample(text: str, index: int = 0, finish_reason: Any = "stop") -> Sample:
    return Sample("p/0", index, text, None, finish_reason, 9, 9, index)


def reasons(tokenizer: Any, samples: list[Sample], block: CurateBlock = ROOMY) -> dict[int, str]:
    """Sample index → "kept" or why not."""
    curated = curated_by([PROBLEM], [samples], [CHAT], tokenizer, block)
    return {
        **{example.sample_index: "kept" for example in curated.examples},
        **{dropped.sample_index: dropped.reason for dropped in curated.dropped},
    }


def test_what_is_dropped_says_why(tokenizer: Any) -> None:
    samples = [
        sample("3 + 4 = 7. The answer is 7.", 0),
        sample("3 + 4 = 8. The answer is 8.", 1),
        sample("3 + 4 = 7.", 2),
        sample("3 + 4 = 7. The answer is 7.", 3, "length"),
        sample("The answer is 7. No, the answer is 8.", 4),
        sample("3 + 4 = 7. Answer: 7", 5),
        sample("3 + 4 = 7. The answer is 7.", 6, "repetition"),
        sample("", 7),
        sample("4 + 3 = 7. The answer is 7.", 8),
    ]
    assert reasons(tokenizer, samples) == {
        0: "kept",
        1: "wrong",
        2: "no answer",
        3: "unfinished",
        4: "conflicting answers",
        5: "duplicate",  # the same reasoning; only the announcement differs
        6: "unfinished",
        7: "no answer",
        8: "kept",
    }


TEXTS = st.sampled_from(
    ["3 + 4 = 7. The answer is 7.", "4 + 3 = 7. The answer is 7.", "The answer is 7.", "#### 7", "The answer is 8.", ""]
) | st.text(max_size=20)
FINISHES = st.sampled_from(["stop", "stop", "stop", "length", "abort", "error", "repetition"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(TEXTS, FINISHES), max_size=6), min_size=1, max_size=4),
    st.integers(1, 60),
    st.none() | st.integers(1, 3),
)
def test_kept_and_dropped_are_what_came_in(
    tokenizer: Any, drawn: list[list[tuple[str, str]]], max_length: int, max_per_problem: int | None
) -> None:
    problems = [replace(PROBLEM, id=f"p/{i}") for i in range(len(drawn))]
    samples = [
        [replace(sample(text, i, finish), problem_id=problem.id) for i, (text, finish) in enumerate(row)]
        for problem, row in zip(problems, drawn, strict=True)
    ]
    block = CurateBlock(max_length=max_length, max_per_problem=max_per_problem)
    curated = curated_by(problems, samples, [CHAT] * len(problems), tokenizer, block)
    came_in = [(s.problem_id, s.sample_index) for row in samples for s in row]
    went_out = [(row.problem_id, row.sample_index) for row in [*curated.examples, *curated.dropped]]
    assert sorted(went_out) == sorted(came_in)
    assert sum(curated.counts().values()) + len(curated.examples) == len(came_in)
    texts = {(s.problem_id, s.sample_index): s for row in samples for s in row}
    prompt = prompt_ids(tokenizer, CHAT, "p/0")
    for example in curated.examples:
        source = texts[example.problem_id, example.sample_index]
        assert source.finish_reason == "stop"
        assert grade(example.completion, PROBLEM).correct
        assert len(prompt) + len(completion_ids(tokenizer, example.completion)) <= max_length
        assert example.completion.removesuffix("The answer is 7.").strip() in source.text
    per_problem = Counter(example.problem_id for example in curated.examples)
    assert max(per_problem.values(), default=0) <= (max_per_problem or 6)
    completions = [(example.problem_id, example.completion) for example in curated.examples]
    assert len(set(completions)) == len(completions)


def test_a_row_that_fits_exactly_stays_and_one_token_less_drops_it_whole(tokenizer: Any) -> None:
    text = "3 + 4 = 7. The answer is 7."
    length = len(prompt_ids(tokenizer, CHAT, "p/0")) + len(completion_ids(tokenizer, "3 + 4 = 7.\nThe answer is 7."))
    assert reasons(tokenizer, [sample(text)], CurateBlock(max_length=length)) == {0: "kept"}
    assert reasons(tokenizer, [sample(text)], CurateBlock(max_length=length - 1)) == {0: "over max_length"}


def test_the_first_ones_of_a_problem_stay(tokenizer: Any) -> None:
    samples = [sample(f"Way {word}. The answer is 7.", i) for i, word in enumerate(["a", "a", "b", "c"])]
    block = CurateBlock(max_length=10_000, max_per_problem=2)
    assert reasons(tokenizer, samples, block) == {0: "kept", 1: "duplicate", 2: "kept", 3: "over max_per_problem"}


def test_the_same_words_teach_two_problems(tokenizer: Any) -> None:
    problems = [PROBLEM, replace(PROBLEM, id="p/1")]
    samples = [[sample("3 + 4. The answer is 7.")], [replace(sample("3 + 4. The answer is 7."), problem_id="p/1")]]
    assert len(curated_by(problems, samples, [CHAT, CHAT], tokenizer, ROOMY).examples) == 2


def test_the_label_is_the_gold_answer(tokenizer: Any) -> None:
    problem = replace(PROBLEM, target="1234")
    curated = curated_by([problem], [[sample("It is so. The answer is $1,234.00 dollars!")]], [CHAT], tokenizer, ROOMY)
    (example,) = curated.examples
    assert example.completion == "It is so.\nThe answer is 1234."
    assert (example.prompt, example.problem_id, example.sample_index) == (tuple(CHAT), "p/0", 0)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("3 + 4 = 7. The answer is 7.", "3 + 4 = 7."),
        ("3 + 4 = 7.\n\nThe answer is 7", "3 + 4 = 7."),
        ("3 + 4 = 7. So the answer is 7.", "3 + 4 = 7."),
        ("3 + 4 = 7. Therefore, the final answer is **7**.", "3 + 4 = 7."),
        ("3 + 4 = 7.\nAnswer: 7", "3 + 4 = 7."),
        ("3 + 4 = 7.\n**Answer:** 7", "3 + 4 = 7."),
        ("3 + 4 = 7.\n**Final answer**: 7", "3 + 4 = 7."),
        ("3 + 4 = 7.\nThe final answer is: $\\boxed{7}$", "3 + 4 = 7."),
        ("3 + 4 = 7\n#### 7", "3 + 4 = 7"),
        ("3 + 4 = 7. THE ANSWER IS 7.", "3 + 4 = 7."),
        ("The answer is 7. To see this, add 4 to 3.", ""),  # what follows an answer is no way to it
        ("The answer is found by adding. 3 + 4 = 7. The answer is 7.", "The answer is found by adding. 3 + 4 = 7."),
        ("We need the answer to a sum. 3 + 4 = 7. The answer is 7.", "We need the answer to a sum. 3 + 4 = 7."),
        ("Answer: 3 + 4 = 7. The answer is 7.", "Answer: 3 + 4 = 7."),
        ("The answer is 7.", ""),
        ("Answer: 7", ""),
        ("#### 7", ""),
        ("", ""),
        ("  \n ", ""),
        ("3 + 4 = 7", "3 + 4 = 7"),
    ],
)
def test_the_reasoning_is_what_stands_before_the_answer(text: str, reasoning: str) -> None:
    assert rationale(CHAT_PROMPT, sample(text), PROBLEM) == reasoning


@pytest.mark.parametrize(
    ("method", "said", "answer_text", "reasoning"),
    [
        ("zero_shot", " 7.", None, ""),
        ("zero_shot", " 7. For 3 + 4 is that.", None, ""),
        ("fine_tune_paper", " 7 ", None, ""),
        ("fine_tune_cot_paper", " 3 + 4 = 7. --> 7 ", None, "3 + 4 = 7."),
        ("fine_tune_cot_paper", " 3 + 4 --> 7 ", None, "3 + 4"),
        ("fine_tune_cot_paper", " 3 --> 7. --> 7 ", None, "3 --> 7."),
        ("fine_tune_cot_paper", " 3 + 4 = 7. The answer is 7. --> 7 ", None, "3 + 4 = 7."),
        ("fine_tune_cot_paper", " 3 + 4 = 7. The answer is 7.", None, "3 + 4 = 7."),
        ("fine_tune_cot_gpt3", " 3 + 4 = 7.\n\n-->\n\n7 ", None, "3 + 4 = 7."),
        ("zero_shot_cot", " 3 + 4 = 7.", " 7.", "3 + 4 = 7."),
        ("zero_shot_cot", " 3 + 4 = 7. The answer is 7.", " 7.", "3 + 4 = 7."),
        ("zero_shot_cot", " The answer is 7.", " 7.", ""),
    ],
)
@pytest.mark.parametrize("student", ["fine_tune_cot", "fine_tune_cot_paper", "fine_tune_cot_gpt3"])
def test_the_answer_is_taught_once(
    tokenizer: Any, student: str, method: str, said: str, answer_text: str | None, reasoning: str
) -> None:
    drawn = replace(sample(said), answer_text=answer_text)
    assert rationale(METHODS[method], drawn, PROBLEM) == reasoning
    prompt = METHODS[student]
    curated = curated_by([PROBLEM], [[drawn]], [CHAT], tokenizer, ROOMY, teacher=METHODS[method], student=prompt)
    if not reasoning:
        assert curated.counts() == {"no rationale": 1}
        return
    (example,) = curated.examples
    assert example.completion == completion(prompt, reasoning, "7", "The answer is 7.")
    label = sample(example.completion.partition("END")[0])
    assert grade(whole_text(prompt, label), PROBLEM).correct, "the student that says it is right"
    assert rationale(prompt, label, PROBLEM) == reasoning, "and may teach in turn"


def test_curating_what_was_curated_changes_nothing(tokenizer: Any) -> None:
    """The announcement is cut as often as it is added: none is left over, none is said twice."""
    for text in ("3 + 4 = 7. Answer: 7", "Add.\n#### 7", "Add. So the final answer is 7.", "So: 3 + 4.\n\\boxed{7}"):
        (once,) = curated_by([PROBLEM], [[sample(text)]], [CHAT], tokenizer, ROOMY).examples
        (twice,) = curated_by([PROBLEM], [[sample(once.completion)]], [CHAT], tokenizer, ROOMY).examples
        assert twice.completion == once.completion


@pytest.mark.parametrize("part", [" ", "\n", ". ", "a ", "* ", "#", "\n\t", ".the ", "answer ", "the final "])
def test_long_repetitions_take_no_time(part: str) -> None:
    started = time.process_time()
    rationale(CHAT_PROMPT, sample(part * 50_000), PROBLEM)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: Start with 3. 3 + 4 = 7. Thus we conclude that the answer is 7.", "Answer: Start with 3. 3 + 4 = 7."),
        ("Answer:\nFirst 3.\nThen 4.\n\\[\\boxed{7}\\]", "Answer:\nFirst 3.\nThen 4."),
        (
            "The answer is found by adding. 3 + 4. So after all that, the answer is 7.",
            "The answer is found by adding. 3 + 4.",
        ),
    ],
)
def test_the_rationale_ends_where_the_grader_read_the_answer(text: str, expected: str) -> None:
    assert rationale(CHAT_PROMPT, sample(text), PROBLEM) == expected


def test_an_answer_without_reasoning_teaches_nothing(tokenizer: Any) -> None:
    curated = curated_by([PROBLEM], [[sample("The answer is 7.")]], [CHAT], tokenizer, ROOMY)
    assert curated.examples == []
    assert curated.counts() == {"no rationale": 1}
