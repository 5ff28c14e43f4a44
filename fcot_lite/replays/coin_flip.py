"""Which side of the coin is up after each turn.

A side that a text states is compared with the true one after the turn of the person named last; without a name it
is the side after the last turn spoken of, after "start" the side before any turn, after "in the end" the last one.
Sentences that ask or suppose are passed over.
"""

import re
from dataclasses import dataclass

from fcot_lite.records import Problem
from fcot_lite.replays.following import (
    NUMBER_WORDS,
    ORDINALS,
    STATES_THE_ANSWER,
    Follow,
    Notes,
    Replay,
    any_of,
    ordinal,
    sentences,
    whole_number,
)

START = re.compile(r"^A coin is heads up\. ")
TURN = re.compile(r"(?<=\. )([^.\n]{1,60}?) (flips|does not flip) the coin\.")

NOT = r"(?:\bnot|\bnever|n['’]t|\bno longer)"
FLIPS = r"(?:flip(?:s|ped|ping)?|revers(?:e|es|ed|ing)|turn(?:s|ed)? (?:it|the coin)|toss(?:es|ed)?)"
LEAVES = r"(?:leaves?|left|leaving|skips?|skipped|keeps|kept)"
ACTION = re.compile(rf"(?:(?P<not>{NOT}\s(?:\w+\s)?{FLIPS}|\b{LEAVES})|\b{FLIPS})\b", re.I)
POSSESSIVE = re.compile(r"['’]s\b")
DID_NOT = re.compile(r"\A\W{0,3}(?:(?:do|does|did)(?:n['’]t| not)|not)\W*\Z", re.I)  # "Zoe doesn't, …"
SIDE = re.compile(
    rf"(?P<not>{NOT}\s(?:(?:still|a|on|the)\s)?)?\b(?P<side>heads?|tails?)\b(?!\s+(?:or|nor|and)\s+(?:heads|tails))",
    re.I,
)
UNDECIDED = re.compile(r"\b(?:heads|tails)(?: up)?\s+(?:or|nor|and)\s+(?:heads|tails)\b", re.I)
SUPPOSES = re.compile(r"\?[\"'”’)*]*\Z|\b(?:if|whether|assum\w+|suppos\w+|unless|could|might|would)\b", re.I)
AT_THE_START = re.compile(
    r"\b(?:starts?|started|starting|initial|initially|originally|beginning|begins?|at first|was)\b", re.I
)
AT_THE_END = re.compile(r"\b(?:in the end|at the end|ends?|ended|final|finally|after all|result)\b", re.I)
BEFORE_THE_TURN = re.compile(r"\b(?:since|because|as|was|previous(?:ly)?|before|from)\b", re.I)
CONCLUDES = re.compile(r"\b(?:so|thus|therefore|hence|overall|conclusion)\b", re.I)
BEFORE_A_NAME = re.compile(r"\b(?:after|once|when|because|since|as|with|by)\W{1,3}\Z", re.I)
NOBODY = re.compile(rf"\b(?:nobody|no one|none)\b[^.\n]{{0,20}}?\b{FLIPS}\b", re.I)
EVERYBODY = re.compile(rf"\b(?:everybody|everyone|(?:each|all) of them|they all)\s{FLIPS}\b", re.I)
EXCEPT = re.compile(
    r"\b(?:everyone|everybody|all|each)\b[^.\n]{0,20}?\b(?:except|but|besides|apart from|other than)\b", re.I
)
# "An even number of flips leaves it heads up", "two flips cancel out": true of any coin.
IN_GENERAL = re.compile(
    r"\b(?:even|odd) number of (?:flips|times|turns|reversals) (?:\w+ )?"
    r"(?:leaves?|means|makes?|results?|returns?|keeps?|brings?|gives?|puts?|turns?)\b|\bcancel",
    re.I,
)
BEFORE_THE_TURN_OF = re.compile(r"\b(?:before|prior to|until)\W{1,3}\Z", re.I)
TIMES = {"once": 1, "twice": 2}
COUNTED = re.compile(
    rf"\b(?:{FLIPS}(?: (?:the coin|up|over))? (?:a total of )?(?:(?P<n>\d{{1,3}}|{'|'.join(NUMBER_WORDS)}) times?"
    r"|(?P<adverb>once|twice))\b(?! by)"
    rf"|(?P<people>\d{{1,3}}|{'|'.join(NUMBER_WORDS)}) (?:people|persons?|of them) {FLIPS})"
    r"|(?P<not_so>\bnot (?:an? )?)?(?P<parity>odd|even) number",
    re.I,
)
NTH_FLIP = re.compile(r"\bafter (?:the )?(\w{3,8}) (?:flip|reversal|turn)\b", re.I)
STRANGER = re.compile(
    rf"(?<![\w'’])(?:(?P<name>[A-Z][a-z]+)|[Tt]he (?P<role>[a-z]+)) "
    rf"(?:{FLIPS}|(?:does|did)(?: not|n['’]t) flip|leaves it)\b"
)
NO_ROLES = frozenset(["coin", "person", "player", "flip", "next", "last", "other", "process", *ORDINALS])
NO_NAMES = frozenset(
    """
    He She It They Nobody Everyone Everybody Someone Who Person This That And Then Now Not If When Coin All One No
    None Never Next Finally Flip Flips First Second Third Fourth Last These Those Both Each Every Any Another Such
    """.split()  # noqa: SIM905
    + [word.capitalize() for word in NUMBER_WORDS]
)


