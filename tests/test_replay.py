"""Replays: solutions of every generator are right, one changed state makes them wrong, and hand-read samples of models
are judged as docs/rationales.md says. Rows of the paper's tasks run where FCOT_DATA names the folder."""

import json
import os
import random
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.records import Problem
from fcot_lite.replay import READERS, Replay, can_replay, replay
from fcot_lite.tasks import other, symbolic
from fcot_lite.tasks.generated_choices import MONTHS

REAL_DATA = os.environ.get("FCOT_DATA")  # read here: conftest.py hides it from every test
REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = "rationales.md"
LABELS = [json.loads(line) for line in (REPOSITORY / "tests" / "data" / "replay_labels.jsonl").read_text().splitlines()]

GENERATED: list[tuple[str, dict[str, Any]]] = [
    ("chain_arithmetic", {}),
    ("chain_arithmetic", {"terms": [2, 32], "digits": [1, 3], "operators": "+-*/"}),
    ("generated_coin_flip", {}),
    ("generated_coin_flip", {"flips": [1, 16]}),
    ("generated_last_letters", {}),
    ("generated_last_letters", {"words": [2, 16]}),
    ("generated_shuffled_objects", {}),
    ("generated_shuffled_objects", {"people": [3, 7], "swaps": [1, 24]}),
    ("generated_date_understanding", {}),
    ("generated_date_understanding", {"years": [1900, 2100], "offset": [1, 60]}),
]


def choice_problem(id: str, question: str, target: str) -> Problem:
    choices = re.findall(r"\([A-Z]\) (.*?)(?=, \([A-Z]\)|\.$)", question)
    return Problem(id, question, target, "choice", {"choices": choices})


# --- golden solutions


@pytest.mark.parametrize(("name", "options"), GENERATED)
def test_golden_solutions_are_right(name: str, options: dict[str, Any]) -> None:
    for problem in tasks.load(name, "train", options=options, limit=300):
        assert can_replay(problem), problem
        result = replay(problem.metadata["solution"], problem)
        assert (result.outcome, result.findings) == ("right", ()), (problem, result)
        assert result.num_steps_followed == result.num_steps > 0


SOLVED = [
    ("coin_flip", symbolic.COIN_FLIP_EXAMPLES),
    ("last_letter_concatenation", symbolic.LAST_LETTER_EXAMPLES),
    ("tracking_shuffled_objects", other.TRACKING_SHUFFLED_OBJECTS_EXAMPLES),
    ("date_understanding", other.DATE_UNDERSTANDING_EXAMPLES),
]


@pytest.mark.parametrize(
    ("name", "question", "solution"), [(name, q, solution) for name, pairs in SOLVED for q, solution in pairs]
)
def test_hand_written_solutions_are_right(name: str, question: str, solution: str) -> None:
    found = re.search(r"The answer is \(?(\w+)\)?\.$", solution)
    assert found
    kind = tasks.TASKS[name].answer_kind
    if kind == "choice":
        problem = choice_problem(f"{name}/train/0", question, found[1])
    else:
        problem = Problem(f"{name}/train/0", question, found[1], kind)
    assert can_replay(problem)
    assert replay(solution, problem).outcome == "right", replay(solution, problem)


@pytest.mark.skipif(not REAL_DATA, reason="needs FCOT_DATA, the folder of the data sets")
@pytest.mark.parametrize("name", [name for name in READERS if name in tasks.TASKS and tasks.TASKS[name].data])
def test_the_papers_questions_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOT_DATA", str(REAL_DATA))
    problems = [problem for split in tasks.SPLITS for problem in tasks.load(name, split)]
    cannot = [problem.id for problem in problems if not can_replay(problem)]
    if name == "last_letter_concatenation":  # names of two words, whose golds lack a letter
        assert 0 < len(cannot) <= 15
    else:
        assert cannot == []


# --- one changed state


