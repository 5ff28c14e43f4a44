"""Who holds what after each swap.

Where in the story a text stands is a set of places, counted in swaps done: a pair that swaps twice may be at either.
What the text says of a person is wrong where it is wrong at every place, and otherwise leaves the places at which it is
right.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fcot_lite.records import Problem
from fcot_lite.replays.following import ORDINALS, STATES_THE_ANSWER, Follow, Notes, Replay, any_of, ordinal, sentences

VERB = r"(?:swap|switch|trade|exchange|change)(?:s|es|d|ped|ing|ping)?"
TOLD_SWAP = re.compile(r"(?:First|Then|Finally), ([A-Z]\w+) and ([A-Z]\w+) (?:swap|switch|trade|exchange|change)\b")
MARK = r"[\s*_\"'“”’(]{0,4}"  # blanks, quotes and markdown
# The words that may stand between a person and what the person holds.
WORDS = """
    now still then currently also again has have had holds hold held holding is was in on at with the a an his her
    their gets got get receives received takes took ends ended up left brings brought borrows borrowed looks looking
    look after starts started playing plays dancing dances keeps kept feeds owns will be who partner of position back
    being ball balloon animal present gift book seat dish that's which
""".split()  # noqa: SIM905
HOLDS = rf"(?:{MARK}(?:(?:\b(?:{any_of(WORDS)})\b|:|=|->|→|-|–|['’]s\b|,(?= (?:who|now|which)\b)){MARK}){{0,7}}|\s)"
HELD_BY = rf"{MARK}(?:(?:\b(?:now|still|goes|is|to|with|by|held|belongs|then|being)\b|:|=|->|→){MARK}){{1,4}}"
AMBIGUOUS = {"left", "right", *ORDINALS}  # "Ann left", "Ann first swaps"
GIVES = re.compile(r"\b(?:gives?|gave|hands?|swaps?|trades?|passes|goes to|had|was|were|originally|before)\b", re.I)
AT_THE_START = re.compile(r"\b(?:start\w*|initial\w*|beginning|originally|at first|begin|begins)\b", re.I)
AT_THE_END = re.compile(
    r"\b(?:(?:at|in|by) the (?:very )?end|final(?:ly)? (?:\w+ ){0,3}(?:has|have|is|state|positions?|result)|ends up)\b",
    re.I,
)
CONCLUDES = re.compile(r"\b(?:so|thus|therefore|hence|conclusion)\b", re.I)
SUPPOSES = re.compile(r"\?|\b(?:if|whether|would|could|cannot|can't|not|n['’]t|no longer|never)\b", re.I)
NTH_SWAP = re.compile(
    rf"\bafter (?:the |all (?:the )?|these |those )?(?P<nth>\w{{3,8}} )?(?:{VERB}|step|round|swaps|trades|exchanges)\b",
    re.I,
)
BEFORE_SWAP = re.compile(
    rf"\bbefore (?:the |any |a )?(?P<nth>\w{{3,8}} )?(?:{VERB}|step|round|swaps|trades|exchanges)\b", re.I
)
DENIES = re.compile(r"\b(?:not|n['’]t|no longer) (?:have|has|hold|holds)\b|n['’]t (?:have|hold)\b", re.I)
LETTERED = re.compile(rf"{MARK}[,.;)]?\s?(?:(?:that|which) is|that's|so|or|i\.e\.,?|=|→)?{MARK}\(?([A-Z])\)")


@dataclass(frozen=True, slots=True)
class Story:
    """`holds[n][person]` is what the person holds after n swaps. `asked` opens the sentence that the answer ends."""

    people: tuple[str, ...]
    objects: tuple[str, ...]
    swaps: tuple[frozenset[str], ...]
    holds: tuple[dict[str, str], ...]
    asked: str
    asked_person: str


def read(problem: Problem) -> Follow | None:
    story = _story(problem)
    return None if story is None else lambda text: Reading(text, story).follow()


def _story(problem: Problem) -> Story | None:
    choices = tuple(problem.metadata.get("choices", ()))
    stem, found, _ = problem.question.partition("\nWhich choice is true?")
    swaps = [match.groups() for match in TOLD_SWAP.finditer(stem)]
    if not found or not choices or not swaps:
        return None
    opening = stem[: stem.find(f"First, {swaps[0][0]} and")]
    start = dict(re.findall(rf"\b([A-Z]\w+) (?:[a-z]+ ){{1,5}}({any_of(choices)})(?!\w)", opening))
    if sorted(start.values()) != sorted(choices) or not {person for pair in swaps for person in pair} <= start.keys():
        return None
    holds = [start]
    for one, other in swaps:
        holds.append(holds[-1] | {one: holds[-1][other], other: holds[-1][one]})
    asked = stem[max(stem.rfind(". "), stem.rfind("\n")) + 1 :].strip()
    person = next((name for name in reversed(asked.replace(",", " ").split()) if name in start), None)
    letter = ord(problem.target) - ord("A") if len(problem.target) == 1 else -1
    if person is None or not 0 <= letter < len(choices) or choices[letter] != holds[-1][person]:
        return None
    return Story(tuple(start), choices, tuple(map(frozenset, swaps)), tuple(holds), asked, person)


def _short_names(objects: Sequence[str]) -> dict[str, str]:
    """What a text may call each object, in lower case, and the object: "lemon" for the lemon cake, "poems" for the
    book of poems, "one" for seat one, "odyssey" for The Odyssey."""
    names = {thing.lower(): thing for thing in objects}
    all_words = [word for thing in objects for word in thing.lower().split()]
    for thing in objects:
        words = thing.lower().split()
        short = words[1:] if words[0] in ("the", "a", "an", "seat") else words[:-1]
        if "of" in words and words[0] != "the":
            short = words[words.index("of") + 1 :]
        if short and all_words.count(short[0]) == 1 and short[0] not in AMBIGUOUS:
            names.setdefault(" ".join(short), thing)
    return names


class Reading:
    def __init__(self, text: str, story: Story) -> None:
        self.text, self.story = text, story
        self.notes = Notes(len(story.swaps))
        self.places = {0}
        self.end_stated = False
        self.named = _short_names(story.objects)
        people, things = any_of(story.people), any_of(tuple(self.named))
        between = rf"(?:'s|’s)?{MARK}(?:and|&|with){MARK}|\s{VERB}\s(?:\w+\s){{0,3}}with\s"
        pair = rf"(?<!\w)(?P<one>{people})(?:{between})(?P<other>{people})(?!\w)"
        self.pair = re.compile(rf"{pair}(?P<verb>[^.\n]{{0,30}}?\b{VERB})?", re.I)
        self.claim = re.compile(
            rf"(?<!\w)(?:(?P<person>(?-i:{people})){HOLDS}(?:(?:{people})['’]s\s)?(?P<thing>{things})(?!\w)(?!['’]s?\b)"
            rf"|(?P<thing2>{things}){HELD_BY}(?P<person2>(?-i:{people}))(?!\w|['’]s\b))",
            re.I,
        )
        self.verb = re.compile(rf"\b{VERB}\b", re.I)

    def follow(self) -> Replay:
        num_swaps = len(self.story.swaps)
        for start, end in sentences(self.text):
            sentence = self.text[start:end]
            if not STATES_THE_ANSWER.search(sentence):
                self._sentence(start, sentence)
        return self.notes.replay(self.end_stated and len(self.notes.followed) == num_swaps)

    def _sentence(self, offset: int, sentence: str) -> None:
        num_swaps = len(self.story.swaps)
        swaps = [
            (
                match.start(),
                match["verb"] and match.end(),
                frozenset((_cased(match["one"], self.story.people), _cased(match["other"], self.story.people))),
            )
            for match in self.pair.finditer(sentence)
        ]
        claims = list(self.claim.finditer(sentence))
        asked = sentence.strip(" *").startswith(
            self.story.asked[: self.story.asked.find(self.story.asked_person)] or "\0"
        )
        nth = NTH_SWAP.search(sentence)
        before_swap = None if nth else BEFORE_SWAP.search(sentence)
        swaps = [swap for swap in swaps if swap[1]]
        if not swaps:
            if DENIES.search(sentence):
                self.places |= {num_swaps}
            elif before_swap:
                place = (before_swap["nth"] or "").strip().lower()
                swap = num_swaps if place in ("last", "final") else ordinal(place) or 1
                self.places = {min(swap, num_swaps) - 1}
            elif nth and nth["nth"] and (n := ordinal(nth["nth"].strip())):
                self.places = {min(n, num_swaps)}
            elif AT_THE_END.search(sentence) or asked or (nth and "all" in nth[0]):
                self.places = {num_swaps}
            elif AT_THE_START.search(sentence):
                self.places = {0}
            elif CONCLUDES.search(sentence):
                self.places |= {num_swaps}
        supposes = SUPPOSES.search(sentence)
        position = 0
        swapping = [(at, pair) for _, at, pair in swaps if at] or (
            [(match.end(), None) for match in self.verb.finditer(sentence)][:1]
            if not nth and not before_swap and len(swaps) == 0
            else []
        )
        for at, pair in [*swapping, (len(sentence), None)]:
            here = [claim for claim in claims if position <= claim.start() < at]
            before = self.places
            last = at == len(sentence) and (at, pair) not in swapping
            after = before if last else self._after(pair, offset, at - 30 if at > 30 else 0, at)
            if here and not supposes:
                self._claims(here, offset, before if last else before | after, lenient=not last)
            if not last:
                self.places = after if pair is not None else before | after
            position = at

    def _after(self, pair: frozenset[str] | None, offset: int, start: int, end: int) -> set[int]:
        """The places at which the text may stand once it has told this swap."""
        swaps = self.story.swaps
        if pair is None:  # "They swap."
            return {min(place + 1, len(swaps)) for place in self.places}
        if len(pair) < 2:
            return self.places
        after = {place + 1 for place in self.places if place < len(swaps) and swaps[place] == pair}
        again = {place for place in self.places if place and swaps[place - 1] == pair}
        anywhere = {i + 1 for i, swap in enumerate(swaps) if swap == pair}
        if not anywhere:
            names = " and ".join(sorted(pair))
            self.notes.wrong(f"{names} do not swap in the question", offset + start, offset + end)
        return after | again or anywhere or self.places

    def _claims(self, claims: Iterable[re.Match[str]], offset: int, places: set[int], lenient: bool) -> None:
        holds, num_swaps = self.story.holds, len(self.story.swaps)
        possible = set(places)
        for claim in claims:
            person = claim["person"] or claim["person2"]
            thing = self.named[(claim["thing"] or claim["thing2"]).lower()]
            lettered = LETTERED.match(claim.string, claim.end())
            if lettered:
                self._letter(lettered, thing, offset)
            right = {place for place in possible if holds[place][person] == thing}
            told_earlier = any(state[person] == thing for state in holds[: max(possible) + 1])
            if not right and told_earlier and (lenient or GIVES.search(claim[0])):
                continue
            if right:
                possible = right
                place = min(right - {0}, default=0)
                if place and not (lenient and right != {place}):
                    self._follow(place, person)
                self.end_stated |= num_swaps in right and person == self.story.asked_person
                continue
            place = max(possible)
            when = f"after swap {place} of {num_swaps}" if place else "at the start"
            reason = f"{when} {person} has {holds[place][person]}, the text says {thing}"
            self.notes.wrong(reason, offset + claim.start(), offset + claim.end())
        if not lenient:
            self.places = possible

    def _follow(self, place: int, person: str) -> None:
        """A swap is followed where somebody who took part is stated to hold what the swap brought."""
        if person in self.story.swaps[place - 1]:
            self.notes.followed.add(place - 1)

    def _letter(self, lettered: re.Match[str], thing: str, offset: int) -> None:
        index = ord(lettered[1]) - ord("A")
        if index < len(self.story.objects) and self.story.objects[index] != thing:
            reason = f"({lettered[1]}) is {self.story.objects[index]}, not {thing}"
            self.notes.wrong(reason, offset + lettered.start(), offset + lettered.end())


def _cased(name: str, people: Sequence[str]) -> str:
    return next(person for person in people if person.lower() == name.lower())
