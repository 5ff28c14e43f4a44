"""CommonsenseQA (Talmor et al. 2019, arXiv 1811.00937) and StrategyQA (Geva et al. 2021, arXiv 2101.02235), and how the
paper puts a question with choices into words."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from fcot_lite.records import Problem
from fcot_lite.tasks.sources import json_problems, jsonl_problems
from fcot_lite.tasks.splits import DataSet, template

# Written for this project, so that they stand in no data set.
COMMONSENSE_QA_EXAMPLES = [
    (
        "Where would someone put a wet umbrella after coming home? "
        "Answer choices: (A) bookshelf, (B) stand, (C) oven, (D) wardrobe, (E) pillow.",
        "A wet umbrella drips, so it should go where water does no harm. Books, clothes and a pillow would get wet, "
        "and an oven is for cooking. An umbrella stand by the door is made for it. The answer is (B).",
    ),
    (
        "What does a gardener hope for after sowing seeds in dry soil? "
        "Answer choices: (A) wind, (B) frost, (C) snails, (D) shade, (E) rain.",
        "Seeds need water to sprout, and the soil is dry. Wind dries it more, frost and snails kill seedlings, and "
        "shade brings no water. Rain does. The answer is (E).",
    ),
    (
        "The choir had lost its sheet music, so the singers had to rely on their what? "
        "Answer choices: (A) shoes, (B) audience, (C) memory, (D) tickets, (E) stage.",
        "Without sheet music nobody can read the notes, so the singers must recall them. What recalls is memory. "
        "The answer is (C).",
    ),
    (
        "What would you use to carry soup to a neighbour without spilling it? "
        "Answer choices: (A) jar with a lid, (B) plate, (C) paper bag, (D) colander, (E) napkin.",
        "Soup is liquid. It runs off a plate, soaks a paper bag and a napkin, and drains through a colander. A jar "
        "with a lid is tight. The answer is (A).",
    ),
]
STRATEGY_QA_EXAMPLES = [
    (
        "Could a giraffe stand upright in an ordinary living room?",
        "A grown giraffe is four to six metres tall. The ceiling of an ordinary living room is about two and a half "
        "metres high. So a giraffe could not stand upright there. The answer is no.",
    ),
    (
        "Would a vegetarian be able to eat everything in a fruit salad?",
        "A vegetarian eats no meat and no fish. A fruit salad is made of fruit and perhaps some juice or sugar. "
        "None of that is meat or fish. The answer is yes.",
    ),
    (
        "Can a week contain more than one full rotation of the Earth?",
        "The Earth turns once in about a day. A week has seven days, so the Earth turns about seven times. "
        "Seven is more than one. The answer is yes.",
    ),
    (
        "Was the inventor of the printing press able to read news by e-mail?",
        "The printing press was invented in Europe in the fifteenth century. E-mail was invented in the twentieth. "
        "Its inventor was dead long before that. The answer is no.",
    ),
]


def multiple_choice(
    stem: str, choices: Sequence[str], answer: str, group: str, metadata: Mapping[str, Any] | None = None
) -> Problem:
    """A problem without id, worded as in the paper's data (github.com/itsnamgyu/reasoning-teacher at 5a5104a): a final
    "." of a choice stays in CommonsenseQA and AQuA, and goes in what comes from BIG-bench.

    Raises ValueError where `answer` is not the letter of a choice.
    """
    letters = string.ascii_uppercase[: len(choices)]
    if len(answer) != 1 or answer not in letters:
        raise ValueError(f"answer {answer!r} is not the letter of one of {len(choices)} choices")
    options = ", ".join(f"({letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
    return Problem(
        "",
        f"{stem} Answer choices: {options}.",
        answer,
        "choice",
        {"group": group, "choices": list(choices), **(metadata or {})},
    )


def read_commonsense_qa(file: str) -> list[Problem]:
    return jsonl_problems(file, _commonsense_qa_problem)


def read_strategy_qa(file: str) -> list[Problem]:
    return json_problems(file, _strategy_qa_problem)


# The answers of CommonsenseQA's own test set were never published: the paper tests on the development set.
COMMONSENSE_QA = DataSet(
    "commonsense_qa",
    read_commonsense_qa,
    "zero_shot_cot/CommonsenseQA/dev_rand_split.jsonl",
    "zero_shot_cot/CommonsenseQA/train_rand_split.jsonl",
)
STRATEGY_QA = DataSet("strategy_qa", read_strategy_qa, "zero_shot_cot/StrategyQA/task.json")


def _commonsense_qa_problem(row: Any) -> Problem:
    stem = row["question"]["stem"].strip()
    choices = [choice["text"].strip() for choice in row["question"]["choices"]]
    return multiple_choice(stem, choices, row["answerKey"], template(stem))


def _strategy_qa_problem(row: Any) -> Problem:
    question = row["input"].strip()
    answer = "yes" if row["target_scores"]["Yes"] else "no"
    # Upstream: "No. The density of a raw pear is about 0.59 g/cm^3. …"
    stated, _, rationale = row["target"].partition(". ")
    if stated.lower() != answer:
        raise ValueError(f"target says {stated!r}, target_scores {answer!r}")
    solution = f"{rationale.strip()}\nThe answer is {answer}."
    return Problem("", question, answer, "yes_no", {"group": template(question), "solution": solution})