def mutants(problem: Problem, rng: random.Random) -> list[str]:
    """The solution with one state changed, each state once."""
    solution = problem.metadata["solution"]
    final = solution.rindex("The answer is")
    task = problem.id.partition("/")[0]
    choices = problem.metadata.get("choices", [])
    pattern = {
        "generated_coin_flip": r"\b(?:heads|tails)(?= up)",
        "generated_last_letters": r'(?<= ")[a-z]+(?=")',
        "generated_shuffled_objects": "|".join(map(re.escape, choices)),
        "generated_date_understanding": rf"(?:{'|'.join(MONTHS[1:])}) \d+, \d{{4}}|\d\d/\d\d/\d{{4}}",
        "chain_arithmetic": r"(?<== )\d+",
    }[task]

    def change(state: str) -> str:
        if task == "generated_coin_flip":
            return "tails" if state == "heads" else "heads"
        if task == "generated_last_letters":
            return state[:-1] + rng.choice([letter for letter in "abcdefgh" if letter != state[-1]])
        if task == "generated_shuffled_objects":
            return str(rng.choice([choice for choice in choices if choice != state]))
        if task == "generated_date_understanding":
            return state[:-1] + str((int(state[-1]) + 1) % 10)  # the year
        return str(int(state) + rng.choice([1, 2, 10]))

    found = [m for m in re.finditer(pattern, solution) if m.end() <= final]
    assert found
    return [solution[: m.start()] + change(m[0]) + solution[m.end() :] for m in found]


@pytest.mark.parametrize(("name", "options"), GENERATED)
def test_one_changed_state_is_found(name: str, options: dict[str, Any]) -> None:
    rng = random.Random(name)
    texts = [(text, p) for p in tasks.load(name, "train", options=options, limit=60) for text in mutants(p, rng)]
    missed = [(text, p.question) for text, p in texts if replay(text, p).outcome != "wrong"]
    assert len(texts) >= 60
    assert len(missed) <= len(texts) // 50, missed[:3]


def test_a_finding_says_where_and_what() -> None:
    problem = Problem("generated_coin_flip/train/0", COIN, "no", "yes_no")
    text = "The coin starts heads up. Ann flips it: tails up. Bob does not flip it: still heads up."
    (finding,) = replay(text, problem).findings
    assert finding.check == "replay"
    assert finding.reason == "after Bob's turn the coin is tails, the text says heads"
    assert text[finding.start : finding.end] == "heads"


# --- phrasings of models


