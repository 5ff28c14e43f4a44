"""How different the correct rationales of one question are: by their equations, their text, and how they end.

Several correct rationales teach more than one only where they differ: rejection-sampling fine-tuning counts the
distinct lists of equations (Yuan et al., 2023, arXiv:2308.01825), self-BLEU measures the text (Zhu et al., 2018,
arXiv:1802.01886).
"""

import math
import re
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from fcot_lite import answers
from fcot_lite.equations import equations as read_equations

LONGEST_NGRAM = 4
_TOKEN = re.compile(r"[^\W\d_]+|[0-9]+(?:[.,][0-9]+)*|[^\w\s]")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Diversity:
    """Counts of what differs among `num_rationales` texts. `self_bleu` is 1 where all are the same and near 0 where
    they share no four words in a row; None for fewer than two texts."""

    num_rationales: int
    num_equation_lists: int
    num_skeletons: int
    self_bleu: float | None
    num_final_forms: int


def equations(text: str) -> tuple[str, ...]:
    """The equations in the order of the text, without spaces and units: ("3*4=12", "12-5=7"). Operands keep their
    order, and one that is said again is listed once."""
    read = (equation for equation in read_equations(text) if not equation.left.lone or not equation.right.lone)
    return tuple(dict.fromkeys(f"{equation.left}={equation.right}" for equation in read))


def skeleton(text: str) -> tuple[str, ...]:
    """The equations with each number named by its first appearance: ("a*b=c", "c-d=e"). Two rationales share it where
    they do the same steps with other numbers."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        return names.setdefault(match.group(), f"n{len(names)}")

    return tuple(_NUMBER.sub(name, equation) for equation in equations(text))


def final_form(text: str) -> str:
    """How the text states its answer the last time, from the statement to the end of its line, in small letters and
    with 0 for digits: "the answer is 0 apples."; empty where it states none."""
    stated = deque(answers.STATED.finditer(text), maxlen=1)
    if not stated:
        return ""
    line = text[stated[0].start() :].lstrip().partition("\n")[0]
    return re.sub(r"[0-9]+", "0", " ".join(line.casefold().split()))


def diversity(rationales: Sequence[str]) -> Diversity:
    """What differs among the rationales of one question. One without equations has the empty list of them."""
    return Diversity(
        len(rationales),
        len({equations(text) for text in rationales}),
        len({skeleton(text) for text in rationales}),
        self_bleu(rationales),
        len({final_form(text) for text in rationales}),
    )


def self_bleu(texts: Sequence[str]) -> float | None:
    """The mean of each text's BLEU-4 against all others (0 to 1, higher is more alike); None for fewer than two texts.

    Precisions above one word get one added to both counts (Lin and Och, 2004), so that a short text is not 0.
    Time grows linearly with the texts: a clip against all others needs only the two highest counts of an n-gram.
    """
    if len(texts) < 2:
        return None
    tokens = [_TOKEN.findall(text.casefold()) for text in texts]
    logs = [0.0] * len(texts)
    for n in range(1, LONGEST_NGRAM + 1):
        counts = [Counter(_ngrams(words, n)) for words in tokens]
        highest: dict[tuple[str, ...], tuple[int, int, int]] = {}  # count, its text, the highest of another text
        for place, counted in enumerate(counts):
            for ngram, count in counted.items():
                first, owner, second = highest.get(ngram, (0, -1, 0))
                highest[ngram] = (count, place, first) if count > first else (first, owner, max(second, count))
        for place, counted in enumerate(counts):
            clipped = 0
            for ngram, count in counted.items():
                first, owner, second = highest[ngram]
                clipped += min(count, second if owner == place else first)
            added = 0 if n == 1 else 1
            total = sum(counted.values()) + added
            share = (clipped + added) / total if total else 0.0
            logs[place] += math.log(share) / LONGEST_NGRAM if share else -math.inf
    lengths = sorted(map(len, tokens))
    return sum(math.exp(log) * _brevity(len(words), lengths) for log, words in zip(logs, tokens, strict=True)) / len(
        texts
    )


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def _brevity(length: int, lengths: Sequence[int]) -> float:
    """The penalty against the other text of the closest length, the shorter of two as close."""
    own = bisect_left(lengths, length)
    others = [lengths[at] for at in (own - 1, own + 1) if 0 <= at < len(lengths)]
    closest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= closest else math.exp(1 - closest / length) if length else 0.0
