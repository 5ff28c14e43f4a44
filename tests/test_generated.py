"""The generated tasks beside chain_arithmetic: every answer is worked out again here from the question's own words."""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import tasks
from fcot_lite.answers import final_sentence, grade
from fcot_lite.errors import RecipeError
from fcot_lite.records import Problem
from fcot_lite.tasks.generated_names import NAMES, NAMES_OF

COIN, LETTERS = "generated_coin_flip", "generated_last_letters"
OBJECTS, DATES = "generated_shuffled_objects", "generated_date_understanding"
GENERATED = [COIN, LETTERS, OBJECTS, DATES]
HARDER = {
    COIN: {"flips": [1, 16]},
    LETTERS: {"words": [2, 16]},
    OBJECTS: {"people": [3, 7], "swaps": [1, 24]},
    DATES: {"years": [1900, 2100], "offset": [1, 60]},
}
SIZE = 3000


@pytest.fixture(scope="module")
def drawn() -> dict[str, dict[str, list[Problem]]]:
    return {name: {split: tasks.load(name, split, limit=SIZE) for split in tasks.SPLITS} for name in GENERATED}


def stem(question: str) -> str:
    return question.partition("\nWhich choice is true?")[0]


def story(name: str, question: str) -> str:
    """What no other split may hold: the question without what is asked about it, for dates and objects."""
    if name == DATES:
        return stem(question).partition(" What is the date")[0]
    if name == OBJECTS:
        return re.match(r"(.*) (?:When|At the end|On Sunday)\b", stem(question))[1]  # type: ignore[index]
    return question


# --- right?


def worked_out(name: str, question: str) -> str:
    """The answer as text, by other means than the generator's."""
    if name == COIN:
        return "no" if len(re.findall(r" flips the coin\.", question)) % 2 else "yes"
    if name == LETTERS:
        return re.sub(r"\w*(\w)\s?", r"\1", question.split('"')[1])
    if name == OBJECTS:
        return left_with(stem(question))
    return asked_date(stem(question))


def left_with(tale: str) -> str:
    opening, first, *rest = re.split(r"\. ", tale)
    people = re.findall(r"[A-Z]\w+", opening)[: len(re.findall(r"\b(?:has|brings|starts|borrows|looks)\b", first))]
    held = re.findall(r"(?:has the|brings the|starts in the|borrows the|looks after the) ([\w ]+?)(?:,|$| and )", first)
    assert len(people) == len(held) >= 3
    things = dict(zip(people, held, strict=True))
    for sentence in rest:
        swap = re.match(r"(?:First|Then|Finally), (\w+) and (\w+) ", sentence)
        if swap:
            things[swap[1]], things[swap[2]] = things[swap[2]], things[swap[1]]
    asked = re.search(r", (\w+) (?:has the|holds the|is in the|looks after the)$", tale)
    assert asked
    return things[asked[1]]


def long_date(text: str) -> date:
    found = re.search(r"[A-Z][a-z]+ \d{1,2}, \d{4}", text.replace("Yesterday was", "").replace("Today", "today"))
    assert found, text
    return datetime.strptime(found[0], "%B %d, %Y").date()


def years_before(day: date, years: int) -> date:
    return day.replace(year=day.year - years)