COIN = (
    "A coin is heads up. Ann flips the coin. Bob does not flip the coin. Dan flips the coin. Eve flips the coin. "
    'Is the coin still heads up? Note that "flip" here means "reverse".'
)
COIN_TEXTS = [
    ("right", "Ann flips the coin, so it is tails. Bob doesn't flip it, so it stays tails. Dan flips it back to heads. "
              "Eve flips it to tails."),
    ("right", "Initially the coin is heads up.\n1. Ann flips the coin: Heads → Tails\n2. Bob does not flip the coin: "
              "Tails\n3. Dan flips the coin: Tails → Heads\n4. Eve flips the coin: Heads → Tails"),
    ("right", "After Ann flips the coin, it is tails up. Bob does not flip the coin, so it remains tails up. After Dan "
              "flips the coin, it is heads up. Finally, Eve flips the coin and it ends up tails."),
    ("right", "Ann flips the coin. It is now tails up. Bob doesn't. Dan flips it. Now it is heads up. Eve flips it. "
              "The coin is now tails up, so it is no longer heads up."),
    ("right", "The coin is flipped 3 times. That is an odd number, so it is tails up at the end."),
    ("right", "Ann, Dan and Eve flip the coin, Bob does not. So the coin ends tails up."),
    ("right", "Ann flips it from heads to tails. Bob leaves it: tails. Dan and Eve flip it: tails."),
    ("right", "**Ann** flips the coin: **tails**. **Bob** does not flip the coin: **tails**. **Dan** flips the coin: "
              "**heads**. **Eve** flips the coin: **tails**."),
    ("right", "1. **Initial State**: The coin is heads up.\n2. **Ann's Flip**: Ann flips the coin. Since the coin is "
              "heads "
              "up, Ann will flip it to tails. The coin now is tails up.\n3. **Bob's Action**: Bob does not flip the "
              "coin. "
              "The coin remains tails up.\n4. **Dan's Flip**: Dan flips the coin. Since the coin is tails up, Dan will "
              "flip it back to heads.\n5. **Eve's Flip**: Eve flips the coin. This means that the coin will now be "
              "tails "
              "up.\n\nSo, the coin is no longer heads up."),
    ("right", "1. Ann flips the coin. Because the coin was heads up, it is now tails up.\n2. Bob does not flip the "
              "coin."
              "\n3. Dan flips the coin.\n   - Now, the coin is facing the opposite side.\n   - It is heads up.\n4. Eve "
              "flips the coin. The coin turns over.\n\nTherefore, the final state of the coin is tails up."),
    ("wrong", "Ann flips the coin, so it is tails. Bob doesn't flip it, so it is heads. Dan flips it: heads. Eve flips "
              "it: tails."),
    ("wrong", "Ann flips it: tails. Bob flips it: heads. Dan flips it: tails. Eve flips it: heads."),
    ("wrong", "The coin is flipped four times, so it is heads up at the end."),
    ("wrong", "Nobody flips it. It is heads up at the end."),
    ("wrong", "None flips it. It is heads up at the end."),
    ("wrong", "Everybody flips it: heads. It is heads up at the end."),
    ("right", "1. **Ann's Flip**: Ann flips the coin, so it is tails up.\n2. **Bob's Flip**: Bob does not flip the "
              "coin.\n3. **Dan's Flip**: Dan flips the coin.\n4. **Eve's Flip**: Eve flips the coin. It is tails up."),
    ("not followed", "1. **First Flip**: The coin is flipped. Since the coin is heads up, it is flipped to tails.\n"
              "2. **Second Flip**: The coin is flipped to heads."),
    ("wrong", "The baker flips it: tails. The pilot flips it: heads."),
    ("wrong", "Ann flips it: tails. Zed flips it: heads. Dan flips it: heads. Eve flips it: tails."),
    ("wrong", "Ann flips it: tails. Bob leaves it: tails. Dan flips it: heads. Eve flips it: tails. It is heads up at "
              "the end."),
    ("not followed", "The answer is no."),
    ("not followed", "Ann flips the coin. Bob does not flip the coin. Dan flips the coin. Eve flips the coin. Is the "
                     "coin still heads up? Let me think."),
    ("not followed", "If the coin were tails up, it would have been flipped."),
    ("not followed", "A coin shows heads or tails. The answer is no."),
    ("not followed", "Ann flips the coin, so it is tails up."),
]  # fmt: skip

LETTERS = 'Take the last letters of each words in "Ann Ivan Omar Chloe" and concatenate them.'
LETTER_TEXTS = [
    ("right", 'The last letter of "Ann" is "n". The last letter of "Ivan" is "n". The last letter of "Omar" is "r". '
              'The last letter of "Chloe" is "e".'),
    ("right", "Ann ends with n, Ivan ends with n, Omar ends with r, and Chloe ends with e. Together: nnre."),
    ("right", "1. Ann -> n\n2. Ivan -> n\n3. Omar -> r\n4. Chloe -> e\n\nConcatenating these gives \"nnre\"."),
    ("right", "- **Ann**: n\n- **Ivan**: n\n- **Omar**: r\n- **Chloe**: e\nPut together they are nnre."),
    ("right", "The last letters are n, n, r and e. Concatenated: n-n-r-e."),
    ("right", 'The last letter of the first word is "n". The last letter of the second word is "n". The last letter of '
              'the third word is "r". The last letter of the fourth word is "e".'),
    ("right", "The last letter of Ann is n.\nThe last letter of Ivan is n.\nThe last letter of Omar is r.\nThe last "
              "letter of Chloe is e.\nConcatenating \"n\" and \"n\" gives \"nn\". Concatenating \"r\" and \"e\" to it "
              'gives "nnre".'),
    ("right", '- "n" from "Ann"\n- "n" from "Ivan"\n- "r" from "Omar"\n- "e" from "Chloe"\n\nNow, we concatenate these '
              'last letters:\n\n"n" + "n" + "r" + "e" = "nnre"\n\nTherefore, the concatenated last letters are '
              '"nnre".'),
    ("right", '1. The first word is "Ann", so the last letter is "n".\n2. The second word is "Ivan", so the last '
              'letter is '
              '"n".\n3. The third word is "Omar", so the last letter is "r".\n4. The fourth word is "Chloe", so the '
              'last '
              'letter is "e".\n\nNow we concatenate these letters:\n"n" + "n" + "r" + "e"\n\nThe final result is '
              '"nnre".'),
    ("right", 'Step 1: Identify the words.\nThe words are: Ann, Ivan, Omar, Chloe.\n\nStep 2: Extract the last '
              'letter of '
              'each word.\n- Ann: n\n- Ivan: n\n- Omar: r\n- Chloe: e\n\nStep 3: Concatenate the last letters.\nn n '
              'r e'),
    ("wrong", 'The last letter of "Ann" is "n". The last letter of "Ivan" is "i".'),
    ("wrong", "The last letter of Chloe is o."),
    ("wrong", 'The last letter of "Chole" is "e".'),
    ("wrong", "The last letters are n, n, r and o."),
    ("wrong", 'The last letter of "Ann" is "n". The last letter of "Ivan" is "n". The last letter of "Omar" is "r". '
              'The last letter of "Chloe" is "e". Concatenated they are "nner".'),
    ("wrong", "The last letter of Omar is Omar."),
    ("not followed", "Ann is a name. Concatenate the last letters of Ann, Ivan, Omar and Chloe."),
    ("not followed", "The answer is nnre."),
    ("not followed", 'Put together they are "nnre".'),
    ("not followed", 'We take the last letters of each words in "Ann Ivan Omar Chloe" and concatenate them.'),
]  # fmt: skip

