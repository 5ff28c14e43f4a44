"""Curation: every sample is kept or dropped for a reason, and what is kept is right, whole and said once."""

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from statistics import median_low
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.answers import grade
from fcot_lite.curate import REASONS, curate, rationale, reasoning_fault
from fcot_lite.curate_block import CurateBlock
from fcot_lite.prompts import METHODS, Prompt, completion, completion_ids, prompt_ids, whole_text
from fcot_lite.records import Problem, Sample, Verdict

PROBLEM = Problem("p/0", "Start with 3. Add 4. What is the result?", "7")
CHAT = [{"role": "user", "content": PROBLEM.question}]
ROOMY = CurateBlock(max_length=10_000)


CHAT_PROMPT = Prompt()


def curated_by(
    problems: Any, samples: Any, *rest: Any, teacher: Prompt = CHAT_PROMPT, student: Prompt = CHAT_PROMPT, **more: Any
) -> Any:
    verdicts = [
        [grade(whole_text(teacher, sample), problem, finish_reason=sample.finish_reason) for sample in row]
        for problem, row in zip(problems, samples, strict=True)
    ]
    return curate(problems, samples, verdicts, *rest, teacher_prompt=teacher, student_prompt=student, **more)


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
    [
        "3 + 4 = 7. The answer is 7.",
        "4 + 3 = 7. The answer is 7.",
        "**3 + 4  = 7.** The answer is 7.",
        "3 + 4 = 8. The answer is 7.",
        "Add 4 to 3. The answer is 7.",
        "The answer is 7.",
        "#### 7",
        "3 + 4 = 8. The answer is 8.",
        "",
    ]
) | st.text(max_size=20)
FINISHES = st.sampled_from(["stop", "stop", "stop", "length", "abort", "error", "repetition"])
BLOCKS = st.builds(
    CurateBlock,
    max_length=st.integers(1, 90),
    filter=st.sampled_from(["none", "answer"]),
    check=st.sampled_from(["off", "arithmetic", "golden"]),
    ngram_overlap=st.sampled_from(["report", "drop"]),
    near_duplicates=st.sampled_from([None, 0.7, 1.0]),
    max_per_problem=st.none() | st.integers(1, 3),
    select=st.sampled_from(["first", "shortest", "equations", "text"]),
    balance=st.booleans(),
    size_match=st.sampled_from([None, "arithmetic", "golden"]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.tuples(TEXTS, FINISHES), max_size=6), min_size=1, max_size=4),
    BLOCKS,
    st.booleans(),
    st.integers(0, 4),
)
def test_kept_and_dropped_are_what_came_in(
    tokenizer: Any, drawn: list[list[tuple[str, str]]], block: CurateBlock, answer_only: bool, num_in_test: int
) -> None:
    problems = [replace(PROBLEM, id=f"chain_arithmetic/train/{i}") for i in range(len(drawn))]
    samples = [
        [replace(sample(text, i, finish), problem_id=problem.id) for i, (text, finish) in enumerate(row)]
        for problem, row in zip(problems, drawn, strict=True)
    ]
    test = [replace(PROBLEM, id="test", question=PROBLEM.question.upper())] * (num_in_test > 3)
    student = METHODS["fine_tune"] if answer_only else CHAT_PROMPT
    chats = [CHAT] * len(problems)
    curated = curated_by(problems, samples, chats, tokenizer, block, student=student, test=test)
    came_in = [(s.problem_id, s.sample_index) for row in samples for s in row]
    if answer_only:
        came_in += [(problem.id, None) for problem in problems]
    went_out = [(row.problem_id, row.sample_index) for row in [*curated.examples, *curated.dropped]]
    assert sorted(went_out, key=str) == sorted(came_in, key=str)
    assert sum(curated.counts().values()) + len(curated.examples) == len(came_in) == curated.input
    assert all(reason.startswith(REASONS) for reason in curated.counts())
    texts = {(s.problem_id, s.sample_index): s for row in samples for s in row}
    prompt = prompt_ids(tokenizer, CHAT, "p/0")
    for example in curated.examples:
        assert grade(example.completion, PROBLEM).correct
        assert len(prompt) + len(completion_ids(tokenizer, example.completion)) <= block.max_length
        assert not test
        if not answer_only:
            source = texts[example.problem_id, example.sample_index]
            assert source.finish_reason == "stop"
            reasoning = example.completion.removesuffix("The answer is 7.").strip()
            assert reasoning in source.text
            assert reasoning_fault(block.check, reasoning, PROBLEM) is None or block.check == "golden"
    per_problem = Counter(example.problem_id for example in curated.examples)
    assert max(per_problem.values(), default=0) <= (block.max_per_problem or 6)
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
    assert time.process_time() - started < 10  # minutes where it grew with the square


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