def todays_date(text: str) -> date:
    one = timedelta(1)
    count = int(found[1]) if (found := re.search(r"(\d+) (?:days?|weeks?)\b", text)) else 0
    if found := re.search(r"last day of (\w+) (\d{4})", text):
        first = datetime.strptime(f"{found[1]} {found[2]}", "%B %Y").date()
        after = (first + timedelta(31)).replace(day=1)
        return after if text.startswith("Yesterday") else after - one
    if found := re.search(r"today is its day number (\d+)", text):
        return datetime.strptime(f"{text[:4]} {int(found[1]):03}", "%Y %j").date()
    if found := re.search(r"the first (\w+day) of (\w+ \d{4})", text):
        day = datetime.strptime(found[2], "%B %Y").date()
        assert f"1, {day.year} was a {day:%A}" in text
        while f"{day:%A}" != found[1]:
            day += one
        return day
    if found := re.search(r"the day first, as (\S+)\.", text):
        return datetime.strptime(found[1], "%d/%m/%Y").date()
    if found := re.search(r"'s kitchen is a day slow: it shows (\S+)\.", text):
        return datetime.strptime(found[1], "%m/%d/%Y").date() + one
    if found := re.search(r"as (\S+), the month first", text):
        return datetime.strptime(found[1], "%m/%d/%Y").date()
    day = long_date(text)
    if found := re.search(r"turns (\d+)|anniversary number (\d+)", text):
        return day.replace(year=day.year + int(found[1] or found[2]))
    signs = {
        "Today is ": 0, "Yesterday was ": 1, "Tomorrow is ": -1, "The day before yesterday": 2, "The day after tom": -2,
        "It was ": count, "In ": -count, "Exactly ": 7 * count,
    }  # fmt: skip
    for start, sign in signs.items():
        if text.startswith(start):
            return day + sign * one
    if "put off by" in text or "bought milk" in text:
        return day + count * one
    if "days early" in text or "day early" in text:
        return day - count * one
    assert "thinks that today is" in text, text
    return day - one


def asked_date(text: str) -> str:
    today = todays_date(text.partition(" What is")[0])
    asked = re.search(r"What is the date (.*) in MM/DD/YYYY\?$", text)
    assert asked
    shifts = {
        "today": 0, "tomorrow": 1, "yesterday": -1, "10 days ago": -10, "one week ago from today": -7,
        "one week from today": 7, "24 hours later": 1,
    }  # fmt: skip
    if asked[1] == "a month ago":
        last_month = today.replace(day=1) - timedelta(1)
        meant = last_month.replace(day=today.day)
    elif asked[1] == "one year ago from today":
        meant = years_before(today, 1)
    else:
        meant = today + timedelta(shifts[asked[1]])
    return meant.strftime("%m/%d/%Y")


def check(name: str, problem: Problem) -> None:
    answer = worked_out(name, problem.question)
    if problem.answer_kind == "choice":
        choices = problem.metadata["choices"]
        assert len(set(choices)) == len(choices)
        listed = problem.question.partition("Answer choices: ")[2]
        letters = "ABCDEFG"[: len(choices)]
        assert listed == ", ".join(f"({c}) {text}" for c, text in zip(letters, choices, strict=True)) + "."
        assert answer == choices[ord(problem.target) - ord("A")], problem
    else:
        assert answer == problem.target, problem
    solution = problem.metadata["solution"]
    assert solution.endswith(f" {final_sentence(problem)}")
    assert grade(solution, problem).correct
    assert len(solution) < 4 * len(problem.question) + 100  # short: 16 words of last letters are the longest


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_answers_follow_from_the_questions(drawn: dict[str, dict[str, list[Problem]]], name: str, split: str) -> None:
    for problem in drawn[name][split]:
        check(name, problem)


@pytest.mark.parametrize("name", GENERATED)
def test_so_do_harder_ones(name: str) -> None:
    for problem in tasks.load(name, "train", options=HARDER[name], limit=1500):
        check(name, problem)


def test_all_contexts_and_questions_of_dates_occur(drawn: dict[str, dict[str, list[Problem]]]) -> None:
    texts = [stem(problem.question) for problem in drawn[DATES]["train"]]
    asked = Counter(re.search(r"What is the date (.*) in MM", text)[1] for text in texts)  # type: ignore[index]
    assert len(asked) == 9
    assert min(asked.values()) > SIZE / 15
    told = [text.partition(" What is")[0] for text in texts]
    words = "|".join([*NAMES, "January|February|March|April|May|June|July|August|September|October|November|December"])
    patterns = Counter(re.sub(rf"\b(?:{words})\b|[\d/]+|days?|weeks?", "#", text) for text in told)
    # Of 21 contexts the one with "the first Monday of" is rarer and has several openings.
    assert sum(count > SIZE / 60 for count in patterns.values()) >= 19, patterns