SHUFFLED = (
    "Alice, Bob, and Claire are playing a game. At the start of the game, they are each holding a ball: Alice has a "
    "red ball, Bob has a blue ball, and Claire has a green ball. \n\nAs the game progresses, pairs of players trade "
    "balls. First, Alice and Bob swap balls. Then, Bob and Claire swap balls. Finally, Alice and Bob swap balls. At "
    "the end of the game, Alice has the \nWhich choice is true? Answer choices: (A) red ball, (B) blue ball, (C) green "
    "ball."
)  # Alice blue, Bob red; Bob green, Claire red; Alice green, Bob blue
SHUFFLED_TEXTS = [
    ("right", "Alice and Bob swap balls, so now Alice has the blue ball and Bob has the red ball. Then Bob and Claire "
              "swap balls, so Bob has the green ball and Claire has the red ball. Finally, Alice and Bob swap, so "
              "Alice has the green ball and Bob has the blue ball."),
    ("right", "Start: Alice red, Bob blue, Claire green. After the first swap: Alice: blue, Bob: red, Claire: green. "
              "After the second swap: Alice: blue, Bob: green, Claire: red. After the third swap: Alice: green, Bob: "
              "blue, Claire: red."),
    ("right", "1. Alice and Bob swap: Alice = blue, Bob = red.\n2. Bob and Claire swap: Bob = green, Claire = red.\n"
              "3. Alice and Bob swap: Alice = green, Bob = blue.\nAt the end Alice has the green ball."),
    ("right", "First, Alice (red ball) and Bob (blue ball) swap, so Alice now has the blue ball. Then Bob and Claire "
              "swap, so Bob now has the green ball. Finally, Alice and Bob swap, so Alice now has the green ball."),
    ("right", "First, Alice and Bob swap balls. Then, Bob and Claire swap balls. Finally, Alice and Bob swap balls. At "
              "the start, Alice has the red ball. After Alice and Bob swap, Alice has blue. After Bob and Claire swap, "
              "Claire has red. After Alice and Bob swap, Alice has green."),
    ("right", "1. **Initial Balls:**\n   - Alice has the red ball.\n   - Bob has the blue ball.\n   - Claire has the "
              "green ball.\n\n2. **First Trade:**\n   - Alice and Bob trade balls.\n   - This means Alice now has the "
              "blue ball and Bob has the red ball.\n\n3. **Second Trade:**\n   - Bob and Claire trade balls.\n   - "
              "Bob's "
              "ball is now the green ball.\n\n4. **Third Trade:**\n   - Alice and Bob trade balls.\n   - This means "
              "Alice now has the green ball.\n\nTherefore, Alice has the green ball at the end."),
    ("wrong", "Alice and Bob swap balls, so Alice has the red ball and Bob has the blue ball."),
    ("wrong", "After the first swap: Alice: blue, Bob: green."),
    ("wrong", "At the start Alice has the green ball."),
    ("wrong", "At the end of the game, Alice has the red ball."),
    ("wrong", "Alice and Claire swap balls, so Alice has the green ball."),
    ("wrong", "Alice and Bob swap: Alice blue, Bob red. Bob and Claire swap: Bob green, Claire red. Alice and Bob "
              "swap: Alice green, Bob blue. At the end of the game, Alice has the green ball, that is (B)."),
    ("not followed", "The answer is (C)."),
    ("not followed", "First, Alice and Bob swap balls. Then, Bob and Claire swap balls. Finally, Alice and Bob swap."),
    ("not followed", "At the end of the game, Alice has the green ball."),
    ("not followed", "Does Alice have the blue ball at the end? We do not know."),
]  # fmt: skip

