"""What differs among rationales: equation lists, skeletons, text, final forms."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcot_lite.diversity import Diversity, diversity, equations, final_form, self_bleu, skeleton


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("She has 3 * 4 = 12 pens and 12 - 5 = 7 left.", ("3*4=12", "12-5=7")),
        ("\\( 3 \\times 4 = 12 \\)", ("3*4=12",)),
        ("3 x 4.00 = $12.0", ("3*4=12",)),
        ("\\frac{24}{3} = 8", ("24/3=8",)),
        ("\\frac{20 + 4}{3} = 8", ("(20+4)/(3)=8",)),
        ("20% of 1,000 is 200", ("20%*1000=200",)),
        ("1/4 + 0.5 = .75", ("1/4+0.5=0.75",)),
        ("3 + 4 = 7 + 5 = 12", ("3+4=7+5", "7+5=12")),
        ("3 + 4 = 7. So 3 + 4 = 7.", ("3+4=7",)),
        ("3 + 4 = 8", ("3+4=8",)),  # what it says, not what is true
        ("x + 3 = 7", ()),
        ("", ()),
    ],
)
def test_equations_without_their_clothes(text: str, listed: tuple[str, ...]) -> None:
    assert equations(text) == listed


def test_the_order_of_operands_is_a_difference() -> None:
    assert equations("3 + 4 = 7") != equations("4 + 3 = 7")


def test_a_skeleton_keeps_which_result_goes_where() -> None:
    assert skeleton("3 * 4 = 12. 12 - 5 = 7.") == skeleton("6 * 7 = 42. 42 - 1 = 41.")
    assert skeleton("3 * 4 = 12. 12 - 5 = 7.") != skeleton("3 * 4 = 12. 9 - 2 = 7.")
    assert skeleton("3 + 3 = 6") != skeleton("3 + 4 = 7")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("3 + 4 = 7. The answer is 7.", "answer is 0."),
        ("So \\(\\boxed{12}\\).", "boxed{0}\\)."),
        ("#### 12", "### 0"),
        ("The answer is 3. The final answer:  12 Apples\nand", "answer: 0 apples"),
        ("12 apples", ""),
    ],
)
def test_final_forms(text: str, form: str) -> None:
    assert final_form(text).lstrip("\\#") == form.lstrip("\\#")


def test_counts_of_three_rationales() -> None:
    texts = [
        "3 * 4 = 12. 12 - 5 = 7. The answer is 7.",
        "First 3 * 4 = 12, then 12 - 5 = 7. The answer is 7.",
        "4 - 2 = 2, and 2 + 5 = 7.\n#### 7",
    ]
    found = diversity(texts)
    assert found == Diversity(3, 2, 2, self_bleu(texts), 2)
    assert diversity([]) == Diversity(0, 0, 0, None, 0)
    assert diversity(["", ""]).num_equation_lists == 1


def test_self_bleu_by_hand() -> None:
    # Each against the other: 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours, each but the first plus one.
    by_hand = (4 / 5 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx(by_hand)
    # The shorter one is all found and pays for its length: exp(1 - 6 / 4); of the longer one 4/6, 4/6, 3/5 and 2/4.
    short, long = math.exp(1 - 6 / 4), (4 / 6 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25
    assert self_bleu(["a b c d", "a b c d e f"]) == pytest.approx((short + long) / 2)


def test_a_count_is_clipped_by_the_best_other_text_not_by_their_sum() -> None:
    # "a" stands three times in the first text, at most twice in another: 2 of 3. "a a": 1 of 2, both plus one.
    first = (2 / 3 * 2 / 3 * 1 / 2 * 1 / 1) ** 0.25
    second = (2 / 2 * 2 / 2 * 1 * 1) ** 0.25
    assert self_bleu(["a a a", "a a", "a a"]) == pytest.approx((first + 2 * second) / 3)


def test_self_bleu_of_the_same_and_of_strangers() -> None:
    assert self_bleu(["one two three four five"] * 3) == pytest.approx(1)
    assert self_bleu(["one two three four", "five six seven eight"]) == 0
    assert self_bleu(["one"]) is None
    assert self_bleu(["", ""]) == 0


@given(st.lists(st.text(alphabet="ab c1=+2.", max_size=60), max_size=6))
def test_bounds_and_order(texts: list[str]) -> None:
    found = diversity(texts)
    assert found.num_skeletons <= found.num_equation_lists <= found.num_rationales == len(texts)
    assert found.num_final_forms <= len(texts)
    if len(texts) > 1:
        assert found.self_bleu is not None
        assert -1e-9 <= found.self_bleu <= 1 + 1e-9
        backwards = diversity(texts[::-1])
        assert backwards.self_bleu == pytest.approx(found.self_bleu)
        assert backwards.num_skeletons == found.num_skeletons


def test_self_bleu_grows_linearly_with_the_number_of_texts() -> None:
    def once(count: int) -> float:
        texts = [f"she has {n} pens and he has {n + 1} pencils so they have {2 * n + 1}" for n in range(count)]
        began = time.process_time()
        self_bleu(texts)
        return time.process_time() - began

    def seconds(count: int) -> float:
        return min(once(count) for _ in range(3))  # what else the machine does only adds

    assert seconds(4000) < 12 * seconds(1000) + 0.1  # quadratic would be 16 times