@pytest.mark.parametrize("step", ["coin", "letters", "objects"])
def test_every_step_of_a_solution_is_true(drawn: dict[str, dict[str, list[Problem]]], step: str) -> None:
    if step == "coin":
        for problem in drawn[COIN]["test"]:
            heads = True
            for told, said in zip(
                re.findall(r"(\w+) (flips|does not flip) the coin", problem.question),
                re.findall(
                    r"(\w+) (flips|does not flip) it: (?:still )?(heads|tails) up", problem.metadata["solution"]
                ),
                strict=True,
            ):
                heads ^= told[1] == "flips"
                assert (*told, "heads" if heads else "tails") == said
    elif step == "letters":
        for problem in drawn[LETTERS]["test"]:
            said = re.findall(r'last letter of "(\w+)" is "(\w)"', problem.metadata["solution"])
            assert [word for word, _ in said] == problem.question.split('"')[1].split()
            assert all(word[-1] == last for word, last in said)
    else:
        for problem in drawn[OBJECTS]["test"]:
            start, *swaps = problem.metadata["solution"].split(". ")
            holds = dict(re.findall(r"(\w+): ([\w ]+?)(?:,|$)", start))
            for swap in swaps[:-2]:
                one, other = re.match(r"(\w+) and (\w+)", swap).groups()  # type: ignore[union-attr]
                holds[one], holds[other] = holds[other], holds[one]
                assert swap.endswith(f"so {one}: {holds[one]}, {other}: {holds[other]}")


# --- splits


@pytest.mark.parametrize("name", GENERATED)
def test_nothing_stands_in_two_splits_or_twice_in_one(drawn: dict[str, dict[str, list[Problem]]], name: str) -> None:
    stories = {split: {story(name, p.question) for p in problems} for split, problems in drawn[name].items()}
    stories["examples"] = {story(name, question) for question, _ in tasks.solved_examples(name, count=500)}
    assert sum(map(len, stories.values())) == len(set().union(*stories.values()))
    for problems in drawn[name].values():
        assert len({stem(problem.question) for problem in problems}) == SIZE
    assert len({problem.id for problems in drawn[name].values() for problem in problems}) == 3 * SIZE
    assert drawn[name]["train"][17].id == f"{name}/train/17"


@pytest.mark.parametrize("name", GENERATED)
def test_other_knobs_cannot_leak_the_test_split(drawn: dict[str, dict[str, list[Problem]]], name: str) -> None:
    test = {story(name, problem.question) for problem in drawn[name]["test"]}
    for split in ("train", "validation"):
        others = tasks.load(name, split, options=HARDER[name], limit=SIZE)  # type: ignore[arg-type]
        assert not test & {story(name, problem.question) for problem in others}
    examples = tasks.solved_examples(name, options=HARDER[name], count=200)
    assert not test & {story(name, question) for question, _ in examples}


@pytest.mark.parametrize("name", [COIN, LETTERS])
def test_no_name_stands_on_two_sides(drawn: dict[str, dict[str, list[Problem]]], name: str) -> None:
    known = set(NAMES)
    sides = [
        {
            word
            for p in tasks.load(name, split, options=HARDER[name], limit=500)
            for word in re.findall(r"\w+", p.question)
        }
        for split in tasks.SPLITS
    ]
    sides.append({w for q, _ in tasks.solved_examples(name, count=500) for w in re.findall(r"\w+", q)})
    used = [side & known for side in sides]
    assert sum(map(len, used)) == len(set().union(*used))
    assert [len(side) for side in used] == [len(NAMES_OF[s]) for s in ("train", "validation", "test", "examples")]


def test_names_are_plain_and_each_has_one_split() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 200
    assert all(re.fullmatch("[A-Z][a-z]+", name) for name in NAMES)
    assert sorted(name for names in NAMES_OF.values() for name in names) == sorted(NAMES)
    assert min(map(len, NAMES_OF.values())) > 30


@pytest.mark.parametrize("name", GENERATED)
def test_a_smaller_limit_is_a_prefix(drawn: dict[str, dict[str, list[Problem]]], name: str) -> None:
    for split, problems in drawn[name].items():
        for limit in (1, 50, 200):
            assert tasks.load(name, split, limit=limit) == problems[:limit]  # type: ignore[arg-type]
    assert [len(tasks.load(name, split)) for split in tasks.SPLITS] == [1000, 100, 500]


@pytest.mark.parametrize("name", GENERATED)
def test_neighbouring_knobs_share_no_items(drawn: dict[str, dict[str, list[Problem]]], name: str) -> None:
    others = tasks.load(name, "train", options=HARDER[name], limit=300)
    assert len({p.question for p in others} & {p.question for p in drawn[name]["train"][:300]}) < 3