DATE = (
    "Yesterday was April 30, 2021. What is the date tomorrow in MM/DD/YYYY?\nWhich choice is true? Answer choices: "
    "(A) 05/01/2021, (B) 05/02/2021, (C) 04/29/2021, (D) 05/02/1960."
)
DATE_TEXTS = [
    ("right", "Yesterday was April 30, 2021, so today is May 1, 2021. Tomorrow is May 2, 2021, which is 05/02/2021."),
    ("right", "Today is 05/01/2021. The date tomorrow is 05/02/2021."),
    ("right", "If yesterday was April 30, 2021, then one would count. Two days after April 30, 2021 is May 2, 2021."),
    ("right", "Since yesterday was 04/30/2021, today's date is 05/01/2021 and tomorrow will be 05/02/2021 (B)."),
    ("right", "April 30, 2021 + 1 day = May 1, 2021. May 1, 2021 + 1 day = May 2, 2021."),
    ("right", "April has 30 days. The day after April 30 is May 1, so today is May 1. Tomorrow is May 2, 2021."),
    ("right", "Today is the 1st of May, 2021. Tomorrow is 2 May 2021."),
    ("right", "Today is 2021-05-01. One day later is 2021-05-02."),
    ("right", "Adding 1 day to April 30, 2021 gives us May 1, 2021. The date tomorrow in MM/DD/YYYY format is "
              "05/02/2021."),
    ("wrong", "Subtracting 2 days from May 1, 2021 results in May 3, 2021."),
    ("wrong", "Today is April 30, 2021. Tomorrow is May 1, 2021."),
    ("wrong", "Today is May 1, 2021. Tomorrow is May 3, 2021."),
    ("wrong", "Two days after April 30, 2021 is May 3, 2021."),
    ("wrong", "April 30, 2021 plus 2 days is May 1, 2021."),
    ("wrong", "Today is April 31, 2021."),
    ("wrong", "Today is May 1, 2021. Tomorrow is May 2, 2021, which is 02/05/2021."),
    ("wrong", "Today is May 1, 2021. Tomorrow is May 2, 2021. This is 05/02/2021, that is (A)."),
    ("wrong", "April has 31 days. Today is May 1, 2021. Tomorrow is May 2, 2021."),
    ("wrong", "2021 is a leap year. Today is May 1, 2021. Tomorrow is May 2, 2021."),
    ("wrong", "A week before May 1, 2021 is April 25, 2021."),
    ("not followed", "The answer is (B)."),
    ("not followed", "Half a year after May 1, 2021 is November 1, 2021."),
    ("not followed", "A week and 2 days after May 1, 2021 is May 10, 2021."),
    ("not followed", "Someone may think that today is April 30, 2021."),
    ("not followed", "Yesterday was April 30, 2021."),
]  # fmt: skip

