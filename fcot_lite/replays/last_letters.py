"""The last letter of each word, and the letters put together.

Read are letters said of a word of the question or of "the second word", lists of all letters, and what a sentence
about putting together arrives at.
"""

import re

from fcot_lite.records import Problem
from fcot_lite.replays.following import (
    ORDINALS,
    STATES_THE_ANSWER,
    Follow,
    Notes,
    Replay,
    any_of,
    ordinal,
    sentences,
)

ASKED = re.compile(r'Take the last letters of each words in "([^"\n]{1,400})" and concatenate them\.')
QUOTES = "\"'`“”‘’*"
Q = rf"[{QUOTES}]"
# Said behind the word: '"Ivan" is "n"', "Ivan ends in n", "Ivan -> n", "Ivan (n)".
IS = (
    rf"{Q}{{0,4}}(?:,? (?:so|and|whose|its|which)){{0,2}} {{0,2}}"
    r"(?:(?:['’]s )?(?:has )?(?:the )?(?:last|final) letter ?(?:is|of|as|:|=)"
    r"|ends?\s(?:with|in)|is|has|gives|->|→|=>|:|=|-|–|\()"
)
# A letter without quotes is one before a stop or a comma: else "is a name" would name the letter a.
LETTER = (
    r"\s{0,2}(?:the\s(?:last\s)?)?(?:letter\s)?"
    rf"(?:{Q}{{1,4}}(?P<quoted>[^\W\d_]{{1,20}}){Q}|(?P<bare>[^\W\d_]{{1,20}})(?=\s{{0,2}}(?:[.,;:)\n]|\Z|and\b)))"
)
SAID_OF_A_LETTER = re.compile(rf"\bletter (?:of|in|for) {Q}{{0,4}}\Z", re.I)
OF_UNKNOWN = re.compile(rf"\b(?:last|final) letter (?:of|in|for) {Q}{{1,4}}(?P<word>[^\W\d_]{{2,40}}){Q}{{1,4}} is\b")
OF_NTH = re.compile(
    rf"\b(?P<nth>{any_of(ORDINALS[1:])}|\d{{1,2}}(?:st|nd|rd|th)) (?:word|name)(?: is)?"
    rf"(?: {Q}\w{{1,40}}{Q},?)?{IS}{LETTER}",
    re.I,
)
FROM = re.compile(rf"{Q}(?P<quoted>[^\W\d_]){Q}{{1,4}}(?:\s\(?from|\sin|\sof)\s{Q}{{0,4}}\Z", re.I)
LETTERS_ARE = re.compile(r"\blast letters\b[^.\n]{0,200}?(?:\bare\b|:)", re.I)
LISTED = re.compile(rf"(?:\s|,|and\b|{Q}|[+\-(]){{0,8}}(?<![^\W\d_])([^\W\d_])(?![^\W\d_])", re.I)
PUTS_TOGETHER = re.compile(
    r"\b(?:concatenat\w*|together|combin\w*|join\w*|in order|sequence|string|form(?:s|ing)?)\b", re.I
)
QUOTED = re.compile(
    r"(?:\"|“|`|\*\*|(?<!\w)'|‘)(?P<quoted>[^\W\d_](?:[^\W\d_ +\-,.]|[ +\-,](?! )){0,60})(?:\"|”|`|\*\*|'(?!\w)|’)"
)
ARRIVES = re.compile(
    r"(?:\b(?:is|are|gives?|gets?|get|as|makes?|have|forms?|into|us|word|string)|[:=]|->|→)\s{1,2}([^\W\d_]{2,60})"
    r"(?=[.,;!]?\s{0,3}\Z)"
)


def read(problem: Problem) -> Follow | None:
    asked = ASKED.fullmatch(problem.question.strip())
    words = asked[1].split() if asked else []
    if not words or not all(word[-1].isalpha() for word in words):
        return None
    if "".join(word[-1] for word in words).lower() != problem.target.lower():
        return None  # fifteen golds of the paper's are no last letters of each word
    return lambda text: _follow(text, words)