@pytest.mark.parametrize("name", GENERATED)
def test_five_thousand_take_seconds(name: str) -> None:
    began = time.process_time()
    problems = tasks.load(name, "test", limit=5000)
    assert len({problem.question for problem in problems}) == 5000
    assert time.process_time() - began < 10  # measured: 0.1 s (names) to 2.6 s (dates, nine of ten draws thrown away)


# --- balance


def test_yes_and_no_are_as_frequent(drawn: dict[str, dict[str, list[Problem]]]) -> None:
    for problems in drawn[COIN].values():
        assert 0.45 < sum(problem.target == "yes" for problem in problems) / SIZE < 0.55
    for options in ({"flips": [1, 1]}, {"flips": [16, 16]}):
        problems = tasks.load(COIN, "train", options=options, limit=400)
        assert 0.4 < sum(problem.target == "yes" for problem in problems) / 400 < 0.6


@pytest.mark.parametrize(("name", "count"), [(OBJECTS, 3), (DATES, 6)])
def test_no_letter_is_favoured(drawn: dict[str, dict[str, list[Problem]]], name: str, count: int) -> None:
    for problems in drawn[name].values():
        letters = Counter(problem.target for problem in problems)
        assert len(letters) == count
        # Five standard deviations of a fair die: by chance once in a million.
        fair = SIZE / count
        assert all(abs(n - fair) < 5 * (fair * (1 - 1 / count)) ** 0.5 for n in letters.values())


def test_the_right_date_is_not_given_away_by_its_rank(drawn: dict[str, dict[str, list[Problem]]]) -> None:
    ranks: Counter[int] = Counter()
    for problem in drawn[DATES]["train"]:
        dates = [datetime.strptime(text, "%m/%d/%Y") for text in problem.metadata["choices"]]
        ranks[sorted(dates).index(dates[ord(problem.target) - ord("A")])] += 1
    assert len(ranks) == 6
    assert max(ranks.values()) / SIZE < 0.4  # the earliest, the latest or the middle one: no rule that helps much


def test_nobody_mostly_keeps_the_object_of_the_first(drawn: dict[str, dict[str, list[Problem]]]) -> None:
    first = sum(worked_out(OBJECTS, p.question) == first_object(p) for p in drawn[OBJECTS]["train"])
    assert 0.25 < first / SIZE < 0.42  # a third, were it all chance


def first_object(problem: Problem) -> str:
    found = re.search(r": ([\w ]+),", problem.metadata["solution"])
    assert found
    return found[1]


# --- the same everywhere


def test_every_process_makes_the_same_problems() -> None:
    code = (
        "import hashlib; from fcot_lite import tasks\n"
        f"rows = [tasks.load(n, s, limit=100) for n in {GENERATED} for s in tasks.SPLITS]\n"
        f"rows += [tasks.solved_examples(n, count=20) for n in {GENERATED}]\n"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "12345")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (COIN, "072072d42f16305b871aa03f7b0761ef15e333a5d7b715fb171eb71255fb5d35"),
        (LETTERS, "aeda5fbdb6b181d6ee6eaa87e62c1e78e881f98936872dc8e53ada8a7cc8f6f6"),
        (OBJECTS, "082dd2883b9b2d265ad7ca8b0184e3333927b27864b74b2738ed3c6b8ee641b3"),
        (DATES, "46e9b4ff7dcf06b06020ab7c8c7bbac682d8579a416028995141620ac90a632f"),
    ],
)
def test_the_first_problems_are_pinned(drawn: dict[str, dict[str, list[Problem]]], name: str, digest: str) -> None:
    # A problem that changes its text is another problem, and every sample bought for it is lost.
    rows = [(p.id, p.question, p.target, p.metadata) for split in tasks.SPLITS for p in drawn[name][split][:50]]
    assert hashlib.sha256(repr(rows).encode()).hexdigest() == digest