CHAIN = "Start with 72. Multiply by 11. Subtract 63. What is the result?"
CHAIN_TEXTS = [
    ("right", "72 * 11 = 792. 792 - 63 = 729."),
    ("right", "Start with 72. Multiply by 11 to get 792. Subtract 63 to get 729."),
    ("right", "72 × 11 = 792\n792 − 63 = 729"),
    ("right", "\\(72 \\times 11 = 792\\), and \\(792 - 63 = 729\\)."),
    ("right", "72 times 11 is 792. 792 minus 63 is 729."),
    ("right", "72 * 11 - 63 = 729"),
    ("right", "72 * 10 = 720. 720 + 72 = 792. 792 - 63 = 729."),
    ("right", "11 * 72 = 792, then 792 - 63 = 729. The result is 729."),
    ("right", "Multiply by 11: 72 * 11 = 792. Subtract 63: 792 - 63 = 729."),
    ("wrong", "72 * 11 = 782. 782 - 63 = 719."),
    ("wrong", "72 * 11 = 792. 792 - 63 = 739."),
    ("wrong", "72 + 11 = 83. 83 - 63 = 20."),
    ("wrong", "72 * 11 = 792. 792 + 63 = 855."),
    ("wrong", "Start with 62. 62 * 11 = 682."),
    ("wrong", "Multiply by 11 to get 79."),
    ("wrong", "72 * 11 = 792. 792 - 63 = 729. 729 + 1 = 730."),
    ("wrong", "7 / 0 = 7"),
    ("not followed", "72 * 11 = 792."),
    ("not followed", "The answer is 729."),
    ("not followed", "The result is 729."),
    ("not followed", "There are 24 hours in a day."),
]  # fmt: skip

PHRASED = [
    (problem, outcome, text)
    for problem, texts in [
        (Problem("coin_flip/train/0", COIN, "no", "yes_no"), COIN_TEXTS),
        (Problem("last_letter_concatenation/train/0", LETTERS, "nnre", "letters"), LETTER_TEXTS),
        (choice_problem("tracking_shuffled_objects/train/0", SHUFFLED, "C"), SHUFFLED_TEXTS),
        (choice_problem("date_understanding/train/0", DATE, "B"), DATE_TEXTS),
        (Problem("chain_arithmetic/train/0", CHAIN, "729"), CHAIN_TEXTS),
    ]
    for outcome, text in texts
]


@pytest.mark.parametrize(("problem", "outcome", "text"), PHRASED)
def test_phrasings(problem: Problem, outcome: str, text: str) -> None:
    assert can_replay(problem)
    result = replay(text, problem)
    assert result.outcome == outcome, result
    assert all(0 <= f.start < f.end <= len(text) for f in result.findings)
    assert 0 <= result.num_steps_followed <= result.num_steps


