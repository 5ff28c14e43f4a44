"""Does a train question stand in the test split? Word for word, but for case and white space, or by 13 words in a row.

Thirteen words are the measure of the GPT-3 paper (arXiv:2005.14165, appendix C). On a task made from templates nearly
every question shares as many with one of test, so that overlap is counted and shown, and drops only what the recipe
says it should.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fcot_lite.records import Problem
from fcot_lite.tasks.splits import normalised

NGRAM = 13
MOST_EXAMPLES = 10  # shown in curation.json

Kind = Literal["exact", "normalised", "ngram"]
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """The nearest `kind` of what a train question shares with test, the test problem, and the words of an n-gram."""

    problem_id: str
    kind: Kind
    test_problem_id: str
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Contamination:
    """`train` and `test` are numbers of questions, `test_too_short` those of fewer than 13 words, which no n-gram can
    find. `exact`, `normalised` and `ngram` count train questions by their nearest kind, `test_ngram` the questions of
    test that share an n-gram with train. `examples` are the first overlaps of each kind."""

    train: int
    test: int
    test_too_short: int
    exact: int
    normalised: int
    ngram: int
    test_ngram: int
    examples: list[Overlap]


def overlaps(train: Sequence[Problem], test: Sequence[Problem]) -> tuple[dict[str, Overlap], Contamination]:
    """By id of a train problem what it shares with test, and the counts. Memory grows with the words of test."""
    exact = {problem.question: problem.id for problem in reversed(test)}
    texts = {normalised(problem.question): problem.id for problem in reversed(test)}
    ngrams: dict[str, list[str]] = {}
    too_short = 0
    for problem in test:
        of_problem = dict.fromkeys(_ngrams(problem.question))
        too_short += not of_problem
        for ngram in of_problem:
            ngrams.setdefault(ngram, []).append(problem.id)
    found: dict[str, Overlap] = {}
    touched: set[str] = set()
    for problem in train:
        shared = [ngram for ngram in _ngrams(problem.question) if ngram in ngrams]
        touched.update(*(ngrams[ngram] for ngram in shared))
        if problem.question in exact:
            found[problem.id] = Overlap(problem.id, "exact", exact[problem.question])
        elif (text := normalised(problem.question)) in texts:
            found[problem.id] = Overlap(problem.id, "normalised", texts[text])
        elif shared:
            found[problem.id] = Overlap(problem.id, "ngram", ngrams[shared[0]][0], shared[0])
    kinds = Counter(overlap.kind for overlap in found.values())
    shown: list[Overlap] = []
    for kind in ("exact", "normalised", "ngram"):
        shown += [overlap for overlap in found.values() if overlap.kind == kind][:MOST_EXAMPLES]
    return found, Contamination(
        len(train), len(test), too_short, kinds["exact"], kinds["normalised"], kinds["ngram"], len(touched), shown
    )


def _ngrams(question: str) -> Iterator[str]:
    words = _WORD.findall(normalised(question))
    return (" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1))
