"""The paper's evaluator: the sixty verdicts that are known, each rule and quirk by name, and its rules once more as
lists of candidates, against which texts made by hypothesis are compared."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite.errors import DataError
from fcot_lite.paper_rules import PREFIXES, RULES, TEMPLATES, verdict

DATA = os.environ.get("FCOT_DATA") or None
FLOATS = ("addsub", "svamp", "single_eq")


@pytest.mark.skipif(DATA is None, reason="FCOT_DATA names no folder with paper-mode-examples.jsonl")
def test_agrees_with_the_official_evaluator_on_the_known_rows() -> None:
    assert DATA is not None
    rows = [json.loads(line) for line in (Path(DATA) / "paper-mode-examples.jsonl").read_text().splitlines()]
    assert len(rows) == 60
    assert {row["task"] for row in rows} == set(RULES)
    for row in rows:
        found = verdict(row["text"], row["task"], row["target"], row["template"], "paper")
        extracted = float(found.extracted) if row["task"] in FLOATS and found.extracted is not None else found.extracted
        assert (found.correct, extracted) == (row["correct"], row["extracted"]), row


LETTERS = "last_letter_concatenation"
# name, task, template, text, target, correct, extracted
ROWS = [
    # Which candidate: no prefix.
    ("zs takes the first", "gsm8k", "zs", "5, no, 6", "5", True, "5"),
    ("zs_cot takes the first", "gsm8k", "zs_cot", "5 or 6", "6", False, "5"),
    ("ft takes the first", "gsm8k", "ft", "5 or 6", "5", True, "5"),
    ("ft_token takes the first", "gsm8k", "ft_token", "5 or 6", "5", True, "5"),
    ("ft_natural takes the first", "gsm8k", "ft_natural", "5 or 6", "5", True, "5"),
    ("zs_cot looks for no prefix", "gsm8k", "zs_cot", "5 --> 6", "5", True, "5"),
    ("zs does not look for The answer is", "gsm8k", "zs", "5. The answer is 6", "5", True, "5"),
    # Which candidate: behind a prefix.
    ("ft_cot_token: first behind the arrow", "gsm8k", "ft_cot_token", "2+3 --> 5 6", "5", True, "5"),
    ("ft_cot_token: first arrow of two", "gsm8k", "ft_cot_token", "1 --> 2 --> 3", "2", True, "2"),
    ("ft_cot_token: arrow missing, last of the text", "gsm8k", "ft_cot_token", "2 and 3 is 5", "5", True, "5"),
    ("ft_cot_token: arrow with nothing behind", "gsm8k", "ft_cot_token", "so 5 -->", "5", False, None),
    ("ft_cot_token: words behind the arrow", "gsm8k", "ft_cot_token", "5 --> five", "5", False, None),
    ("ft_cot_token: a short arrow is none", "gsm8k", "ft_cot_token", "1 -> 2 and 3", "3", True, "3"),
    ("ft_cot_token: a number touches the arrow", "gsm8k", "ft_cot_token", "2-->-5", "-5", True, "-5"),
    ("ft_cot_token: a longer arrow eats the sign", "gsm8k", "ft_cot_token", "--->5", "5", True, "5"),
    ("natural: first behind its prefix", "gsm8k", "ft_cot_natural", "1. Therefore, the answer is 5 6", "5", True, "5"),
    ("natural: a comma missing", "gsm8k", "ft_cot_natural", "Therefore the answer is 5. 6", "6", True, "6"),
    ("natural: case matters", "gsm8k", "ft_cot_natural", "therefore, the answer is 5. 6", "6", True, "6"),
    ("fs_cot: first behind its prefix", "gsm8k", "fs_cot", "2+3. The answer is 5. Q: 7", "5", True, "5"),
    ("fs_cot: missing, last of the text", "gsm8k", "fs_cot", "2 and 3 make 5", "5", True, "5"),
    ("fs_cot: goes on into the next question", "gsm8k", "fs_cot", "It is 5.\n\nQ: 7 apples", "5", False, "7"),
    ("fs_cot: small the is no prefix", "gsm8k", "fs_cot", "the answer is 5 of 6", "6", True, "6"),
    ("fs_cot: Therefore, the is no prefix", "gsm8k", "fs_cot", "Therefore, the answer is 5 of 6", "6", True, "6"),
    ("a prefix over a line break is none", "gsm8k", "fs_cot", "The answer\nis 5 of 6", "6", True, "6"),
    ("no candidate at all", "gsm8k", "fs_cot", "no idea", "5", False, None),
    ("an empty text", "gsm8k", "zs_cot", "", "5", False, None),
    # Numbers.
    ("thousands commas go", "gsm8k", "zs_cot", "7,092.", "7092", True, "7092"),
    ("every comma goes, digits join", "gsm8k", "zs_cot", "1,2,3", "123", True, "123"),
    ("a comma and a space do not join", "gsm8k", "zs_cot", "1, 2", "1", True, "1"),
    ("a comma before a sign", "gsm8k", "zs_cot", "-,5", "-5", True, "-5"),
    ("gold with a thousands comma", "gsm8k", "zs_cot", "$114,200", "114,200", True, "114200"),
    ("a decimal is not its integer as text", "gsm8k", "zs_cot", "18.00", "18", False, "18.00"),
    ("multiarith compares text as well", "multiarith", "zs_cot", "10.0", "10", False, "10.0"),
    ("leading zeros are not dropped", "multiarith", "zs_cot", "007", "7", False, "007"),
    ("a full stop is no decimal point", "gsm8k", "zs_cot", "5.", "5", True, "5"),
    ("a point without digits before it", "gsm8k", "zs_cot", ".5", "5", True, "5"),
    ("of a fraction the numerator", "gsm8k", "zs_cot", "1/2", "1", True, "1"),
    ("a hyphen is a minus sign", "gsm8k", "ft_cot_token", "3-4", "-4", True, "-4"),
    ("a minus sign apart is none", "gsm8k", "zs_cot", "- 5", "5", True, "5"),
    ("a true minus sign is none", "gsm8k", "zs_cot", "−5", "5", True, "5"),
    ("a plus sign is dropped", "gsm8k", "zs_cot", "+5", "5", True, "5"),
    ("of an exponent the mantissa", "gsm8k", "zs_cot", "1e5", "1", True, "1"),
    ("of a version the first two parts", "gsm8k", "zs_cot", "1.2.3", "1.2", True, "1.2"),
    ("last of a version is the rest", "gsm8k", "ft_cot_token", "1.2.3", "3", True, "3"),
    ("last of four parts is a pair", "gsm8k", "ft_cot_token", "1.2.3.4", "3.4", True, "3.4"),
    ("last before points and signs", "gsm8k", "ft_cot_token", "4 5.--", "5", True, "5"),
    ("a number within a word", "gsm8k", "zs_cot", "x5y", "5", True, "5"),
    ("words are no numbers", "multiarith", "zs_cot", "thirty-seven.", "37", False, None),
    ("digits of another alphabet, as text", "gsm8k", "zs_cot", "٥", "5", False, "٥"),
    ("a superscript is no digit", "gsm8k", "zs_cot", "²5", "5", True, "5"),
    ("the first step number is the answer", "gsm8k", "zs_cot", "Step 1: 2+3=5", "5", False, "1"),
    # Numbers that are compared as floats.
    ("7,092 as a float", "single_eq", "zs_cot", "7,092.", "7092", True, "7092.0"),
    ("18.00 is 18 as a float", "addsub", "zs_cot", "18.00", "18", True, "18.0"),
    ("digits of another alphabet, as a float", "svamp", "zs_cot", "٥", "5", True, "5.0"),
    ("just within the tolerance", "svamp", "zs_cot", "0.3333333", "0.333333", True, "0.3333333"),
    ("just outside of the tolerance", "svamp", "zs_cot", "0.333331", "0.333333", False, "0.333331"),
    ("the tolerance is absolute", "svamp", "zs_cot", "0.0000009", "0", True, "9e-07"),
    ("gold with a comma as a float", "addsub", "zs_cot", "1234", "1,234", True, "1234.0"),
    ("gold as 4.0", "addsub", "zs_cot", "4", "4.0", True, "4.0"),
    ("gold with an exponent", "addsub", "zs_cot", "1000", "1e3", True, "1000.0"),
    ("minus zero", "addsub", "zs_cot", "-0", "0", True, "-0.0"),
    ("too large for a float", "addsub", "zs_cot", "9" * 400, "9", False, "inf"),
    ("cents for dollars", "single_eq", "zs_cot", "86 cents", "0.86", False, "86.0"),
    # Choices.
    ("a letter in a word", "tracking_shuffled_objects", "zs_cot", "Colds", "C", True, "C"),
    ("a word's first letter", "commonsense_qa", "zs_cot", "Because it is B", "B", True, "B"),
    ("a sentence's A", "commonsense_qa", "zs_cot", "A dog, so C", "C", False, "A"),
    ("first of several", "commonsense_qa", "zs_cot", "(B), (D), or (E)", "B", True, "B"),
    ("last where the prefix is missing", "commonsense_qa", "ft_cot_token", "B, or D", "D", True, "D"),
    ("the answer in Therefore is E? no capitals", "aqua", "zs_cot", "therefore", "E", False, None),
    ("a small letter is none", "aqua", "zs_cot", "(b)", "B", False, None),
    ("F is no choice of aqua", "aqua", "zs_cot", "F or E", "E", True, "E"),
    ("F is a choice of dates", "date_understanding", "zs_cot", "F or E", "F", True, "F"),
    ("a month as a letter", "date_understanding", "zs_cot", "December", "D", True, "D"),
    ("D is no choice of shuffled objects", "tracking_shuffled_objects", "zs_cot", "D or B", "B", True, "B"),
    ("Alice is an A", "tracking_shuffled_objects", "zs_cot", "Alice has (B)", "B", False, "A"),
    ("an option's own text is none", "commonsense_qa", "zs_cot", "the table", "D", False, None),
    ("a wide letter is none", "aqua", "zs_cot", "\uff22", "B", False, None),
    # Yes and no.
    ("any case", "strategy_qa", "zs_cot", "YES", "yes", True, "yes"),
    ("gold of strategy_qa in any case", "strategy_qa", "zs_cot", "yes", "Yes", True, "yes"),
    ("gold of coin_flip as it is", "coin_flip", "zs_cot", "Yes", "Yes", False, "yes"),
    ("between quotes", "coin_flip", "zs_cot", '"yes"', "yes", True, "yes"),
    ("between apostrophes", "coin_flip", "zs_cot", "'no'", "no", True, "no"),
    ("before stop, comma, colon", "coin_flip", "zs_cot", "no.,:", "no", True, "no"),
    ("behind an unbroken space", "coin_flip", "zs_cot", "is\u00a0no", "no", True, "no"),
    ("before a line separator", "coin_flip", "zs_cot", "no\u2028yes", "no", True, "no"),
    ("in brackets it is none", "coin_flip", "zs_cot", "(yes)", "yes", False, None),
    ("before ! it is none", "coin_flip", "zs_cot", "No! yes", "yes", True, "yes"),
    ("before ; it is none", "coin_flip", "zs_cot", "no; yes", "yes", True, "yes"),
    ("before a dash it is none", "coin_flip", "zs_cot", "yes-man", "yes", False, None),
    ("between asterisks it is none", "coin_flip", "zs_cot", "**yes**", "yes", False, None),
    ("between curly quotes it is none", "coin_flip", "zs_cot", "“yes”", "yes", False, None),
    ("a longer word is none", "coin_flip", "zs_cot", "not nowhere yesterday", "no", False, None),
    ("no in a sentence counts", "coin_flip", "zs_cot", "There is no doubt: yes", "yes", False, "no"),
    ("last where the prefix is missing, yes", "coin_flip", "ft_cot_token", "no, no, yes.", "yes", True, "yes"),
    ("an apostrophe splits", "coin_flip", "zs_cot", "yes'm", "yes", True, "yes"),
    # Letters.
    ("quotes and stop go", LETTERS, "zs_cot", ' "eksa".', "eksa", True, "eksa"),
    ("letters apart join", LETTERS, "zs_cot", "e k s a", "eksa", True, "eksa"),
    ("white space of any kind goes", LETTERS, "zs_cot", "e\u00a0k\u2028s\x1ca\n", "eksa", True, "eksa"),
    ("a comma stays", LETTERS, "zs_cot", "e,k,s,a", "eksa", False, "e,k,s,a"),
    ("a colon stays", LETTERS, "zs_cot", ": eksa", "eksa", False, ":eksa"),
    ("case matters", LETTERS, "zs_cot", "EKSA", "eksa", False, "EKSA"),
    ("a sentence is one candidate", LETTERS, "zs_cot", "It is eksa.", "eksa", False, "Itiseksa"),
    ("an empty text is a candidate", LETTERS, "zs_cot", "", "eksa", False, ""),
    ("only quotes is an empty candidate", LETTERS, "zs_cot", ' "". ', "eksa", False, ""),
    ("an empty end behind the arrow", LETTERS, "ft_cot_token", "eksa -->", "eksa", False, ""),
    ("letters behind the arrow", LETTERS, "ft_cot_token", "so it is --> eksa", "eksa", True, "eksa"),
    ("without the arrow the whole text", LETTERS, "ft_cot_token", "so eksa", "eksa", False, "soeksa"),
    ("curly quotes stay", LETTERS, "zs_cot", "“eksa”", "eksa", False, "“eksa”"),
]


@pytest.mark.parametrize(
    ("task", "template", "text", "target", "correct", "extracted"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_paper(task: str, template: str, text: str, target: str, correct: bool, extracted: str | None) -> None:
    found = verdict(text, task, target, template, "paper")
    assert (found.correct, found.extracted) == (correct, extracted)
    assert found.reason == ("correct" if correct else "no answer" if extracted is None else "wrong")
    if template != "zs_cot":
        assert verdict(text, task, target, template, "paper-v1") == found


V1_ROWS = [
    ("a teacher's last number counts", "gsm8k", "5 or 6", "6", "6"),
    ("a teacher's last letter counts", "commonsense_qa", "(A), (B), (D), or (E).", "E", "E"),
    ("a teacher's last word counts", "strategy_qa", "There is no doubt: yes", "Yes", "yes"),
    ("a teacher's last float counts", "svamp", "3 - 1 = 2.0", "2", "2.0"),
    ("an arrow in a teacher's text", "gsm8k", "4 --> 5 or 6", "5", "5"),
    ("one candidate is first and last", "gsm8k", " 540 seconds.", "540", "540"),
    ("letters are one candidate anyway", "last_letter_concatenation", ' "eksa".', "eksa", "eksa"),
]


@pytest.mark.parametrize(
    ("task", "text", "target", "extracted"), [row[1:] for row in V1_ROWS], ids=[row[0] for row in V1_ROWS]
)
def test_v1_filtered_teachers_with_the_students_template(task: str, text: str, target: str, extracted: str) -> None:
    assert verdict(text, task, target, "zs_cot", "paper-v1") == verdict(text, task, target, "ft_cot_token", "paper")
    found = verdict(text, task, target, "zs_cot", "paper-v1")
    assert (found.correct, found.extracted) == (True, extracted)


def test_rows_have_names_of_their_own() -> None:
    names = [row[0] for row in ROWS] + [row[0] for row in V1_ROWS]
    assert len(set(names)) == len(names) >= 60


def candidates(text: str, task: str) -> list[str]:
    """The rules again, as the evaluator states them: all candidates of a text."""
    if task in ("gsm8k", "multiarith", *FLOATS):
        return re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
    if task in ("strategy_qa", "coin_flip"):
        return [word for word in re.sub(r"""["'\s.:,]""", " ", text.lower()).split(" ") if word in ("yes", "no")]
    if task == "last_letter_concatenation":
        return [re.sub(r"""["'\s.]""", "", text)]
    letters = {"date_understanding": "ABCDEF", "tracking_shuffled_objects": "ABC"}.get(task, "ABCDE")
    return [character for character in text if character in letters]