@dataclass(frozen=True, slots=True)
class Turns:
    names: tuple[str, ...]
    flips: tuple[bool, ...]

    def heads_after(self, num_turns: int) -> bool:
        return sum(self.flips[:num_turns]) % 2 == 0


def side(heads: bool) -> str:
    return "heads" if heads else "tails"


def read(problem: Problem) -> Follow | None:
    found = TURN.findall(problem.question) if START.match(problem.question) else []
    turns = Turns(tuple(name for name, _ in found), tuple(what == "flips" for _, what in found))
    if not found or len(set(turns.names)) < len(found):
        return None
    if problem.target.lower() != ("yes" if turns.heads_after(len(found)) else "no"):
        return None
    return lambda text: Reading(text, turns).follow()


class Reading:
    """One text being read. `after` is the number of turns after which the text stands; None where that is unclear,
    as after "Ann and Dan flip it", with Bob's turn between."""

    def __init__(self, text: str, turns: Turns) -> None:
        self.text, self.turns = text, turns
        self.notes = Notes(len(turns.names))
        self.after: int | None = 0
        self.end_stated = False
        self.counted = False

    def follow(self) -> Replay:
        name = re.compile(rf"(?<!\w)(?:{any_of(self.turns.names)})(?!\w)")
        for start, end in sentences(self.text):
            sentence = self.text[start:end]
            if STATES_THE_ANSWER.search(sentence) or SUPPOSES.search(sentence):
                continue
            self._strangers(start, end)
            if EXCEPT.search(sentence) or IN_GENERAL.search(sentence):
                self.after = None
                continue
            groups = _groups(sentence, [match.span() for match in name.finditer(sentence)])
            if groups:
                self._named(start, sentence, groups)
            else:
                self._unnamed(start, end)
        flippers = {i for i, flips in enumerate(self.turns.flips) if flips}
        return self.notes.replay(self.end_stated and (self.counted or flippers <= self.notes.followed))

    def _strangers(self, start: int, end: int) -> None:
        known = {word for name in self.turns.names for word in name.split()}
        for match in STRANGER.finditer(self.text, start, end):
            who = match["name"] or match["role"]
            if who not in known and who not in NO_NAMES and who not in NO_ROLES:
                self.notes.wrong(f"there is no {who} in the question", match.start(), match.end())

    def _named(self, offset: int, sentence: str, groups: list[list[tuple[int, int]]]) -> None:
        """A sentence with names: each group of names, "Ann, Bob and Dan", and what follows it up to the next."""
        before_first = sentence[: groups[0][0][0]]
        for number, group in enumerate(groups):
            behind = group[-1][1]
            until = groups[number + 1][0][0] if number + 1 < len(groups) else len(sentence)
            people = [self.turns.names.index(sentence[slice(*span)]) for span in group]
            sides = list(SIDE.finditer(sentence, behind, until))
            if BEFORE_THE_TURN_OF.search(sentence, max(0, group[0][0] - 20), group[0][0]):
                sides = sides or (list(SIDE.finditer(before_first)) if number == 0 else [])
                self.after = min(people)
                if len(sides) == 1:
                    self._compare(sides[0], offset, self.after)
                continue
            if number == 0 and (early := list(SIDE.finditer(before_first))):
                if BEFORE_A_NAME.search(before_first) and not sides:
                    sides = early  # "It is tails after Ann flips it"
                elif BEFORE_THE_TURN.search(before_first):
                    self._state(offset, early[:1])  # "Ann flips it. Since the coin is heads up, Ann makes it tails"
                else:
                    self._state(offset, early)
            action = ACTION.search(sentence, behind, min(until, sides[0].start()) if sides else until)
            if POSSESSIVE.match(sentence, behind):
                pass  # "David's flip" may be the heading of what David does not do
            elif action or DID_NOT.match(sentence[behind:until].rstrip(" ,.;")):
                self._acted(people, bool(action is None or action["not"]), offset + group[0][0], offset + until)
            elif not sides:
                continue  # a name alone moves nothing
            last = max(people)
            self.after = last + 1 if sorted(people) == list(range(last - len(people) + 1, last + 1)) else None
            if len(sides) == 2:  # "from heads to tails"
                self._compare(sides[0], offset, None if self.after is None else self.after - len(people), self.after)
                sides = sides[1:]
            if len(sides) == 1 and self._compare(sides[0], offset, self.after) and self.after is not None:
                self.notes.followed.update(people)
                self.end_stated |= self.after == len(self.turns.names)

    def _acted(self, people: list[int], left: bool, start: int, end: int) -> None:
        for person in people:
            name, flips = self.turns.names[person], self.turns.flips[person]
            if flips == left:
                what = ("flips", "leaves") if flips else ("leaves", "flips")
                self.notes.wrong(f"{name} {what[0]} the coin, the text says {name} {what[1]} it", start, end)
            else:
                self.notes.followed.add(person)

    def _unnamed(self, start: int, end: int) -> None:
        sentence = self.text[start:end]
        num_turns, num_flips = len(self.turns.names), sum(self.turns.flips)
        if found := NOBODY.search(sentence) or EVERYBODY.search(sentence):
            wanted = 0 if NOBODY.search(sentence) else num_turns
            if wanted != num_flips:
                self.notes.wrong(
                    f"{num_flips} of {num_turns} flip the coin", start + found.start(), start + found.end()
                )
            else:
                self.notes.followed.update(range(num_turns))
                self.after = num_turns
        if (counted := COUNTED.search(sentence)) and "so far" not in sentence:
            self._counted(counted, start)
        sides = list(SIDE.finditer(sentence)) if not UNDECIDED.search(sentence) else []
        if not sides:
            return
        nth = NTH_FLIP.search(sentence)
        if nth and (n := ordinal(nth[1])):
            flipped = [i + 1 for i, flips in enumerate(self.turns.flips) if flips]
            # "The second turn" may be the second person's or the second flip.
            self._compare(sides[-1], start, min(n, num_turns), flipped[n - 1] if n <= len(flipped) else None)
        elif len(sides) <= 2:
            if ACTION.search(sentence) and not found and not counted and not self._holds(sides[-1], self.after):
                self.after = None  # somebody flips it, nobody says who
            self._state(start, sides)

    def _counted(self, counted: re.Match[str], offset: int) -> None:
        num_flips = sum(self.turns.flips)
        if counted["parity"]:
            says_even = (counted["parity"].lower() == "even") != bool(counted["not_so"])
            right = says_even == (num_flips % 2 == 0)
        else:
            stated = TIMES.get((counted["adverb"] or "").lower())
            right = (stated if stated else whole_number(counted["n"] or counted["people"])) == num_flips
        if right:
            self.counted |= not counted["parity"]
            self.after = len(self.turns.names)
        else:
            reason = f"the coin is flipped {num_flips} times, the text says {counted[0]!r}"
            self.notes.wrong(reason, offset + counted.start(), offset + counted.end())

    def _state(self, offset: int, sides: list[re.Match[str]]) -> None:
        """Sides without a name before them."""
        sentence, num_turns = sides[0].string, len(self.turns.names)
        last, before = sides[-1], sentence[: sides[-1].start()]
        if len(sides) == 2 and sides[0]["side"].lower() != last["side"].lower() and AT_THE_START.search(before):
            self._compare(sides[0], offset, 0, self.after)  # "It started heads up and is now tails up"
        if AT_THE_END.search(before) or AT_THE_END.search(sentence[last.end() :]):
            self.end_stated |= self._compare(last, offset, num_turns)
        elif len(sides) == 1 and AT_THE_START.search(before):
            self._compare(last, offset, 0, self.after)
        elif BEFORE_THE_TURN.search(before):
            self._compare(last, offset, self.after, self.after and self.after - 1)
        else:
            concludes = CONCLUDES.search(before) is not None or "no longer" in last[0].lower()
            if self._compare(last, offset, self.after, num_turns if concludes else self.after):
                self.end_stated |= self.after == num_turns or concludes

    def _holds(self, stated: re.Match[str], turns: int | None) -> bool:
        return turns is None or self.turns.heads_after(turns) == _heads(stated)

    def _compare(self, stated: re.Match[str], offset: int, *after: int | None) -> bool:
        """Whether the side is right after one of these numbers of turns; where one is not known it may be."""
        heads = _heads(stated)
        if any(self._holds(stated, turns) for turns in after):
            return True
        turns = after[0] or 0
        when = f"after {self.turns.names[turns - 1]}'s turn" if turns else "at the start"
        reason = f"{when} the coin is {side(not heads)}, the text says {side(heads)}"
        self.notes.wrong(reason, offset + stated.start(), offset + stated.end())
        return False


def _heads(stated: re.Match[str]) -> bool:
    return bool(stated["side"].lower().startswith("head") != bool(stated["not"]))


def _groups(sentence: str, spans: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Names that only commas and "and" stand between are one group."""
    groups: list[list[tuple[int, int]]] = []
    for span in spans:
        if groups and re.fullmatch(r"[\s,*]*(?:and|&)?[\s,*]*", sentence[groups[-1][-1][1] : span[0]][:20]):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