def _follow(text: str, words: list[str]) -> Replay:
    notes = Notes(len(words))
    of_word = re.compile(rf"(?<!\w)(?P<word>{any_of(words)})(?!\w)")
    letter = re.compile(IS + LETTER)
    last = {word: word[-1].lower() for word in words}
    for match in of_word.finditer(text):
        word = match["word"]
        said = FROM.search(text, max(0, match.start() - 20), match.start()) or letter.match(text, match.end())
        if said:
            stated = said["quoted"] or said["bare"]
            if stated.lower() == last[word]:
                notes.followed.update(i for i, other in enumerate(words) if other == word)
            elif (
                len(stated) == 1
                or said["quoted"]
                or SAID_OF_A_LETTER.search(text, max(0, match.start() - 30), match.start())
            ):
                right = last[word]
                notes.wrong(f"the last letter of {word} is {right}, the text says {stated}", match.start(), said.end())
    for match in OF_UNKNOWN.finditer(text):
        if match["word"] not in last:
            notes.wrong(f"there is no {match['word']} in the question", match.start(), match.end())
    for match in OF_NTH.finditer(text):
        place, stated = ordinal(match["nth"]), match["quoted"] or match["bare"]
        if place and place <= len(words) and len(stated) == 1:
            if stated.lower() == last[words[place - 1]]:
                notes.followed.add(place - 1)
            else:
                word = words[place - 1]
                notes.wrong(f"the last letter of {word} is {last[word]}, the text says {stated}", *match.span())
    _lists(text, words, notes)
    _together(text, words, notes)
    return notes.replay(len(notes.followed) == len(words))


def _lists(text: str, words: list[str], notes: Notes) -> None:
    """ "The last letters are a, n, r and n", "the last letters of Ann and Ivan are n and n"."""
    for match in LETTERS_ARE.finditer(text):
        position = match.end()
        listed: list[str] = []
        while len(listed) <= len(words) and (item := LISTED.match(text, position)):
            listed.append(item[1].lower())
            position = item.end()
        if len(listed) < 2:
            continue
        named = [words.index(word) for word in re.findall(r"\w+", match[0]) if word in words]
        places = next((p for p in (range(len(words)), named) if listed == [words[i][-1].lower() for i in p]), None)
        if places:
            notes.followed.update(places)
        else:
            right = ", ".join(words[i][-1].lower() for i in named or range(len(words)))
            notes.wrong(f"the last letters are {right}, the text says {', '.join(listed)}", match.start(), position)


def _together(text: str, words: list[str], notes: Notes) -> None:
    """What the letters make. A beginning of it is right where a later sentence goes on: they are added one by one."""
    right = "".join(word[-1] for word in words).lower()
    stated: list[tuple[str, int, int]] = []
    for start, end in sentences(text):
        sentence = text[start:end]
        if STATES_THE_ANSWER.search(sentence) or not PUTS_TOGETHER.search(sentence):
            continue
        quoted = [match for match in QUOTED.finditer(sentence) if _made(match["quoted"], words)]
        found = quoted[-1] if quoted else ARRIVES.search(sentence)
        if found:
            stated.append((_joined(found[1]), start + found.start(), start + found.end()))
    for i, (letters, start, end) in enumerate(stated):
        later = any(len(other) > len(letters) for other, _, _ in stated[i + 1 :][:20])
        if letters != right and not (later and right.startswith(letters)):
            notes.wrong(f"the letters make {right}, the text says {letters}", start, end)


def _joined(written: str) -> str:
    return re.sub(r"[\W\d_]", "", written).lower()


def _made(quoted: str, words: list[str]) -> bool:
    """Whether this can be what letters make: no word of the question, nor some of them."""
    return len(_joined(quoted)) > 1 and not any(part in words for part in quoted.split())