# --- the reasons in their order ---------------------------------------------------------------------------------------

CHAIN = Problem("chain_arithmetic/train/0", "Start with 3. Add 4. Subtract 2. What is the result?", "5")
WAYS = [
    "3 + 4 = 7. 7 - 2 = 5. The answer is 5.",
    "First 3 + 4 = 7. Then 7 - 2 = 5. The answer is 5.",
    "3 + 4 = 8. 8 - 2 = 6. The answer is 5.",  # right by accident
    "Just add and subtract. The answer is 5.",
    "3 + 4 = 7. 7 - 2 = 6. The answer is 6.",
    "3 + 4 = 7. 7 - 2 = 5. No doubt at all.",
    "Start with 3 + 4 = 7. Now 7 - 2 = 5. The answer is 5.",
]


def of_chain(
    tokenizer: Any, texts: list[str] = WAYS, student: Prompt = CHAT_PROMPT, test: Any = (), seed: int = 0, **block: Any
) -> Any:
    drawn = [replace(sample(text, i), problem_id=CHAIN.id) for i, text in enumerate(texts)]
    block = {"max_length": 10_000} | block
    return curated_by([CHAIN], [drawn], [CHAT], tokenizer, CurateBlock(**block), student=student, test=test, seed=seed)


def kept(curated: Any) -> list[int | None]:
    return [example.sample_index for example in curated.examples]


def test_the_arms_of_the_paper(tokenizer: Any) -> None:
    none = of_chain(tokenizer, filter="none")
    assert kept(none) == [0, 1, 2, 3, 4, 5, 6]
    assert all(example.completion.endswith("The answer is 5.") for example in none.examples)  # gold, whatever was said
    assert none.examples[4].completion == "3 + 4 = 7. 7 - 2 = 6.\nThe answer is 5."
    answer = of_chain(tokenizer)
    assert kept(answer) == [0, 1, 2, 3, 6]
    assert answer.counts() == {"no answer": 1, "wrong": 1}
    arithmetic = of_chain(tokenizer, check="arithmetic")
    assert kept(arithmetic) == [0, 1, 3, 6]
    golden = of_chain(tokenizer, check="golden")
    assert kept(golden) == [0, 1, 6]
    assert golden.counts() == {"no answer": 1, "wrong": 1, "golden: wrong step": 1, "golden: not followed": 1}
    details = {row.sample_index: row.detail for row in golden.dropped}
    assert "7" in details[2]
    assert details[3] == "0 of 2 steps"
    matched = of_chain(tokenizer, size_match="golden")
    assert len(kept(matched)) == 3
    assert set(kept(matched)) < set(kept(answer))
    assert matched.counts() == {"no answer": 1, "wrong": 1, "size_match": 2}
    only = of_chain(tokenizer, student=METHODS["fine_tune"])
    assert [example.completion for example in only.examples] == ["The answer is 5."]
    assert (only.counts(), only.input) == ({"answer only": 7}, 8)


