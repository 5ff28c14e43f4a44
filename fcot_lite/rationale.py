"""Checks of a rationale: false arithmetic, a conclusion that is not the answer, loops, code or a foreign language.

Each check gives its findings in the order of the text; none means that nothing was found, not that the text is right.
No text makes a check raise, nothing is evaluated, and time grows linearly with the text. Precision came first: what
cannot be read is not a fault. How often each is right is measured in docs/rationales.md.
"""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal

from fcot_lite import answers, equations
from fcot_lite.records import Problem

MOST_FINDINGS = 50  # of one check and text: beyond that a text only repeats itself
MOST_ENDING = 2000  # characters before the final answer in which its conclusion is looked for


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and where in the text it stands."""

    check: Literal["arithmetic", "contradiction", "repetition", "language", "replay"]
    reason: str
    start: int
    end: int


def arithmetic(text: str) -> list[Finding]:
    """The equations that are false, with the true value: "3 + 4 = 8: it is 7". What counts as right, and what is not
    judged, is said in `equations`."""
    return [
        Finding(
            "arithmetic",
            f"{_quoted(text[equation.start : equation.end])}: it is {equations.plain(true)}",
            equation.start,
            equation.end,
        )
        for equation, true in islice(equations.wrong(text), MOST_FINDINGS)
    ]


# --- contradiction ---------------------------------------------------------------------------------------------------

_CONCLUSION = re.compile(r"(?i)(?:^|[\s*(])(?:so|therefore|thus|hence)\b,?")
_NUMBER = re.compile(
    r"(?<![\w.,])[$€£]?(?P<value>[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,30}+)(?P<rest>\.[0-9]{1,30}+)?(?![\w:/]|[.,][0-9])"
)
_GOES_ON = re.compile(r"[^.\n]{0,60}[0-9)] ?(?:[-+*/×÷−]|\\times|\\div) ?[$(]?[0-9]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*]+|\n+")
_HEADS = re.compile(r"(?i)\bheads\b")
_TAILS = re.compile(r"(?i)\btails\b|\b(?:not|no longer)\b[^.\n]{0,20}\bheads\b")
_OPEN = re.compile(r"(?i)\b(?:if|whether|either|or|would|start(?:s|ed)?|initially|originally|first|was|maybe)\b|\?")
_YES_NO = re.compile(r"(?i)(?:so|therefore|thus|hence),?\s+(yes|no)\b")
_LETTERS = re.compile(r"\(([A-Z])\)")
_MEASURE = re.compile(
    r"(?i)\b(?:second|minute|hour|day|week|month|year|inch|feet|foot|meter|metre|gram|cent|dollar|percent)|[%¢$]|\b[ck]?m\b"
)
_CHECKS = re.compile(r"(?i)[\s*(]*(?:(?:let['’]?s|let us|we(?: can)?|to) )?(?:(?:double[- ])?check|verif|indeed|proof)")
_HOW_MANY = re.compile(
    r"(?i)\bhow many ((?:[a-z]+ ){0,5}?[a-z]+)\b"
    r"(?= (?:do|does|did|is|are|was|were|will|would|can|has|have|had|should|in|on|at|to|left)\b|\?)"
)
_NAMED = re.compile(r"\s*((?:[A-Za-z]+\s*){0,4})")
_NO_NOUN = frozenset(
    """
    of in on for to from at by with and or the a an is are was were left more total per each that
    """.split()  # noqa: SIM905
)
_TIMES = (7, 12, 24, 60, 100, 1000)  # between units: days and weeks, inches and feet, cents and dollars


def contradiction(text: str, problem: Problem) -> list[Finding]:
    """Where the rationale concludes something else than its final answer: the sentence before the answer ends in
    another computed result ("4 + 8 = 12 songs. The answer is 2"), unless it checks, or counts something else than what
    is asked for; a "so", "therefore" names another number of what is asked for, another option or side of the coin; or
    the text states two final answers. `text` is one that finished: an answer that was cut off, 23 of 230, is another.

    Raises DataError where the gold answer of `problem` is not of its kind.
    """
    if "scorer" in problem.metadata or problem.answer_kind not in ("number", "yes_no", "choice"):
        return []
    start = answers.answer_start(text, problem)
    if start is None:
        return []
    # A box around a result on the way is no second answer.
    verdict = answers.grade(text.replace("\\boxed", "", text.count("\\boxed") - 1), problem)
    if verdict.reason == "conflicting answers":
        return [_contradiction("it states two final answers", start, len(text))]
    sentence, begin = _last_sentence(text, start)
    if verdict.extracted is None or not sentence:
        return []
    if problem.answer_kind == "number":
        final = answers.number(verdict.extracted)
        asked = _nouns(" ".join(_HOW_MANY.findall(problem.question))) | _counted(text, start)
        return [] if final is None else _other_number(text, sentence, begin, start, final, asked)
    if problem.answer_kind == "yes_no":
        concluded = _yes_no(sentence, problem.question)
        if concluded is None or concluded == verdict.extracted.lower():
            return []
        return [
            _contradiction(f"{_quoted(sentence)} means {concluded}, the answer says {verdict.extracted}", begin, start)
        ]
    return _other_choice(sentence, begin, start, verdict.extracted, problem)


def _contradiction(reason: str, start: int, end: int) -> Finding:
    return Finding("contradiction", reason, start, end)


def _last_sentence(text: str, end: int) -> tuple[str, int]:
    """The last whole one before `end` that says more than "So" and states no answer, and where it begins."""
    low = max(0, end - MOST_ENDING)
    begin = low
    best = ("", end)
    for match in _SENTENCE_END.finditer(text, low, end):
        stop = match.start()
        sentence = text[begin:stop].strip()
        lead = re.sub(r"(?i)[\s,*#:$\\(\[]|\b(?:so|thus|hence|therefore|then|and|the|my|final|correct)\b", "", sentence)
        if any(character.isalnum() for character in lead) and not answers.STATED.search(sentence):
            best = (sentence, begin + len(text[begin:stop]) - len(text[begin:stop].lstrip()))
        begin = match.end()
    return best


def _other_number(
    text: str, sentence: str, begin: int, end: int, final: Fraction, asked: frozenset[str]
) -> list[Finding]:
    if _CHECKS.match(sentence):
        return []
    if _GOES_ON.match(text, end):
        return []  # "The answer is 67 - 5 = 62": the last step is in the answer
    before = text[max(0, begin - MOST_ENDING) : begin]
    results = [equations.value(equation.right) for equation in equations.equations(before)]
    for earlier in _SENTENCE_END.split(before):
        if _CONCLUSION.match(earlier):
            results += _numbers(earlier)
    if final in results:
        return []
    computed = [(equation, equations.value(equation.right)) for equation in equations.equations(sentence)]
    if computed:
        equation, last = computed[-1]
        closes = re.fullmatch(r"[\s*$)\]}\\.!]*", sentence[equation.end :]) is not None
        if last is None or not closes or not equation.right.lone:
            return []
        counted = _counted(sentence, equation.right.start)
        if asked and counted and not asked & counted:
            return []
        if any(value is not None and _same(value, final, sentence) for _, value in computed):
            return []
        # The last sum may be left unsaid: "… = 24. … = 40. The answer is 64".
        if any(result is not None and final in (last + result, last - result, result - last) for result in results):
            return []
        stated = _quoted(sentence[equation.start : equation.end])
        return [_contradiction(f"it ends in {stated}, the answer says {equations.plain(final)}", begin, end)]
    numbers = _numbers(sentence)
    if not _CONCLUSION.match(sentence) or len(numbers) != 1 or _same(numbers[0], final, sentence):
        return []
    if not asked & _counted(sentence, 0):
        return []
    return [_contradiction(f"{_quoted(sentence)}, the answer says {equations.plain(final)}", begin, end)]


def _counted(text: str, start: int) -> frozenset[str]:
    """What the next number counts: the words behind it."""
    number = _NUMBER.search(text, start, start + 200)
    named = _NAMED.match(text, number.end()) if number else None
    return _nouns(named[1]) if named else frozenset()


def _nouns(written: str) -> frozenset[str]:
    """Its words up to one that is none, in the singular: "eggs of the hens" counts eggs."""
    nouns = []
    for word in written.casefold().split():
        if word in _NO_NOUN:
            break
        nouns.append(word.removesuffix("s"))
    return frozenset(nouns)


def _numbers(text: str) -> list[Fraction]:
    return [Fraction(match["value"].replace(",", "") + (match["rest"] or "")) for match in _NUMBER.finditer(text)]


def _same(value: Fraction, final: Fraction, sentence: str) -> bool:
    """Up to its sign, rounding to a whole number, and units; a debt may be called nothing."""
    if value < 0 and final == 0:
        return True
    value, final = abs(value), abs(final)
    if value == final or (abs(value - final) < 1 and (value.denominator != 1 or final.denominator != 1)):
        return True
    times = _TIMES if _MEASURE.search(sentence) else ()
    return any(value * factor == final or final * factor == value for factor in times)


def _yes_no(sentence: str, question: str) -> str | None:
    said = _YES_NO.search(sentence)
    if said:
        return said[1].lower()
    if "heads up" not in question or _OPEN.search(sentence):
        return None
    tails = _TAILS.search(sentence) is not None
    return "no" if tails else "yes" if _HEADS.search(sentence) else None


def _other_choice(sentence: str, begin: int, end: int, extracted: str, problem: Problem) -> list[Finding]:
    choices = [str(choice) for choice in problem.metadata.get("choices", ())]
    options = {chr(ord("A") + place): choice.strip().casefold() for place, choice in enumerate(choices[:26])}
    written = extracted.casefold().strip(' .*"')
    letter = re.match(r"\W*([A-Za-z])\b(?!['’])", extracted)
    chosen = letter[1].upper() if letter else next((o for o, t in options.items() if t == written), None)
    if (
        chosen not in options
        or not _CONCLUSION.match(sentence)
        or re.search(r"(?i)\b(?:not|or|nor|neither)\b", sentence)
    ):
        return []
    named = set(_LETTERS.findall(sentence)) & options.keys()
    if not named:
        padded = f" {re.sub(r'[^0-9a-z]+', ' ', sentence.casefold())} "
        named = {o for o, t in options.items() if t and f" {re.sub(r'[^0-9a-z]+', ' ', t).strip()} " in padded}
    if len(named) != 1 or chosen in named:
        return []
    return [_contradiction(f"{_quoted(sentence)}, which is ({named.pop()}), the answer says ({chosen})", begin, end)]


# --- repetition ------------------------------------------------------------------------------------------------------

# Set on samples of the starters other than the labelled ones: a sound rationale says no long sentence three times.
LONG_SENTENCE, MOST_SAID = 5, 2  # words; times
LONG_TEMPLATE, MOST_TEMPLATE = 9, 3  # words that are no numbers; times, with other numbers
LONG_PHRASE, MOST_PHRASE = 12, 3  # words; times
LONGEST_PERIOD, MOST_ROUNDS, SHORTEST_LOOP = 16, 3, 9  # words; times; words in all
MOST_TEMPLATE_ROUNDS = 8  # with other numbers: "2 apples + 3 apples + 4 apples" is a sum
LONGEST_SUM = 40  # words that are no letters
MOST_LINES, DUPLICATE_LINES = 6, 0.5

_WORD = re.compile(r"[^\W\d_]++|[0-9]++(?:[.,][0-9]++)*|[^\w\s]")


def repetition(text: str) -> list[Finding]:
    """Loops: a sentence said three times or more, also with other numbers in it; a long phrase said four times; words
    that go round ("the number of the number of the number of"); or half of the lines said before."""
    findings: list[Finding] = []
    sentences: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    for match in re.finditer(r"(?:[^.!?\n]|[.!?](?=\S))+", text):
        words = match.group().casefold().split()
        said = " ".join(words)
        sentences[said] += 1
        if len(words) >= LONG_SENTENCE and sentences[said] == MOST_SAID + 1:
            findings.append(_repetition(f"{_quoted(said)} is said again and again", match.start(), match.end()))
        named = [word for word in words if not any(character.isdigit() for character in word)]
        template = " ".join(named)
        templates[template] += 1
        if len(named) >= LONG_TEMPLATE and templates[template] == MOST_TEMPLATE + 1:
            findings.append(_repetition(f"{_quoted(said)} repeats with other numbers", match.start(), match.end()))
    findings += _rounds(text)
    lines = [line for line in (line.strip().casefold() for line in text.splitlines()) if line]
    if len(lines) >= MOST_LINES and 1 - len(set(lines)) / len(lines) >= DUPLICATE_LINES:
        findings.append(
            _repetition(f"{len(lines) - len(set(lines))} of {len(lines)} lines were said before", 0, len(text))
        )
    return sorted(findings, key=lambda finding: finding.start)[:MOST_FINDINGS]


def _repetition(reason: str, start: int, end: int) -> Finding:
    return Finding("repetition", reason, start, end)


def _rounds(text: str) -> list[Finding]:
    """A phrase of LONG_PHRASE words that comes too often, and the first place where words go round."""
    spans = [(match.group().casefold(), match.start(), match.end()) for match in _WORD.finditer(text)]
    words = [word for word, _, _ in spans]
    findings = []
    phrases: dict[tuple[str, ...], tuple[int, int]] = {}  # times, and where it last ended
    for at in range(len(words) - LONG_PHRASE + 1):
        phrase = tuple(words[at : at + LONG_PHRASE])
        times, ended = phrases.get(phrase, (0, 0))
        if at >= ended:
            phrases[phrase] = (times + 1, at + LONG_PHRASE)
            if times == MOST_PHRASE and sum(word.isalpha() for word in phrase) >= LONG_PHRASE - 2:
                start, end = spans[at][1], spans[at + LONG_PHRASE - 1][2]
                findings.append(_repetition(f"{_quoted(text[start:end])} is said again and again", start, end))
                break
    numberless = ["0" if word[0].isdigit() else word for word in words]
    for said, rounds in ((words, MOST_ROUNDS), (numberless, MOST_TEMPLATE_ROUNDS)):
        for period in range(1, LONGEST_PERIOD + 1):
            needed = max(rounds * period, SHORTEST_LOOP) - period
            run = 0
            for at in range(period, len(said)):
                run = run + 1 if said[at] == said[at - period] else 0
                if run < needed or (run != needed and run != LONGEST_SUM):
                    continue
                # A sum of equal terms goes round too, for a while.
                round_ = said[at - period : at]
                if any(map(str.isalpha, round_)) or (
                    said is words and run == LONGEST_SUM and any(map(str.isalnum, round_))
                ):
                    start, end = spans[at - run - period + 1][1], spans[at][2]
                    findings.append(_repetition(f"{_quoted(text[start:end])} goes round", start, end))
                    return findings
    return findings


# --- language --------------------------------------------------------------------------------------------------------

_CODE = re.compile(
    r"""^[^\S\n]{0,20}(?:>>>[ ])?(?:
          def[ ]\w{1,60}\(.{0,200}\)(?:[ ]?->.{1,40})?:[^\S\n]*$ | class[ ]\w{1,60}(?:\(.{0,60}\))?:[^\S\n]*$
        | import[ ][\w.]{1,60}(?:[ ]as[ ]\w{1,20})?;?[^\S\n]*$ | from[ ][\w.]{1,60}[ ]import[ ]
        | print\( | console\.log\(
        | return[ ][\w.\[(]{1,60}(?:[ ]?[-+*/].{1,80})?;?[^\S\n]*$
        | (?:for|while|if|elif)[ ].{1,100}(?:[ ]in[ ].{1,60}|[<>=!]=?.{1,60}):[^\S\n]*$
        | \#include[ ]?[<"] | (?:public|private|static)[ ]\w+[ ]\w+.{0,80}\{
        | (?:int|float|double|let|const|var)[ ]\w{1,40}[ ]?=[ ]?.{1,80};
        | [a-z]\w{0,40}_\w{1,40}[ ]?[-+*/]?=[ ]?[^=\s].{0,120}$
        | \w{1,40}[ ]?=[ ]?(?:int|float|input|len|sum|range|round|max|min|lambda)\(?
        | assert[ ].{1,80}==
      ) | ^[^\S\n]{0,20}```(?:python|py|javascript|js|java|c|cpp|c\+\+|bash|sh|sql|ruby|go|rust)[^\S\n]*$""",
    re.VERBOSE | re.MULTILINE,
)
MOST_FOREIGN = 0.1  # of the letters; Greek letters and a quoted name are fewer
_LETTER_RUNS = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = """
English: the of and to is in that it for we are was with as this have be so on by from has at
Spanish: el la los las de que y es en un una por con para se del como más pero su son cada
French: le la les de des et est en un une que pour dans qui avec sur pas du au chaque donc
German: der die das und ist in den von zu mit ein eine für auf nicht des dem es wir also jede
Portuguese: o a os as de que e é em um uma por com para se do da como mais mas cada
Italian: il la i le di che e è in un una per con si del della come più ma ogni sono
"""
_LANGUAGES = {
    name: frozenset(words.split())
    for name, _, words in (line.partition(": ") for line in _FUNCTION_WORDS.strip().splitlines())
}
FEWEST_WORDS = 12  # below that function words say nothing


def language(text: str) -> list[Finding]:
    """Code in place of prose (a line of Python, JavaScript or C, or the fence of one), a text with more than a tenth of
    its letters outside the Latin and Greek scripts, or one whose function words are those of another language."""
    findings: list[Finding] = []
    code = _CODE.search(text)
    if code:
        findings.append(Finding("language", f"code: {_quoted(code.group().strip())}", code.start(), code.end()))
    runs = list(_LETTER_RUNS.finditer(text))
    letters = sum(match.end() - match.start() for match in runs)
    foreign = [match for match in runs if not match.group().isascii() and any(map(_foreign, match.group()))]
    num_foreign = sum(sum(map(_foreign, match.group())) for match in foreign)
    if foreign and num_foreign > MOST_FOREIGN * letters:
        first = foreign[0]
        reason = f"{num_foreign} of {letters} letters are of another script: {_quoted(first.group())}"
        findings.append(Finding("language", reason, first.start(), first.end()))
        return findings
    words = [match.group().casefold() for match in runs]
    if len(words) < FEWEST_WORDS:
        return findings
    counts = Counter(words)
    shares = {name: sum(counts[word] for word in listed) / len(words) for name, listed in _LANGUAGES.items()}
    best = max(shares, key=lambda name: shares[name])
    if best != "English" and shares[best] > 0.2 and shares[best] > 2 * shares["English"]:
        findings.append(Finding("language", f"{shares[best]:.0%} of the words are {best} function words", 0, len(text)))
    return findings


def _foreign(character: str) -> bool:
    """Beyond Latin with its accents, and Greek."""
    return character > "Ͽ" and not "Ḁ" <= character <= "ỿ" and not "ℂ" <= character <= "⅏" and character < "𝐀"


def _quoted(text: str) -> str:
    """On one line, and short."""
    text = " ".join(text[:400].split())
    return repr(text if len(text) <= 100 else text[:97] + "…")
