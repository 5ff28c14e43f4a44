"""Word problems: GSM8K (Cobbe et al. 2021, arXiv 2110.14168), MultiArith (Roy & Roth 2015, arXiv 1608.01413) and
SVAMP (Patel, Bhattamishra & Goyal 2021, arXiv 2103.07191).

Test splits are those of Ho, Schmid & Yun 2023 (arXiv 2212.10071). Validation is taken out of train, and a train
question whose text also stands in test is left out: it would be a test question the student has seen. In MultiArith
this is 5 of 420 (the data set holds 20 exact duplicates); GSM8K has none.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fcot_lite.errors import DataError, RecipeError
from fcot_lite.records import Problem
from fcot_lite.tasks.sources import read_source
from fcot_lite.tasks.splits import hold_out, shuffled, without

# Written for this project, so that they stand in no data set.
WORD_PROBLEM_EXAMPLES = [
    (
        "A baker fills 6 trays with 8 rolls each and sells 31 of the rolls before noon. How many rolls are left?",
        "The baker makes 6 * 8 = 48 rolls. After selling 31 there are 48 - 31 = 17 rolls left. The answer is 17.",
    ),
    (
        "Ines has 54 euros. She buys 3 lamps for 12 euros each and a rug for half of what is left. "
        "How many euros does she have in the end?",
        "The lamps cost 3 * 12 = 36 euros, so 54 - 36 = 18 euros are left. The rug costs 18 / 2 = 9 euros. "
        "She has 18 - 9 = 9 euros in the end. The answer is 9.",
    ),
    (
        "A ferry carries 45 cars per crossing. It makes 4 crossings in the morning and 3 in the afternoon, always "
        "full. On the last one 7 cars are turned away. How many cars wanted to cross?",
        "The ferry makes 4 + 3 = 7 crossings. It carries 7 * 45 = 315 cars. With the 7 turned away, "
        "315 + 7 = 322 cars wanted to cross. The answer is 322.",
    ),
    (
        "Tomas reads 20 pages on Monday and twice as many on Tuesday. His book has 150 pages. "
        "If he reads 18 pages on each day after that, how many more days does he need?",
        "On Tuesday he reads 2 * 20 = 40 pages. Together that is 20 + 40 = 60 pages, so 150 - 60 = 90 pages are left. "
        "At 18 pages a day he needs 90 / 18 = 5 more days. The answer is 5.",
    ),
]


def load_gsm8k(split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """Test is upstream's test file, train and validation upstream's train file; an id ends in the row's index there."""
    _refuse_options("gsm8k", options)
    test = _gsm8k_rows("test")
    return _choose("gsm8k", split, limit, _gsm8k_rows("train") if split != "test" else [], test)


def load_multiarith(split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """70 % train and 30 % test of upstream's one file, as in the paper; an id ends in the row's index there."""
    _refuse_options("multiarith", options)
    file = "zero_shot_cot/MultiArith/MultiArith.json"
    return _one_file("multiarith", file, lambda row: (row["sQuestion"], row["lSolutions"][0]), split, limit)


def load_svamp(split: str, options: Mapping[str, Any], limit: int | None) -> list[Problem]:
    """Split as MultiArith is: 700 train and 300 test of upstream's one file."""
    _refuse_options("svamp", options)
    file = "zero_shot_cot/SVAMP/SVAMP.json"
    return _one_file("svamp", file, lambda row: (f"{row['Body']} {row['Question']}", row["Answer"]), split, limit)


def word_problem_examples(options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    _refuse_options("word problems", options)
    if count > len(WORD_PROBLEM_EXAMPLES):
        raise RecipeError(f"{count} solved examples asked for; word problems have {len(WORD_PROBLEM_EXAMPLES)}")
    return WORD_PROBLEM_EXAMPLES[:count]


def _choose(name: str, split: str, limit: int | None, train: list[Problem], test: list[Problem]) -> list[Problem]:
    if split == "test":
        return shuffled(test, f"{name}/test/order")[:limit]
    kept, validation = hold_out(without(train, test), f"{name}/validation")
    if split == "train":
        return shuffled(kept, f"{name}/train/order")[:limit]
    return [
        Problem(
            problem.id.replace("/train/", "/validation/"), problem.question, problem.target, "number", problem.metadata
        )
        for problem in shuffled(validation, f"{name}/validation/order")[:limit]
    ]


def _gsm8k_rows(split: str) -> list[Problem]:
    name = f"grade-school-math/{split}.jsonl"
    problems = []
    # Split at b"\n" alone: str.splitlines would also cut at a U+2028 inside a question.
    for index, line in enumerate(read_source(name).removesuffix(b"\n").split(b"\n")):
        where = f"{name}:{index + 1}"
        row = _json(line, where)
        try:
            question = row["question"].strip()
            steps, target = re.sub(r"<<[^<>]*>>", "", row["answer"]).split("#### ")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(f'{where}: not a row {{"question": …, "answer": "… #### n"}}') from None
        solution = f"{steps.strip()}\nThe answer is {target.strip()}."
        problems.append(Problem(f"gsm8k/{split}/{index}", question, target.strip(), "number", {"solution": solution}))
    return problems


def _one_file(
    name: str, file: str, fields: Callable[[Any], tuple[str, float]], split: str, limit: int | None
) -> list[Problem]:
    """A data set in one JSON file, whose rows `fields` takes apart into question and answer."""
    import numpy as np

    problems = []
    rows = _json(read_source(file), file)
    for index, row in enumerate(rows):
        try:
            question, answer = fields(row)
            problems.append((question.strip(), str(float(answer)).removesuffix(".0")))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise DataError(f"{file}: row {index} has no question, or no number for its answer") from None
    # The paper's split, from its published index files: RandomState(0).permutation(n), the first round(0.7 n) train.
    order = np.random.RandomState(0).permutation(len(rows)).tolist()
    num_train = round(0.7 * len(rows))
    train = [Problem(f"{name}/train/{i}", *problems[i]) for i in sorted(order[:num_train])]
    test = [Problem(f"{name}/test/{i}", *problems[i]) for i in sorted(order[num_train:])]
    return _choose(name, split, limit, train, test)


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None


def _refuse_options(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise RecipeError(f"{name}: unknown option {next(iter(options))!r}; a data set has none")