def test_the_random_part_follows_from_the_seed_alone(tokenizer: Any) -> None:
    draws = [tuple(kept(of_chain(tokenizer, size_match="golden", seed=seed))) for seed in range(12)]
    assert draws == [tuple(kept(of_chain(tokenizer, size_match="golden", seed=seed))) for seed in range(12)]
    assert len(set(draws)) > 2
    assert any(not set(draw) <= {0, 1, 6} for draw in draws)  # and not from what golden would have kept


def test_what_cannot_be_matched_in_size_is_matched_as_far_as_it_goes(tokenizer: Any) -> None:
    assert kept(of_chain(tokenizer, [WAYS[3]], size_match="golden")) == []
    assert kept(of_chain(tokenizer, WAYS[:2], size_match="golden")) == [0, 1]


def test_each_row_goes_for_the_first_reason_in_the_order(tokenizer: Any) -> None:
    in_test = [replace(CHAIN, id="chain_arithmetic/test/9", question=CHAIN.question.lower())]
    texts = [
        "",
        WAYS[4],
        "The answer is 5.",
        WAYS[2],
        WAYS[3],
        WAYS[0],
        WAYS[0] + " " * 3,
        "3 + 4 = 7. " * 2000 + WAYS[0],
    ]
    curated = of_chain(tokenizer, texts, check="golden", test=in_test, max_length=1000)
    assert [(row.sample_index, row.reason) for row in curated.dropped] == [
        (0, "no answer"),
        (1, "wrong"),
        (2, "no rationale"),
        (3, "golden: wrong step"),
        (4, "golden: not followed"),
        (5, "question in test"),
        (6, "question in test"),  # not "duplicate"
        (7, "over max_length"),
    ]
    assert list(curated.counts()) == [
        "no answer", "wrong", "no rationale", "golden: wrong step", "golden: not followed", "over max_length",
        "question in test",
    ]  # fmt: skip
    assert curated.dropped[5].detail == "chain_arithmetic/test/9"


def test_who_judged_stays_in_the_reason_and_takes_its_place(tokenizer: Any) -> None:
    texts = ["a", "b", "c", "d"]
    drawn = [sample(text, i) for i, text in enumerate(texts)]
    reasons = ["wrong (math-verify)", "not judged: in words", "conflicting answers", "wrong (rg:sudoku)"]
    judged = [Verdict(False, "1", reason) for reason in reasons]
    curated = curate(
        [PROBLEM], [drawn], [judged], [CHAT], tokenizer, ROOMY, teacher_prompt=CHAT_PROMPT, student_prompt=CHAT_PROMPT
    )
    assert sorted(curated.counts()) == sorted(reasons)
    assert list(curated.counts())[:2] == ["conflicting answers", "not judged: in words"]


def test_near_duplicates_go_after_exact_ones(tokenizer: Any) -> None:
    texts = [WAYS[0], WAYS[0] + " ", "**3 + 4 = 7.**\n\n7 - 2 = 5.\nThe answer is 5.", WAYS[1]]
    assert kept(of_chain(tokenizer, texts)) == [0, 2, 3]
    curated = of_chain(tokenizer, texts, near_duplicates=1.0)
    assert [(row.sample_index, row.reason, row.detail) for row in curated.dropped] == [
        (1, "duplicate", "of sample 0"),
        (2, "near duplicate", "of sample 0"),
    ]


def test_a_question_of_test_teaches_no_answer_either(tokenizer: Any) -> None:
    curated = of_chain(tokenizer, student=METHODS["fine_tune"], test=[replace(CHAIN, id="test")])
    assert curated.examples == []
    assert curated.counts() == {"answer only": 7, "question in test": 1}


def test_thirteen_words_in_common_drop_only_where_the_recipe_says_so(tokenizer: Any) -> None:
    train, test = (tasks.load("generated_coin_flip", split, limit=20) for split in ("train", "test"))
    drawn = [[Sample(p.id, 0, p.metadata["solution"], None, "stop", 9, 9, 0)] for p in train]
    chats = [[{"role": "user", "content": p.question}] for p in train]
    curated = curated_by(train, drawn, chats, tokenizer, ROOMY, test=test)
    assert len(curated.examples) == 20
    assert curated.contamination.ngram == 20
    block = ROOMY.model_copy(update={"ngram_overlap": "drop"})
    curated = curated_by(train, drawn, chats, tokenizer, block, test=test)
    assert curated.counts() == {"13-gram in test": 20}


