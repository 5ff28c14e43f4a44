"""Which rows of a question stay: no near duplicates, the k first, shortest or most different, none beyond the median.

All of it looks at one question at a time but for the cap of `balance`. The same words below two questions are two
lessons, so rows are never compared across questions.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from statistics import median_low

from fcot_lite import diversity
from fcot_lite.curate_block import Select

# 25 bands of 5 rows propose a pair of similarity s with probability 1 - (1 - s^5)^25: 0.9999 at 0.8, 0.99 at 0.7. What
# they propose is compared exactly, so nothing is dropped that is not as near as the recipe says.
BANDS, ROWS = 25, 5
NGRAM = 3
# A star or a dash is a sign of arithmetic before a number, else markdown.
_WORD = re.compile(r"[^\W_]+|[+/×÷=<>%^]|-(?=\s*[\d($])|(?<=[\d)\s])\*(?=\s*[\d($])")


def shingles(text: str) -> frozenset[str]:
    """The word triples of a text; case, white space, punctuation and markdown do not matter, signs of arithmetic do. A
    text of fewer words is one shingle."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).replace("−", "-").casefold())
    if len(words) < NGRAM:
        return frozenset([" ".join(words)])
    return frozenset(map(" ".join, zip(*(words[n:] for n in range(NGRAM)), strict=False)))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard index: shingles in common, of all there are."""
    return len(one & other) / len(one | other)


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """By place of a near duplicate the place of the earlier text that it repeats. Texts are taken in order, and each is
    compared with those that stay."""
    from datasketch import MinHash, MinHashLSH

    if len(texts) < 2:
        return {}
    kept: dict[int, frozenset[str]] = {}
    repeats: dict[int, int] = {}
    empty = MinHash(num_perm=BANDS * ROWS, seed=1)
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    for place, text in enumerate(texts):
        own = shingles(text)
        sketch = empty.copy()
        sketch.update_batch([shingle.encode() for shingle in own])
        # Sorted: the index gives them in the order of a set.
        near = (other for other in sorted(index.query(sketch)) if similarity(own, kept[other]) >= threshold)
        earlier = next(near, None)
        if earlier is None:
            kept[place] = own
            index.insert(place, sketch)
        else:
            repeats[place] = earlier
    return repeats


def chosen(texts: Sequence[str], num_tokens: Sequence[int], k: int, by: Select) -> set[int]:
    """The places of the k texts that stay; all where there are no more. Ties go to the earlier one.

    `equations`: distinct lists of equations first, then the second text of each list, and so on. `text`: the first,
    then again and again the one whose nearest among those chosen is farthest.
    """
    if len(texts) <= k:
        return set(range(len(texts)))
    if by == "shortest":
        order = sorted(range(len(texts)), key=lambda place: num_tokens[place])
    elif by == "equations":
        order = _by_equations(texts)
    elif by == "text":
        order = _farthest_first(texts, k)
    else:
        order = list(range(len(texts)))
    return set(order[:k])


def _by_equations(texts: Sequence[str]) -> list[int]:
    seen: defaultdict[tuple[str, ...], int] = defaultdict(int)
    rounds = []
    for text in texts:
        equations = diversity.equations(text)
        rounds.append(seen[equations])
        seen[equations] += 1
    return sorted(range(len(texts)), key=lambda place: rounds[place])


def _farthest_first(texts: Sequence[str], k: int) -> list[int]:
    sets = [shingles(text) for text in texts]
    order = [0]
    nearest = dict.fromkeys(range(1, len(texts)), 0.0)
    while len(order) < k:
        for place in nearest:
            nearest[place] = max(nearest[place], similarity(sets[place], sets[order[-1]]))
        order.append(min(nearest, key=lambda place: (nearest[place], place)))
        del nearest[order[-1]]
    return order


def balanced(counts: Sequence[int]) -> int:
    """The most rows of one question: the median (the lower one) of the questions that have any."""
    return median_low([count for count in counts if count] or [0])