COIN_3 = "A coin is heads up. Ann flips the coin. Bob flips the coin. Dan flips the coin. Is the coin still heads up?"
COIN_2 = COIN_3.replace("Ann flips", "Sherrie does not flip")
NAMES = 'Take the last letters of each words in "Whitney Erika Tj Benito" and concatenate them.'
FLIPPED_3 = Problem("coin_flip/train/0", COIN_3, "no", "yes_no")
FLIPPED_2 = Problem("coin_flip/train/0", COIN_2, "yes", "yes_no")
NAMED = Problem("last_letter_concatenation/train/0", NAMES, "yajo", "letters")
SWAPPED = choice_problem("tracking_shuffled_objects/train/0", SHUFFLED, "C")
DATED = choice_problem("date_understanding/train/0", DATE, "B")
CHAINED = Problem("chain_arithmetic/train/0", CHAIN, "729")
# Right texts that were once called wrong, and the wrong ones beside them.
NOT_WRONG = [
    (FLIPPED_3, "An even number of flips leaves the coin heads up. Here 3 people flip it, an odd number: tails."),
    (FLIPPED_3, "Three is not an even number, so tails."),
    (FLIPPED_3, "The coin is no longer heads up."),
    (FLIPPED_3, "Two flips cancel out, so the third flip makes it tails up. The coin is tails up at the end."),
    (FLIPPED_3, "Ann flips it: tails. Before Bob's flip the coin was tails up."),
    (FLIPPED_3, "Before Dan's flip the coin was heads up."),
    (FLIPPED_3, "Before Ann flips it, the coin is heads up. Before Bob flips it, the coin is tails up."),
    (FLIPPED_2, "Everyone except Sherrie flips the coin."),
    (FLIPPED_2, "All but Sherrie flip the coin, so it is heads up at the end."),
    (NAMED, "The last letters of Whitney and Erika are y and a. The last letters of Tj and Benito are j and o."),
    (NAMED, "The last letters of Whitney, Erika, Tj and Benito are y, a, j and o."),
    (SWAPPED, "Alice and Bob swap. Now, Bob has Alice's red ball and Alice has Bob's blue ball."),
    (SWAPPED, "At the end Claire does not have the green ball. Claire has the red ball."),
    (SWAPPED, "Bob does not have the red ball. Bob has the blue ball."),
    (SWAPPED, "Before the last swap Bob has the green ball. Then Alice and Bob swap, so Bob has the blue ball."),
    (CHAINED, "After multiplying by 11 the value is 792. After subtracting 63, the value is 729."),
    (CHAINED, "After multiplying 72 by 11, the new value is 792. Then subtracting 63, the result is 729."),
    (CHAINED, "Multiplying by 11 gives 792. So starting with 792 we subtract 63: 729."),
    (DATED, "Tomorrow is one day after May 1, 2021, which is May 2, 2021, (B)."),
    (DATED, "Tomorrow is the day after May 1, 2021, which is May 2, 2021, (B)."),
    (DATED, "Tomorrow is two days after April 30, 2021, which is 04/30/2021."),
]  # fmt: skip
WRONG = [
    (FLIPPED_3, "Three is not an odd number, so heads."),
    (FLIPPED_3, "An even number of people flip it."),
    (FLIPPED_3, "Ann flips it: tails. Before Bob's flip the coin was heads up."),
    (FLIPPED_2, "The coin is no longer heads up."),
    (NAMED, "The last letters of Whitney and Erika are y and k."),
    (NAMED, "The last letters are y and a."),
    (SWAPPED, "Alice and Bob swap. Now, Bob has Alice's blue ball."),
    (SWAPPED, "Before the last swap Bob has the blue ball."),
    (CHAINED, "After multiplying by 11 the value is 782."),
    (CHAINED, "After multiplying 72 by 11, the value is 782."),
    (CHAINED, "So starting with 729 we subtract 63: 666."),
    (DATED, "Tomorrow is one day after May 1, 2021, which is May 3, 2021."),
]


@pytest.mark.parametrize(("problem", "text"), NOT_WRONG)
def test_a_right_text_is_not_called_wrong(problem: Problem, text: str) -> None:
    assert can_replay(problem)
    assert replay(text, problem).findings == ()


@pytest.mark.parametrize(("problem", "text"), WRONG)
def test_a_wrong_text_of_the_same_wording_is(problem: Problem, text: str) -> None:
    assert can_replay(problem)
    assert replay(text, problem).outcome == "wrong"


# --- what cannot be replayed


@pytest.mark.parametrize(
    "problem",
    [
        Problem("gsm8k/train/0", COIN, "no", "yes_no"),
        Problem("coin_flip/train/0", COIN, "yes", "yes_no"),  # the gold is not what the question leads to
        Problem("coin_flip/train/0", "", "yes", "yes_no"),
        Problem("coin_flip/train/0", COIN.replace("Bob", "Ann"), "no", "yes_no"),
        Problem("last_letter_concatenation/train/0", LETTERS, "nnr", "letters"),
        Problem("chain_arithmetic/train/0", CHAIN, "730"),
        Problem("chain_arithmetic/train/0", "Start with 1. Divide by 0. What is the result?", "1"),
        Problem("tracking_shuffled_objects/train/0", SHUFFLED, "C", "choice"),  # no choices
        choice_problem("tracking_shuffled_objects/train/0", SHUFFLED, "A"),
        choice_problem("date_understanding/train/0", DATE.replace("tomorrow", "one day"), "B"),
        choice_problem("date_understanding/train/0", DATE, "Z"),
    ],
)
def test_problems_that_cannot_be_replayed(problem: Problem) -> None:
    assert not can_replay(problem)
    assert replay("The coin is heads up.", problem) == Replay("not followed", 0, 0, ())