# --- hostile input ----------------------------------------------------------------------------------------------------


def test_nothing_came_in(tokenizer: Any) -> None:
    curated = curated_by([], [], [], tokenizer, ROOMY)
    assert (curated.examples, curated.dropped, curated.input, curated.counts()) == ([], [], 0, {})
    curated = curated_by(
        [PROBLEM], [[]], [CHAT], tokenizer, CurateBlock(max_length=9, balance=True, size_match="golden")
    )
    assert (curated.examples, curated.input) == ([], 0)


def test_a_huge_row_is_dropped_whole_and_the_others_stay(tokenizer: Any) -> None:
    curated = of_chain(tokenizer, [WAYS[0], "3 + 4 = 7. " * 20_000 + WAYS[0]], max_length=200, near_duplicates=0.8)
    assert kept(curated) == [0]
    assert curated.counts() == {"over max_length": 1}


def test_any_script_goes_through(tokenizer: Any) -> None:
    texts = [
        "三加四得七，減二得五。The answer is 5.",
        "ثلاثة زائد أربعة. The answer is 5.",
        "\u2028😀 So. The answer is 5.",
    ]
    assert kept(of_chain(tokenizer, texts, near_duplicates=0.8, check="arithmetic")) == [0, 1, 2]


# --- balance ----------------------------------------------------------------------------------------------------------


def test_easy_questions_do_not_dominate(tokenizer: Any) -> None:
    problems = [replace(PROBLEM, id=f"p/{i}") for i in range(5)]
    sizes = [8, 8, 3, 1, 0]
    drawn = [
        [replace(sample(f"Way {n}. The answer is 7.", n), problem_id=p.id) for n in range(size)]
        for p, size in zip(problems, sizes, strict=True)
    ]
    curated = curated_by(problems, drawn, [CHAT] * 5, tokenizer, ROOMY.model_copy(update={"balance": True}))
    cap = median_low([8, 8, 3, 1])
    assert Counter(example.problem_id for example in curated.examples) == {"p/0": cap, "p/1": cap, "p/2": cap, "p/3": 1}
    assert curated.counts() == {"balance": 10}


# --- the same on every machine ----------------------------------------------------------------------------------------

PROGRAM = """
from fcot_lite.selection import chosen, near_duplicates
words = [f"w{i}" for i in range(40)]
texts = [" ".join([*words[:n], "x", *words[n + 1 :]]) for n in range(40)]
print(near_duplicates(texts, 0.7), [sorted(chosen(texts, [1] * 40, 7, by)) for by in ("equations", "text")])
"""


def test_the_hash_seed_of_python_changes_nothing() -> None:
    outputs = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert ": " in outputs[0]  # there are near duplicates


def test_work_grows_with_the_rows(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting: each text is tokenised once, whatever the number of questions."""
    from fcot_lite import curate as module

    calls = Counter[str]()
    real = module.completion_ids

    def counting(tokenizer: Any, text: str) -> Any:
        calls["completion_ids"] += 1
        return real(tokenizer, text)

    monkeypatch.setattr(module, "completion_ids", counting)
    for number in (20, 40):
        calls.clear()
        problems = [replace(PROBLEM, id=f"p/{i}") for i in range(number)]
        drawn = [
            [replace(sample(f"Way {n}. The answer is 7.", n), problem_id=p.id) for n in range(5)] for p in problems
        ]
        block = ROOMY.model_copy(update={"near_duplicates": 0.8, "balance": True})
        curated_by(problems, drawn, [CHAT] * number, tokenizer, block)
        assert calls["completion_ids"] == 5 * number
