"""Word problems: SingleEq (Koncel-Kedziorski et al. 2015), AddSub (Hosseini et al. 2014), MultiArith (Roy & Roth 2015,
arXiv 1608.01413), GSM8K (Cobbe et al. 2021, arXiv 2110.14168), AQuA (Ling et al. 2017, arXiv 1705.04146) and SVAMP
(Patel, Bhattamishra & Goyal 2021, arXiv 2103.07191).

Some gold answers of SingleEq and AddSub are thirds and sixths in sixteen digits, 0.6666666666666666, as are the numbers
in their questions; they stand here as upstream has them.
"""

import re
from collections.abc import Mapping
from typing import Any

from fcot_lite.errors import DataError
from fcot_lite.records import Problem
from fcot_lite.tasks.commonsense import multiple_choice
from fcot_lite.tasks.sources import SOURCES, json_problems, jsonl_problems
from fcot_lite.tasks.splits import DataSet, solved_examples, template

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


AQUA_EXAMPLES = [
    (
        "A printer makes 45 pages in 3 minutes. How many pages does it make in 8 minutes? "
        "Answer choices: (A) 90, (B) 105, (C) 120, (D) 135, (E) 360.",
        "In one minute the printer makes 45 / 3 = 15 pages. In 8 minutes it makes 15 * 8 = 120 pages. "
        "The answer is (C).",
    ),
    (
        "A coat costs 80 euros after 20 % were taken off. What did it cost before? "
        "Answer choices: (A) 96 euros, (B) 100 euros, (C) 64 euros, (D) 104 euros, (E) none of these.",
        "80 euros are 80 % of the old price. One per cent is 80 / 80 = 1 euro, so the old price was 100 euros. "
        "The answer is (B).",
    ),
    (
        "For which x is 4x - 7 = 2x + 9? Answer choices: (A) 1, (B) 2, (C) 4, (D) 6, (E) 8.",
        "Taking 2x from both sides leaves 2x - 7 = 9. Adding 7 gives 2x = 16, and so x = 8. The answer is (E).",
    ),
    (
        "A bag holds 3 green and 5 yellow marbles. Two are drawn, one after the other and without putting any back. "
        "How likely is it that both are green? Answer choices: (A) 3/28, (B) 9/64, (C) 3/8, (D) 1/4, (E) 5/14.",
        "The first marble is green with a probability of 3/8. Then 2 of the 7 left are green, so the second is green "
        "with 2/7. Together that is 6/56 = 3/28. The answer is (A).",
    ),
]


def word_problem_examples(options: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    return solved_examples("word problems", WORD_PROBLEM_EXAMPLES, options, count)


def read_equations(file: str) -> list[Problem]:
    """The format that SingleEq, AddSub and MultiArith share."""
    return json_problems(file, lambda row: _word_problem(row["sQuestion"], row["lSolutions"][0]))


def read_svamp(file: str) -> list[Problem]:
    return json_problems(file, lambda row: _word_problem(f"{row['Body']} {row['Question']}", row["Answer"]))


def read_gsm8k(file: str) -> list[Problem]:
    return jsonl_problems(file, _gsm8k_problem)


def read_aqua(file: str) -> list[Problem]:
    """Raises DataError for the training file."""
    if file not in SOURCES:
        raise DataError(
            "aqua: the training file (97,467 questions, of which the paper draws 10,000) is not among the files that "
            "this project can pin; it is on the hub as deepmind/aqua_rat. Its 254 test questions are there: "
            "use them to evaluate, and another task to train"
        )
    return jsonl_problems(file, _aqua_problem)


SINGLE_EQ = DataSet("single_eq", read_equations, "zero_shot_cot/SingleEq/questions.json")
ADDSUB = DataSet("addsub", read_equations, "zero_shot_cot/AddSub/AddSub.json")
MULTIARITH = DataSet("multiarith", read_equations, "zero_shot_cot/MultiArith/MultiArith.json")
SVAMP = DataSet("svamp", read_svamp, "zero_shot_cot/SVAMP/SVAMP.json")
GSM8K = DataSet("gsm8k", read_gsm8k, "grade-school-math/test.jsonl", "grade-school-math/train.jsonl")
AQUA = DataSet("aqua", read_aqua, "zero_shot_cot/AQuA/test.json", "zero_shot_cot/AQuA/train.json")


def _word_problem(question: str, answer: str | float) -> Problem:
    question = question.strip()
    return Problem("", question, str(float(answer)).removesuffix(".0"), "number", {"group": template(question)})


def _gsm8k_problem(row: Any) -> Problem:
    question = row["question"].strip()
    steps, target = re.sub(r"<<[^<>]*>>", "", row["answer"]).split("#### ")
    solution = f"{steps.strip()}\nThe answer is {target.strip()}."
    return Problem("", question, target.strip(), "number", {"group": template(question), "solution": solution})


def _aqua_problem(row: Any) -> Problem:
    stem = row["question"].strip()
    choices = [option[len("A)") :].strip() for option in row["options"]]
    solution = f"{row['rationale'].strip()}\nThe answer is ({row['correct']})."
    return multiple_choice(stem, choices, row["correct"], template(stem), {"solution": solution})
