"""Golden replays: a text is followed step by step through a problem whose every state can be computed.

What a text states on the way, such as the side of the coin after Bob's turn, is compared with the truth that the
question gives. The sentence that states the answer is left to answers.grade. Time grows linearly with the text; texts
are searched, never evaluated, and none raises. How often a replay is right is measured in docs/rationales.md.
"""

from collections.abc import Mapping

from fcot_lite.records import Problem
from fcot_lite.replays import chain, coin_flip, dates, last_letters, shuffled_objects
from fcot_lite.replays.following import Follow, Reader
from fcot_lite.replays.following import Replay as Replay

READERS: Mapping[str, Reader] = {
    "coin_flip": coin_flip.read,
    "generated_coin_flip": coin_flip.read,
    "last_letter_concatenation": last_letters.read,
    "generated_last_letters": last_letters.read,
    "tracking_shuffled_objects": shuffled_objects.read,
    "generated_shuffled_objects": shuffled_objects.read,
    "date_understanding": dates.read,
    "generated_date_understanding": dates.read,
    "chain_arithmetic": chain.read,
}


def can_replay(problem: Problem) -> bool:
    """Whether texts can be followed through this problem: it is of a task with replays, its question can be read, and
    what it leads to is the gold answer."""
    return _follow(problem) is not None


def replay(text: str, problem: Problem) -> Replay:
    """How far `text` could be followed, and what in it is wrong; "not followed" with no steps for a problem that cannot
    be replayed."""
    follow = _follow(problem)
    return Replay("not followed", 0, 0, ()) if follow is None else follow(text)


def _follow(problem: Problem) -> Follow | None:
    read = READERS.get(problem.id.partition("/")[0])
    return None if read is None else read(problem)
