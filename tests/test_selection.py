"""Near duplicates, the k of a question that stay, and the cap that keeps easy questions from dominating."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcot_lite import selection
from fcot_lite.selection import BANDS, ROWS, balanced, chosen, near_duplicates, shingles, similarity

LONG = (
    "First Ann has 3 apples and 4 pears. She gives 2 apples to Bob, so 3 - 2 = 1 apple is left, and 1 + 4 = 5 fruits."
)


@pytest.mark.parametrize(
    "other",
    [
        LONG,
        LONG.upper(),
        LONG.replace(" ", "  \n"),
        LONG.replace("5 fruits", "**5 fruits**").replace("First", "- First").replace("1 apple", "`1 apple`"),
        LONG.replace("3 - 2", "3 − 2"),
        "# " + LONG.replace("fruits.", "fruits!"),
        LONG.replace("First", "\ufb01rst"),  # a ligature
        LONG.replace("3", "３"),  # full-width, as some models write it
    ],
)
def test_case_white_space_markdown_and_forms_of_unicode_do_not_make_another_text(other: str) -> None:
    assert near_duplicates([LONG, other], 1.0) == {1: 0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("So 3 + 4 = 7", "So 3 - 4 = 7"),
        ("So 3 * 4 = 12", "So 3 + 4 = 12"),
        ("So 4 - 7 = -3", "So 4 - 7 = 3"),
        ("So 3 < 4 it is", "So 3 > 4 it is"),
        ("It is 3.", "It is 4."),
        ("Straße", "Strasse is"),
        ("数は三です", "数は四です"),
        ("", "a"),
    ],
)
def test_what_means_something_else_is_another_text(one: str, other: str) -> None:
    assert near_duplicates([one, other], 1.0) == {}


def test_texts_without_words_are_the_same() -> None:
    assert near_duplicates(["", "...", "—"], 1.0) == {1: 0, 2: 0}


def test_a_repeat_is_told_of_the_earliest_text_that_stays() -> None:
    other = "Nothing of the kind is said in here at all, is it?"
    assert near_duplicates([other, LONG, LONG + " So.", other.upper(), LONG + " So then."], 0.8) == {2: 1, 3: 0, 4: 1}


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=30).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=8), st.sampled_from([0.7, 0.8, 1.0]))
def test_near_duplicates_are_what_the_jaccard_index_says(texts: list[str], threshold: float) -> None:
    """Never a false one; and at 0.8 and above those that comparing all pairs finds."""
    repeats = near_duplicates(texts, threshold)
    for place, earlier in repeats.items():
        assert earlier < place
        assert earlier not in repeats
        assert similarity(shingles(texts[place]), shingles(texts[earlier])) >= threshold
    if threshold >= 0.8:
        kept: list[int] = []
        for place, text in enumerate(texts):
            if all(similarity(shingles(text), shingles(texts[other])) < threshold for other in kept):
                kept.append(place)
        assert [place for place in range(len(texts)) if place not in repeats] == kept


def test_the_bands_propose_nearly_every_near_pair() -> None:
    missed = {s: (1 - s**ROWS) ** BANDS for s in (0.7, 0.8)}
    assert missed[0.8] < 0.0001
    assert missed[0.7] < 0.011  # so a recipe may not ask for less


def test_comparisons_grow_with_the_texts_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    real = selection.similarity

    def counting(one: frozenset[str], other: frozenset[str]) -> float:
        nonlocal compared
        compared += 1
        return real(one, other)

    monkeypatch.setattr(selection, "similarity", counting)
    # Half of them repeat the text before them, the others share no three words.
    texts = [" ".join(f"w{n // 2}x{word}" for word in range(20)) for n in range(400)]
    assert len(near_duplicates(texts, 0.8)) == 200
    assert compared <= 220  # of 79,800 pairs
    compared = 0
    chosen(texts, [1] * 400, 5, "text")
    assert compared <= 400 * 5


A1, A2, B1, C1 = "3 + 4 = 7", "It is 3 + 4 = 7 apples", "4 + 3 = 7", "No sum at all"


@pytest.mark.parametrize(
    ("by", "k", "stay"),
    [
        ("first", 2, {0, 1}),
        ("shortest", 2, {2, 3}),
        ("equations", 2, {0, 2}),
        ("equations", 3, {0, 2, 3}),  # the empty list is one of its own
        ("equations", 4, {0, 1, 2, 3}),  # then the second text of a list
        ("text", 1, {0}),
        ("first", 9, {0, 1, 2, 3, 4}),
    ],
)
def test_the_rule_chooses(by: selection.Select, k: int, stay: set[int]) -> None:
    texts = [A1, A2, B1, C1, A1 + "!"]
    assert chosen(texts, [5, 9, 3, 4, 5], k, by) == stay


def test_by_text_the_farthest_come_first() -> None:
    words = ["one", "two", "three", "four", "five", "six"]
    near = " ".join([*words[:5], "seven"])
    far = "not a word of it is here"
    assert chosen([" ".join(words), near, far], [1, 1, 1], 2, "text") == {0, 2}
    assert chosen(["x", "x", "x"], [1, 1, 1], 2, "text") == {0, 1}  # ties go to the earlier


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([A1, A2, B1, C1, LONG, ""]), max_size=9),
    st.integers(1, 5),
    st.sampled_from(["first", "shortest", "equations", "text"]),
)
def test_k_stay_or_all(texts: Sequence[str], k: int, by: selection.Select) -> None:
    stay = chosen(texts, [len(text) for text in texts], k, by)
    assert len(stay) == min(k, len(texts))
    assert stay <= set(range(len(texts)))


def test_the_cap_is_the_median_of_the_questions_that_have_rows() -> None:
    assert balanced([0, 1, 2, 8, 8, 0]) == 2
    assert balanced([4]) == 4
    assert balanced([0, 0]) == balanced([]) == 0