CHARACTERS = "1٣².,-−İAFb'\":( \n\u2028\x1c\u00a0\ud800\0"
PIECES = [*CHARACTERS, "yes", "No", "-->", "The answer is", "Therefore, the answer is"]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30)


@given(text=texts, task=st.sampled_from(sorted(RULES)), template=st.sampled_from(TEMPLATES))
def test_finds_the_candidate_that_a_list_of_all_gives(text: str, task: str, template: str) -> None:
    prefix = PREFIXES[template]
    if prefix is None or prefix in text:
        found, index = candidates(text if prefix is None else text.split(prefix, 1)[1], task), 0
    else:
        found, index = candidates(text, task), -1
    expected = found[index] if found else None
    if expected is not None and task in FLOATS:
        expected = str(float(expected))
    assert verdict(text, task, "1", template, "paper").extracted == expected


LONG = {
    "digits": "9",
    "numbers": "1 ",
    "points": "1.",
    "signs": "-1",
    "letters": "A",
    "words": "no ",
    "half words": "ye no",
    "space": " ",
    "stops": ".",
    "brackets": "(",
    "arrows": "--",
    "other digits": "٣",
}


@pytest.mark.parametrize("piece", LONG.values(), ids=LONG)
@pytest.mark.parametrize("task", ["gsm8k", "svamp", "aqua", "coin_flip", "last_letter_concatenation"])
def test_time_grows_no_faster_than_the_text(piece: str, task: str) -> None:
    def seconds(characters: int) -> float:
        text = piece * (characters // len(piece))
        best = 1.0
        for _ in range(3):
            start = time.process_time()
            verdict(text, task, "1", "ft_cot_token", "paper")
            best = min(best, time.process_time() - start)
        return best

    # 4 times the linear growth, and room for a busy machine; what is quadratic takes minutes.
    assert seconds(1_000_000) < 40 * seconds(100_000) + 0.1


@pytest.mark.parametrize("target", ["", "five", "nan", "inf", "1/2", "9" * 400])
def test_a_gold_answer_that_is_no_float_is_named(target: str) -> None:
    with pytest.raises(DataError, match="is not a number"):
        verdict("5", "addsub", target, "zs_cot", "paper")


@pytest.mark.parametrize("task", ["", "GSM8K", "tracking", "chain_arithmetic", "rg:sudoku"])
def test_a_task_without_rules_is_named(task: str) -> None:
    with pytest.raises(DataError, match="the paper has no rules for it"):
        verdict("A", task, "A", "zs_cot", "paper")


@pytest.mark.parametrize("template", ["", "special", "ft_cot", "ZS"])
def test_an_unknown_template_is_named_with_the_known_ones(template: str) -> None:
    with pytest.raises(DataError, match=r"template .* ft_cot_token"):
        verdict("5", "gsm8k", "5", template, "paper")


def test_a_missing_template_is_named() -> None:
    with pytest.raises(DataError, match="needs the template"):
        verdict("5", "gsm8k", "5", None, "paper-v1")
