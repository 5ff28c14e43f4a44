"""The slowest texts of a megabyte that we know: what the built-in kinds need for each, as CPU time of one core.

    python benchmarks/grading_bound.py             # some minutes; prints the slowest and writes results/grading_bound.json

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
SHOWN = 12
CHOICES = {"choices": ["5", "7", "5 or 7", "a ball", ""]}
PROBLEMS = [
    Problem("gsm8k/test/0", "", "5"),
    Problem("svamp/test/0", "", "0.8333333333333334"),
    Problem("aqua/test/0", "", "B", "choice", CHOICES),
    Problem("commonsense_qa/test/0", "", "B", "choice", {"choices": [""] * 5}),
    Problem("coin_flip/test/0", "", "yes", "yes_no"),
    Problem("last_letter_concatenation/test/0", "", "nyda", "letters"),
    Problem("own/test/0", "", "St. Louis", "text"),
    Problem("own/test/1", "", "3\n2 4", "text"),
    Problem("own/test/2", "", r"\frac{\sqrt{3}}{2}", "math"),
    Problem("own/test/3", "", "5", "math"),
]
UNITS = [
    *"0 7 a A B x ( ) { } [ ] $ \\ # * _ - – . , ; : ! ? = + / ^ % < > ' \" ` ½ ² ٣ ５ é ₩".split(),
    *(" ", "\n", "\t", "\0", "\r", "\u00a0", "\u2009", "\u2028", "\ud800", "\u0301", "\u200b", "\U0001f600"),
    *("1,", ",1", "1.", "1 ", "1\n", "1/", "1/2 ", "-1", "1e9", "1,234", "1,23", "1\u2009234", "10**", "9^{", "5 + ", "= 5"),
    *("a,b,", "a ", "a-", "ab ", "A) ", "(A) ", "A. ", "B or ", "yes ", "yes no ", "no, ", "not ", "\n\n", "a\n", "\n- "),
    *("answer", "nswer", "Answer", "answer ", "answer:", "Answer:\n", "answer is", "answer is ", "the answer is "),
    *("The answer is 5. ", "answer is 1 ", "answer is not ", "The answer is (B). ", "The answer is yes. "),
    *("The answer is <", "If the answer is 5, ", "<answer>", "</answer>", "#### ", "#### 5\n", "### Answer\n"),
    *("\\boxed{", "\\boxed{5}", "\\boxed{}", "boxed{", "\\boxed", "{}", "\\{", "\\frac{", "\\frac12", "\\text{", "$5$ "),
    *("\\(", "\\(5\\) ", "\\[", "**", "* ", "correct option is ", "correct ", "Wait, ", "But ", "because ", "five ", "and "),
    *("So the final ", "five (5) ", "5 dollars ", "5%", "'s ", "a. ", "St. ", "5. ", "5 ball ", "½ ", "1½", "1{,}", "1\\,"),
]  # fmt: skip
BEGINNINGS = [
    *("", "The answer is ", "The answer is 5", "The answer is (B)", "The answer is yes", "The answer is nyda", "Answer:\n"),
    *("#### ", "\\boxed{", "The answer is 5. ", "The answer is 5 because ", "The answer is St. Louis. ", "The answer is $"),
]  # fmt: skip


def main() -> None:
    slowest = []
    for unit in UNITS:
        for beginning in BEGINNINGS:
            text = (beginning + unit * (LENGTH // len(unit) + 1))[:LENGTH]
            for problem in PROBLEMS:
                for mode in answers.MODES[: 4 if "/test/0" in problem.id and "own" not in problem.id else 2]:
                    found = milliseconds(text, problem, mode)
                    slowest.append((found, mode, problem.answer_kind, beginning, unit))
                    if found > 15:
                        best = min(found, *(milliseconds(text, problem, mode) for _ in range(2)))
                        slowest[-1] = (best, *slowest[-1][1:])
        slowest = sorted(slowest, reverse=True)[:200]
        print(f"\r{unit!r:20} {slowest[0][0]:.1f} ms", end="", file=sys.stderr)
    print(file=sys.stderr)
    for found, mode, kind, beginning, unit in slowest[:SHOWN]:
        print(f"{found:6.1f} ms  {mode:8} {kind:7} {beginning!r} + {unit!r} over and over")
    names = ("milliseconds", "mode", "kind", "beginning", "unit")
    rows = [dict(zip(names, row, strict=True)) for row in slowest[:SHOWN]]
    (Path(__file__).parent / "results" / "grading_bound.json").write_text(json.dumps(rows, indent=2) + "\n")


def milliseconds(text: str, problem: Problem, mode: answers.Mode) -> float:
    start = time.process_time()
    answers.grade(text, problem, mode, "zs_cot")
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