# --- any text

PROBLEMS = list({problem.id: problem for problem, _, _ in PHRASED}.values())
WORDS = sorted({word for _, _, text in PHRASED for word in re.findall(r"\w+|[^\w\s]|\s", text)})


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PROBLEMS),
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join),
        st.lists(st.sampled_from(WORDS)).map("".join),
    ),
)
def test_no_text_makes_it_raise(problem: Problem, text: str) -> None:
    result = replay(text, problem)
    assert all(0 <= f.start <= f.end <= len(text) and f.reason for f in result.findings)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.id)
@pytest.mark.parametrize(
    "unit",
    ["9", "(", "heads ", "Ann ", "Alice ", "red ball ", "Ann flips it: tails. ", "1+", "1 + 1 = ", "May 1, 2021 is ",
     "0/", "\n", '"', "\ud800", "²", "½", "\0", "٣", "\u2028", "10**10**10 ", "1e999999999 ", "a day after ",
     "the day ", "Alice and Bob swap ",
     "last letter of ", "1,000", "today is ", "after the first ", "*", "- ", "not heads "],
)  # fmt: skip
def test_long_texts_take_linear_time(problem: Problem, unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        best = 1e9
        for _ in range(2):
            start = time.process_time()
            replay(text, problem)
            best = min(best, time.process_time() - start)
        return best

    small = seconds(10_000)
    # Quadratic growth would take 100 times as long; 25 is far from that and from noise, which the constant absorbs.
    assert seconds(100_000) < 25 * small + 0.05


def test_findings_are_few_however_long_the_text() -> None:
    problem = PROBLEMS[0]
    assert len(replay("Ann flips it: heads. " * 10_000, problem).findings) == 50


# --- hand-read samples of models


@cache
def labelled_problems(name: str, split: Any, options: str) -> dict[str, Problem]:
    return {problem.id: problem for problem in tasks.load(name, split, options=json.loads(options))}


def labelled_problem(row: dict[str, Any]) -> Problem:
    name, split, _ = row["problem_id"].split("/")
    return labelled_problems(name, split, json.dumps(row.get("options", {})))[row["problem_id"]]


def table_row(check: str, source: str, rows: list[dict[str, Any]]) -> str:
    """A row of the table of docs/rationales.md: how replays judge these rows."""
    outcomes = [replay(row["text"], labelled_problem(row)).outcome for row in rows]
    num_wrong = sum(row["wrong"] for row in rows)
    called = [row["wrong"] for row, outcome in zip(rows, outcomes, strict=True) if outcome == "wrong"]
    passed = sum(row["wrong"] for row, outcome in zip(rows, outcomes, strict=True) if outcome == "right")
    followed = len(rows) - outcomes.count("not followed")
    cells = [check, source, len(rows), num_wrong, len(called)]
    cells += [f"{sum(called)}/{len(called)}", f"{sum(called)}/{num_wrong}", f"{followed}/{len(rows)}", passed]
    return "| " + " | ".join(map(str, cells)) + " |"


GROUPS = list(dict.fromkeys((row["check"], row["problem_id"].partition("/")[0]) for row in LABELS))


@pytest.mark.parametrize(("check", "name"), GROUPS)
def test_the_documented_precision_and_recall(check: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if tasks.TASKS[name].data is not None:
        if not REAL_DATA:
            pytest.skip("needs FCOT_DATA, the folder of the data sets")
        monkeypatch.setenv("FCOT_DATA", REAL_DATA)
    rows = [row for row in LABELS if (row["check"], row["problem_id"].partition("/")[0]) == (check, name)]
    documented = (REPOSITORY / "docs" / DOCUMENT).read_text().splitlines()
    assert table_row(check, name, rows) in documented


@pytest.mark.parametrize("check", sorted({check for check, _ in GROUPS}))
def test_each_check_has_enough_labels(check: str) -> None:
    rows = [row for row in LABELS if row["check"] == check]
    assert len(rows) >= 25
    assert {row["wrong"] for row in rows} == {True, False}
    assert len({(row["problem_id"], row["text"], str(row.get("options"))) for row in rows}) == len(rows)
    assert all("question" not in row for row in rows)
