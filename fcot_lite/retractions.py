r"""What a text says after its last answer: whether that takes the answer back or gives another one.

Three things make "The answer is 5." no plain answer any more: words that take it back or doubt it ("Wait, ...", "I mean
...", "That can't be right."), another answer on the next line, as the next sentence or as all the rest of the text, and
a conclusion that another value is the one ("So it is 6.", "Therefore, she has 6 apples.", "Result: 6"). When in doubt
it is taken back: this decides what a student learns.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from fcot_lite.endings import LONGEST_SENTENCE, NUMBER_WORDS, STOP, below, next_sentence, turns
from fcot_lite.numerals import Stated, numbers_in
from fcot_lite.readings import Read

LONGEST_REMARK = 1_000  # characters after the last statement that are read
# "The answer is 5. Wait, that is wrong: 6"
TAKEN_BACK = re.compile(
    r"""[.!?,;:(\n–—-] [\s*_]{0,4}
        (?i: wait\b | oops\b | hold\ on\b | scratch\ that\b | correction\b | sorry\b
           | actually\b(?!,?\ (?:we|you|i|let)\b) | (?P<no>no,)
           | make\ (?:that|it)\b | (?:i|we)\ (?:was|were)\ (?:wrong|mistaken)\b
           | (?:(?:i\ think|it\ seems)\ (?:that\ )?)?(?:i|we)\ (?:have\ )?made\ an?\ (?:mistake|error)\b | hmm+\b
           | i\ (?:mean|meant|doubt)\b | i(?:\ am|['’]m)\ not\ (?:sure|certain)\b | my\ (?:mistake|bad)\b
           | (?:or\ )?rather,
           | on\ (?:second\ thought|reflection)\b | edit: | just\ kidding\b
           | (?:ignore|disregard|forget)\ (?:that|this|it|the|my)\b
           | let\ (?:me|us)\ (?:correct|fix|re-?(?:do|check|count|compute|calculate|consider|think|evaluate|examine))\b
           | none\ of\ the\ (?:options|choices|answers)\b
           | (?:(?:but|and|so|which)\ )?(?:that|this|it|which|(?:the|this|that|my)\ (?:answer|above|result|solution))
             (?: (?:\ is|\ was|['’]s|\ (?:seems|looks|sounds)(?:\ to\ be)?)
                 \ (?:clearly\ |obviously\ )?
                 (?:wrong|incorrect|off|impossible|a\ mistake|too\ (?:small|low|big|large|high)
                   |not\ (?:right|correct|true|possible|it|the\ answer))
               | (?:\ can\ ?not\ be|\ can['’]t\ be|\ isn['’]t|\ wasn['’]t)
                 \ (?:right|correct|true|possible|it|the\ answer)
               | \ does(?:\ not|n['’]t)\ (?:match|fit|make\ sense|add\ up|work|look|seem|sound) )\b
           | (?:(?:so|then|but)\ )?(?:it|this|that|the\ \w{1,12})\ should\ (?:be|have\ been)
             \ [$(*\\]{0,3}(?:[0-9A-Z(]|yes\b|no\b)
           | the\ (?:correct|right|real|actual)\ (?:value|result|number|total|amount|one|word|city)
             \ (?:is|was|would|should)\b )""",
    re.VERBOSE,
)
NO_AGAIN = re.compile(r"[\s.!*\"')]{0,8}[Nn]o\b")
_IT_IS = r"[\s.!?*\"')}$]{0,8}(?:(?:it(?:['’]s|\sis)|i\smean)\s)?"
THEN_NO = re.compile(_IT_IS + r"no\b(?!\s[a-z])", re.IGNORECASE)
THEN_YES = re.compile(_IT_IS + r"yes\b", re.IGNORECASE)
# "But she may keep it." says nothing of the number before it.
HARMLESS_BUT = re.compile(
    r"(?i:but)\s(?:he|she|they|[A-Z][a-z]{1,15})\s"
    r"(?![^.!?\n]*(?:[0-9]|n['’]t\b|\b(?i:not|no|wrong|incorrect|should|answer|question|actually|only|forgot|lost|gave"
    rf"|more|less|{'|'.join(NUMBER_WORDS)})\b))"
    r"[^.!?\n]{1,100}[.!]?\s*\Z"
)
# A line of a word or three that announces nothing: it may be an answer of its own.
BARE = re.compile(r"[^\S\n]*(?![-*] )\S{1,40}(?:[^\S\n]\S{1,20}){0,2}(?<![:：])[^\S\n]*")
BARE_WORD = re.compile(r"[^\S\n]*[*_\"']{0,3}[A-Za-zÀ-ɏ-]{1,40}[*_\"'.!]{0,4}[^\S\n]*")
# The text's last line, with nothing but a rule or a line of markup before it: "The answer is 5.\n\n6".
REST = re.compile(r"[^\w\n]{0,20}\n[^\w]{0,20}\n([^\n]{1,60})\s{0,20}\Z")
# "So it is (C).", "Thus, green.", "It must be Rome."
_IS = r"(?:['’]s|\s(?:is|was|(?:must|should|would|could|might|may|has\sto)\s(?:also\s)?be|becomes|equals|=))\s+"
_SUBJECT = rf"(?:it|this|that|the\s\w{{1,15}}(?:\s\w{{1,15}}){{0,3}}?){_IS}"
CONCLUDES = re.compile(
    rf"""[.!;,\n]\s*[*_]{{0,3}} (?i:
        (?:so|thus|hence|therefore|consequently)\b,?\s+ (?:{_SUBJECT})? | {_SUBJECT} )""",
    re.VERBOSE,
)
ASSENTS = re.compile(r"(?i:correct|right|true|done|clear|final|it|that|all|over|simple|easy)\b")
# "So she has 6 apples.", "The total is 6.", "Adding one gives 6."
CONCLUSIVE = re.compile(
    r"[\s*_#>-]*(?i:so|thus|hence|therefore|consequently|then|it|this|that|in\s(?:total|all)|altogether|finally)\b"
)
CLAIMS_NUMBER = re.compile(
    r"""\b(?i:is|are|was|were|be|has|have|had|gives?|makes?|gets?|equals?|leaves?|takes?|costs?)\s(?:\w{1,12}\s)?
        [$£€\\(*]{0,4}[0-9]
      | \b(?i:final|result|total|solution|count|sum|update|corrected|revised)(?:\s\w{1,12})?[*_]{0,2}\s?[:=][*_]{0,2}\s?
        (?:[a-z]\s?=\s?)?[$£€\\(*]{0,4}[0-9]  # "Result: 6"
      | [0-9][)$*]{0,3}\s(?i:is|are)\s(?i:the|my|our)\s(?i:final|correct|right|real|actual|answer|result)\b""",
    re.VERBOSE,
)
EXPLAINS = re.compile(r"[\s*_#>-]*(?i:explanation|reason|reasoning|notes?|check|verification|steps?)\b")
NEXT_QUESTION = re.compile(r"\n\s*(?:Q|Question|Problem)\s?[0-9]{0,3}:")
_WORD = re.compile(r"[a-z]+")
# "I think (C) is better.", "So the right choice: C"
NAMED_OPTION = re.compile(r"[(\[]([A-Z])[)\]]|\b(?i:option|choice|letter)\W{1,3}([A-Z])(?![\w'’])")
# "(A) is red."
DESCRIBES = re.compile(
    r"\s*[(\[][A-Z][)\]]\s(?:is|was|says|means)\b(?![^.!?\n]*\b(?i:correct|right|better|best|true|answer|likely)\b)"
)
SEVERAL = re.compile(r"\b(?i:both|either)\b")
DISMISSES = re.compile(r"\b(?i:wrong|incorrect|not|cannot|false|unlike|eliminated?|ruled?|impossible)\b|n['’]t\b")


def is_taken_back(text: str, begins: int, answer: Stated, read: Read) -> bool:
    """Whether what follows the last answer, stated at `begins`, takes it back or gives another."""
    value, written = answer
    ends = end_of(text, begins, answer)
    if not text[ends : ends + 20].strip(" \n.*$})\"'"):  # as most texts end
        return False
    ends -= written[-1:] in ".!\n"
    remark = TAKEN_BACK.search(text, ends - 1, ends + LONGEST_REMARK)
    if remark is not None and not (remark["no"] and value == "no"):  # "The answer is no. No, it is not."
        return True
    if turns(text, ends, len(text)) and not (value == "no" and NO_AGAIN.match(text, ends)):
        sentence = next_sentence(text, ends, len(text)) if isinstance(value, Fraction) else None
        if not (sentence and HARMLESS_BUT.match(text[sentence[0] : ends + LONGEST_REMARK].lstrip())):
            return True
    if (value == "yes" and THEN_NO.match(text, ends)) or (value == "no" and THEN_YES.match(text, ends)):
        return True
    return _stands_alone(text, ends, answer, read) or _concludes(text, ends, answer, read)


def end_of(text: str, begins: int, answer: Stated) -> int:
    """Where the answer that is stated at `begins` ends."""
    return max(begins, text.find(answer[1], begins)) + len(answer[1])


def _stands_alone(text: str, ends: int, answer: Stated, read: Read) -> bool:
    """Whether the next line, the next sentence or all the rest of the text is another answer and nothing else."""
    value = answer[0]
    is_letter = str(value).isupper()
    bare = BARE if isinstance(value, Fraction) or value in ("yes", "no") or is_letter else BARE_WORD
    rest = REST.match(text, ends) if bare is BARE else None
    for place in (below(text, ends, len(text)), next_sentence(text, ends, len(text)), rest and rest.span(1)):
        if place and bare.fullmatch(text, *place):
            other = read(text, *place, True)
            # Words that a formula's reader takes for one, and a number below a letter, are remarks.
            is_one = other is not None and (isinstance(other[0], type(value)) or (other[0] is None and not is_letter))
            if other is not None and is_one and other[0] != value:
                return True
    return False


def _concludes(text: str, ends: int, answer: Stated, read: Read) -> bool:
    """Whether a later sentence concludes that something else is the answer."""
    value, written = answer
    if isinstance(value, Fraction):
        return _concludes_number(text, ends, value)
    limit = min(len(text), ends + LONGEST_REMARK)
    is_letter = len(str(value)) == 1 and str(value).isupper()
    if is_letter:
        for start, end in _sentences(text, ends, limit):
            letters = {match[1] or match[2] for match in NAMED_OPTION.finditer(text, start, end)}
            is_remark = DISMISSES.search(text, start, end) or DESCRIBES.match(text, start, end)
            is_other = value not in letters or (len(letters) > 1 and SEVERAL.search(text, start, end) is not None)
            if letters and is_other and not is_remark:
                return True
    for conclusion in CONCLUDES.finditer(text, ends, limit):
        start = conclusion.end()
        stop = STOP.search(text, start, limit)
        end = stop.start() if stop else limit
        if not (is_letter or value in ("yes", "no") or text.startswith(("$", "\\(", "\\["), start)):
            is_word = BARE_WORD.fullmatch(text, start, end) is not None and not ASSENTS.match(text, start)
            if not is_word or text[start].isupper() != written[:1].isupper():
                continue  # "It is the capital of France."
        other = read(text, start, end, False)
        if other is not None and isinstance(other[0], str) and other[0] != value:
            return True
    return False


def _concludes_number(text: str, ends: int, value: Fraction) -> bool:
    """Whether later sentences claim numbers, and the last one with numbers has another than `value`."""
    claims = is_explained = False
    is_value = True
    for start, end in _sentences(text, ends, min(len(text), ends + LONGEST_REMARK)):
        concludes = CONCLUSIVE.match(text, start, end) is not None or text.find(", so ", start, end) >= 0
        is_explained = is_explained or EXPLAINS.match(text, start, end) is not None
        found = list(numbers_in(text, (text.rfind("=", start, end) + 1 if concludes else 0) or start, end))
        if concludes:  # "one" may stand for anything
            words = _WORD.findall(text[start:end].lower())
            found += [Fraction(NUMBER_WORDS[word]) for word in words if word in NUMBER_WORDS and word != "one"]
        if found:
            claims |= concludes or (not is_explained and CLAIMS_NUMBER.search(text, start, end) is not None)
            is_value = value in found
    return claims and not is_value


def _sentences(text: str, start: int, limit: int) -> Iterator[tuple[int, int]]:
    """The sentences behind the one that `start` is in, up to where another question is asked."""
    asked = NEXT_QUESTION.search(text, start, limit)
    limit = asked.start() if asked else limit
    stop = STOP.search(text, start, min(limit, start + LONGEST_SENTENCE))
    while stop:
        start = stop.end()
        stop = STOP.search(text, start, limit)
        yield start, stop.start() if stop else limit
