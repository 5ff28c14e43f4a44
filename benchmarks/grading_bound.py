"""The slowest texts of a megabyte that we know: what the built-in kinds need for each, as CPU time of one core.

    python benchmarks/grading_bound.py      # some minutes; writes results/grading_bound.json

A text is one unit over and over, behind one of several beginnings. Every kind judges it in strict, flexible and both of
the paper's modes. The best of three turns counts: the machine is shared, and what it does elsewhere only adds.
"""

import json
import sys
import time
from pathlib import Path

from fcot_lite import answers
from fcot_lite.records import Problem

LENGTH = 1_000_000
FIRST_LOOK, WORTH_A_LOOK = 10, 6.0  # a tenth of the text first: below this many ms for all of it, it is not among them
SHOWN = 12
CHOICES = {"choices": ["5", "7", "5 or 7", "a ball", ""]}
PROBLEMS = [
    Problem("gsm8k/test/0", "", "5"),
    Problem("svamp/test/0", "", "0.8333333333333334"),
    Problem("aqua/test/0", "", "B", "choice", CHOICES),
    Problem("commonsense_qa/test/0", "", "B", "choice", {"choices": [""] * 5}),
    Problem("coin_flip/test/0", "", "yes", "yes_no"),
    Problem("last_letter_concatenation/test/0", "", "nyda", "letters"),
    Problem("own/own/0", "", "St. Louis", "text"),
    Problem("own/own/1", "", "3\n2 4", "text"),
    Problem("own/own/2", "", r"\frac{\sqrt{3}}{2}", "math"),
    Problem("own/own/3", "", "5", "math"),
]
UNITS = [
    *("07aABx(){}[]$\\#*_-\u2013.,;:!?=+/^%<>'\"`½\u00b2\u0663\uff15\u00e9\u20a9\u0301\U0001f600"),
    " ", "\n", "\t", "\0", "\r", "\u00a0", "\u2009", "\u2028", "\ud800", "\u200b", "1,", ",1", "1.", "1 ", "1\n",
    "1/", "1/2 ", "-1", "1e9", "1,234", "1,23", "1\u2009234", "10**", "9^{", "5 + ", "= 5", "a,b,", "a ", "a-", "ab ",
    "A) ", "(A) ", "A. ", "B or ", "yes ", "yes no ", "no, ", "not ", "\n\n", "a\n", "\n- ", "answer", "nswer",
    "Answer", "answer ", "answer:", "Answer:\n", "answer is", "answer is ", "the answer is ", "The answer is 5. ",
    "answer is 1 ", "answer is not ", "The answer is (B). ", "The answer is yes. ", "The answer is <",
    "If the answer is 5, ", "<answer>", "</answer>", "#### ", "#### 5\n", "### Answer\n", "\\boxed{", "\\boxed{5}",
    "\\boxed{}", "boxed{", "\\boxed", "{}", "\\{", "\\frac{", "\\frac12", "\\text{", "$5$ ", "\\(", "\\(5\\) ", "\\[",
    "**", "* ", "correct option is ", "correct ", "Wait, ", "But ", "because ", "five ", "and ", "So the final ",
    "five (5) ", "5 dollars ", "5%", "'s ", "a. ", "St. ", "5. ", "5 ball ", "½ ", "1½", "1{,}", "1\\,",
]  # fmt: skip
BEGINNINGS = ["", "The answer is 5. ", "\\boxed{", "Answer:\n"]


def main() -> None:
    found = []
    for number, unit in enumerate(UNITS, 1):
        for beginning in BEGINNINGS:
            text = (beginning + unit * (LENGTH // len(unit) + 1))[:LENGTH]
            for problem in PROBLEMS:
                has_paper_rules = "/test/" in problem.id
                for mode in answers.MODES if has_paper_rules else answers.MODES[:2]:
                    if FIRST_LOOK * milliseconds(text[: LENGTH // FIRST_LOOK], problem, mode) < WORTH_A_LOOK:
                        continue
                    best = min(milliseconds(text, problem, mode) for _ in range(3))
                    found.append((best, mode, problem.answer_kind, beginning, unit))
        found = sorted(found, reverse=True)[:SHOWN]
        print(f"\r{number} of {len(UNITS)} units, {found[0][0]:.1f} ms at most", end="", file=sys.stderr)
    print(file=sys.stderr)
    for best, mode, kind, beginning, unit in found:
        print(f"{best:6.1f} ms  {mode:8} {kind:7} {beginning!r}, then {unit!r} over and over")
    names = ("milliseconds", "mode", "kind", "beginning", "unit")
    rows = [dict(zip(names, row, strict=True)) for row in found]
    (Path(__file__).parent / "results" / "grading_bound.json").write_text(json.dumps(rows, indent=2) + "\n")


def milliseconds(text: str, problem: Problem, mode: answers.Mode) -> float:
    start = time.process_time()
    answers.grade(text, problem, mode, "zs_cot")
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