# --- knobs


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)).map(sorted), st.tuples(st.integers(1, 24)).map(lambda n: [*n, 24])
)
def test_objects_keep_their_knobs(people: list[int], swaps: list[int]) -> None:
    for problem in tasks.load(OBJECTS, "train", options={"people": people, "swaps": swaps}, limit=20):
        assert people[0] <= len(problem.metadata["choices"]) <= people[1]
        assert swaps[0] <= len(re.findall(r"(?:First|Then|Finally), ", problem.question)) <= swaps[1]


@pytest.mark.parametrize("flips", [[1, 1], [2, 5], [16, 16]])
def test_coins_and_letters_keep_their_knobs(flips: list[int]) -> None:
    for problem in tasks.load(COIN, "test", options={"flips": flips}, limit=20):
        turns = re.findall(r"(\w+) (?:flips|does not flip) the coin", problem.question)
        assert flips[0] <= len(turns) == len(set(turns)) <= flips[1]
    for problem in tasks.load(LETTERS, "test", options={"words": [max(2, n) for n in flips]}, limit=20):
        assert max(2, flips[0]) <= len(problem.target) <= max(2, flips[1])


def test_dates_keep_their_knobs() -> None:
    for problem in tasks.load(DATES, "train", options={"years": [2000, 2000], "offset": [3, 3]}, limit=300):
        text = stem(problem.question).partition(" What is")[0]
        assert todays_date(text).year in (1999, 2000)  # the last day of December stands before January
        assert all(count == "3" for count in re.findall(r"(\d+) days? (?:ago|early)", text))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (COIN, {"flip": [1, 2]}, "generated_coin_flip: unknown option 'flip': did you mean 'flips'"),
        (COIN, {"flips": 3}, "flips is 3; give [smallest, largest] between 1 and 16"),
        (COIN, {"flips": [0, 3]}, "between 1 and 16"),
        (COIN, {"flips": [4, 17]}, "between 1 and 16"),
        (COIN, {"flips": [True, 3]}, "flips is"),
        (COIN, {"flips": [5, 4]}, "flips is"),
        (LETTERS, {"wrds": [1, 2]}, "did you mean 'words'"),
        (LETTERS, {"words": [1, 4]}, "between 2 and 16"),
        (LETTERS, {"words": "4"}, "words is '4'"),
        (OBJECTS, {"persons": [3, 3]}, "it has people, swaps"),
        (OBJECTS, {"people": [2, 3]}, "between 3 and 7"),
        (OBJECTS, {"people": [3, 8]}, "between 3 and 7"),
        (OBJECTS, {"swap": [3, 8]}, "did you mean 'swaps'"),
        (OBJECTS, {"swaps": [0, 8]}, "between 1 and 24"),
        (OBJECTS, {1: 2}, "unknown option 1"),
        (DATES, {"years": [1899, 2000]}, "between 1900 and 2100"),
        (DATES, {"year": [1999, 2000]}, "did you mean 'years'"),
        (DATES, {"offset": [1.0, 2]}, "offset is [1.0, 2]"),
        (DATES, {"offset": [0, 2]}, "between 1 and 60"),
    ],
)
def test_wrong_knobs_are_named(name: str, options: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        tasks.load(name, "train", options=options, limit=1)
    with pytest.raises(RecipeError, match=re.escape(message)):
        tasks.solved_examples(name, options=options)


def test_a_space_that_is_too_small_ends_in_an_error_that_names_the_knobs() -> None:
    assert len(tasks.load(COIN, "test", options={"flips": [1, 1]}, limit=2 * len(NAMES_OF["test"]))) > 60
    with pytest.raises(
        RecipeError, match=r"generated_coin_flip: no more than \d+ different test problems .*flips \[1, 1\]"
    ):
        tasks.load(COIN, "test", options={"flips": [1, 1]})


def test_letters_that_spell_not_are_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "The answer is not." denies an answer and states none."""
    import random

    from fcot_lite.tasks import generated_names

    monkeypatch.setitem(generated_names.NAMES_OF, "train", ["Ann", "Leo", "Scott"])
    knobs = generated_names.letter_knobs({"words": [3, 3]})
    drawn = [generated_names.draw_letters(random.Random(seed), knobs, "train") for seed in range(60)]
    targets = {item.target for item in drawn if item is not None}
    assert None in drawn
    assert targets == {"nto", "ont", "otn", "tno", "ton"}
