"""Dates: what a text says today is, and what lies so many days before or after which date.

The true dates come from the gold option and from what is asked: where tomorrow is 05/02/2021, today is 05/01/2021.
Every "N days after D is E" is computed. A date is read in every way it can be meant: without a year in any near one,
and 05/09/2018 as the ninth of May or the fifth of September where the question has it so too. A claim is wrong where
it is wrong in every reading.
"""

import calendar
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from fcot_lite.records import Problem
from fcot_lite.replays.following import NUMBER_WORDS, STATES_THE_ANSWER, Follow, Notes, Replay, any_of, whole_number

MONTHS = """
    january february march april may june july august september october november december
""".split()  # noqa: SIM905
MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:r?uary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
DATE = re.compile(
    rf"(?<![\w/])(?:(?P<m>\d{{1,2}})/(?P<d>\d{{1,2}})/(?P<y>\d{{4}})|(?P<iy>\d{{4}})-(?P<im>\d\d)-(?P<id>\d\d)"
    rf"|(?P<month>{MONTH})\s(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s(?P<year>\d{{4}}))?"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<month2>{MONTH})(?:,?\s(?P<year2>\d{{4}}))?)(?![\w/])",
    re.I,
)
AMOUNT = rf"(?P<n>\d{{1,4}}|an?|the|{any_of(NUMBER_WORDS)})"
UNIT = r"(?P<unit>day|week|month|year|hour)s?"
# Neither "half a year" nor the end of "a week and 2 days" is what it seems.
SPAN = rf"(?<![\w./-])(?<!half )(?<!and )(?:exactly\s)?{AMOUNT}\s(?:more\s|calendar\s|full\s)?{UNIT}"
MARK = r"[\s*_\"'“”’(]{0,4}"
COPULA = (
    r"(?:(?:is|was|were|be|will be|would be|would have been|must be|should be|falls on|fell on|gives(?: us)?"
    r"|results in|equals|brings us to|comes out as|becomes)\b"
    r"(?:\s(?:the|on|also|then|therefore|thus|actually|indeed|in fact)){0,3}"
    rf"|=|:|→|->){MARK}\Z"
)
FORMAT = r"(?: in (?:the )?MM/DD/YYYY(?: format)?)?"
EARLIER = "ago|earlier|back|before|prior to|prior"
# What may stand right before a date and say what it is, and how it is compared.
DAY_WORDS = {
    "today": 0, "the date today": 0, "today's date": 0, "today’s date": 0, "the current date": 0, "current date": 0,
    "tomorrow": 1, "tomorrow's date": 1, "tomorrow’s date": 1, "the date tomorrow": 1, "yesterday": -1,
    "yesterday's date": -1, "yesterday’s date": -1, "the date yesterday": -1, "the day after tomorrow": 2,
    "the day before yesterday": -2,
}  # fmt: skip
NAMED_DAY = re.compile(
    rf"(?<![\w'’])(?<!from )(?<!after )(?<!before )(?P<day>{any_of(tuple(DAY_WORDS))})\b{FORMAT}{MARK},?\s?{COPULA}",
    re.I,
)
SHIFTED = re.compile(
    rf"(?:the date\s)?{SPAN}\s(?P<way>{EARLIER}|later|after|from now|from today|hence)"
    r"(?:\s(?:from\s)?(?:it|that|this|today|then|that date|this date|now))?(?:\s(?:it|the date|that|this))?"
    rf"{FORMAT},?\s{COPULA}",
    re.I,
)
BEFORE_A_DATE = re.compile(
    rf"{SPAN}\s(?P<way>before|after|prior to|from|later than|earlier than|following|preceding){MARK}\Z", re.I
)
ADDED_TO_A_DATE = re.compile(rf"\b(?P<way>add(?:ing)?|subtract(?:ing)?)\s{SPAN}\s(?:to|from){MARK}\Z", re.I)
NEXT_TO_A_DATE = re.compile(rf"(?<!\w)the day (?P<way>before|after|following|preceding){MARK}\Z", re.I)
IS_THEN = re.compile(rf"\A{MARK}[,)]?\s?{COPULA}", re.I)
IS_SO_FAR_FROM = re.compile(
    rf"\A(?:{MARK}\s?(?:is|was|=)\s|,?\s?\(){SPAN}"
    rf"\s(?P<way>before|after|prior to|from|later than|earlier than){MARK}\Z",
    re.I,
)
PLUS = re.compile(rf"\A{MARK}(?P<way>\+|-|−|–|plus|minus){MARK}{SPAN}{MARK},?\s?{COPULA}", re.I)
SAME = re.compile(
    rf"\A{MARK}[,)]?\s?(?:which is(?: the same as)?|i\.e\.,?|that is,?|or|=|→|which (?:can be|is) written as"
    rf"|which in MM/DD/YYYY(?: format)? is|in MM/DD/YYYY(?: format)?(?: is|,)){MARK}\Z",
    re.I,
)
THIS_IS = re.compile(rf"(?:\A|[.!\n]\s{{0,3}}|\bso )(?:this|that|it)\s(?:is|was|would be|means){MARK}\Z", re.I)
LETTERED = re.compile(
    rf"\A{MARK}[,)]?\s?(?:(?:that|which) is|that's|=|→|option|choice|answer|is){MARK}(?:option|choice|answer)?\s?"
    r"\(?([A-Z])\)",
    re.I,
)
SUPPOSES = re.compile(
    r"\?|\b(?:thought|thinks?|believe[sd]?|assum\w+|if|suppos\w+|instead|mistak\w*|wrong\w*|incorrect\w*|not|n['’]t|"
    r"scheduled|planned|clock|shows?|ahead|says?)\b",
    re.I,
)
MONTH_LENGTH = re.compile(
    rf"\b(?P<month>{MONTH})(?:,?\s(?P<year>\d{{4}}))?\s(?:only\s)?has\s(?:only\s)?(?P<days>\d\d)\sdays\b", re.I
)
LEAP_YEAR = re.compile(r"\b(?P<year>\d{4})\s(?:is|was)\s(?P<no>not\s|no\s|n['’]t\s)?(?:an?\s)?leap\syear\b", re.I)
ASKED = re.compile(r"What is the date (?P<asked>[\w ]{1,40}?) in MM/DD/YYYY\?\nWhich choice is true\?")
MOST_BASES = 50  # dates from which a text may count on
LONGEST_GAP = 80  # from what says what a date is, or from the other date of a sum, to the date itself


def shifted(day: date, count: int, unit: str) -> date | None:
    """The date `count` units later; the last of the month where that has no such day. None where it cannot be had."""
    if unit == "hour":
        if count % 24:
            return None
        count, unit = count // 24, "day"
    try:
        if unit in ("day", "week"):
            return day + timedelta(count * (7 if unit == "week" else 1))
        year, month = divmod(day.year * 12 + day.month - 1 + count * (12 if unit == "year" else 1), 12)
        return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
    except (ValueError, OverflowError):
        return None  # before year 1, after year 9999


SHIFTS: dict[str, tuple[int, str]] = {
    "today": (0, "day"), "tomorrow": (1, "day"), "yesterday": (-1, "day"), "10 days ago": (-10, "day"),
    "a month ago": (-1, "month"), "one year ago from today": (-1, "year"), "one week ago from today": (-1, "week"),
    "one week from today": (1, "week"), "24 hours later": (1, "day"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """`today` holds every date that can be today: a month after both March 30 and 31 is April 30."""

    today: frozenset[date]
    asked: date
    asked_today: bool
    written: frozenset[str]  # the dates of the question, as it writes them
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stated:
    """A date in a text, with every date it can mean: none for February 30. `choice` is what it means among the
    choices, whose months stand first."""

    start: int
    end: int
    written: str
    means: frozenset[date]
    choice: frozenset[date]


def read(problem: Problem) -> Follow | None:
    asked = ASKED.search(problem.question)
    choices = tuple(problem.metadata.get("choices", ()))
    letter = ord(problem.target) - ord("A") if len(problem.target) == 1 else -1
    if asked is None or asked["asked"] not in SHIFTS or not 0 <= letter < len(choices):
        return None
    gold = re.fullmatch(r"(\d\d)/(\d\d)/(\d{4})", choices[letter])
    target = _date(int(gold[3]), int(gold[1]), int(gold[2])) if gold else None
    if target is None:
        return None
    count, unit = SHIFTS[asked["asked"]]
    around = [target + timedelta(n) for n in range(-400, 401)]
    today = frozenset(day for day in around if shifted(day, count, unit) == target)
    written = frozenset(match[0] for match in DATE.finditer(problem.question[: asked.start()]))
    truth = Truth(today, target, count == 0, written, choices)
    return lambda text: Reading(text, truth).follow()


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _month(name: str) -> int:
    """The number of a month that is written out or shortened."""
    return next(i + 1 for i, known in enumerate(MONTHS) if known.startswith(name.lower()[:3]))


class Reading:
    def __init__(self, text: str, truth: Truth) -> None:
        self.text, self.truth = text, truth
        self.notes = Notes(1 if truth.asked_today else 2)
        years = {day.year for day in truth.today}
        self.years = range(min(years) - 1, max(years) + 2)
        self.so_far: set[date] = set()
        told = [match for match in map(DATE.fullmatch, truth.written) if match]
        self.told = {day for match in told for day in self._stated(match).means}

    def follow(self) -> Replay:
        last: Stated | None = None
        for match in DATE.finditer(self.text):
            stated = self._stated(match)
            self._judge(stated, last)
            self.so_far |= stated.means if len(self.so_far) < MOST_BASES else set()
            last = stated
        self._facts()
        return self.notes.replay(len(self.notes.followed) == self.notes.num_steps)

    def _stated(self, match: re.Match[str]) -> Stated:
        part = match.groupdict()
        if part["m"]:
            month, day, year = (int(part[name]) for name in ("m", "d", "y"))
            readings = [_date(year, month, day)]
            if readings[0] is None or match[0] in self.truth.written:
                readings.append(_date(year, day, month))
        elif part["iy"]:
            readings = [_date(int(part["iy"]), int(part["im"]), int(part["id"]))]
        else:
            month, day = _month(part["month"] or part["month2"]), int(part["day"] or part["day2"])
            written_year = part["year"] or part["year2"]
            readings = [_date(year, month, day) for year in ([int(written_year)] if written_year else self.years)]
        means = frozenset(filter(None, readings))
        first = frozenset(filter(None, readings[:1]))
        return Stated(*match.span(), match[0], means, first if part["m"] and first else means)

    def _judge(self, stated: Stated, last: Stated | None) -> None:
        """What the text says of this date, in the words before it and since the last date."""
        text, truth = self.text, self.truth
        begin = max(last.end if last else 0, stated.start - LONGEST_GAP)
        before = text[begin : stated.start]
        around = re.split(r"[.!?]\s|\n", text[max(0, stated.start - 2 * LONGEST_GAP) : stated.start])[-1]
        if not stated.means:
            if stated.written not in truth.written:
                self.notes.wrong(f"there is no {stated.written}", stated.start, stated.end)
            return
        if STATES_THE_ANSWER.search(around) or SUPPOSES.search(around):
            return
        gap = text[last.end : stated.start] if last and stated.start - last.end <= LONGEST_GAP else None
        if last and gap is not None and last.means and self._between(last, gap, stated):
            pass
        elif named := NAMED_DAY.search(before):
            count = DAY_WORDS[named["day"].lower()]
            expected = {day for d in truth.today if (day := shifted(d, count, "day"))}
            self._compare(stated, expected, named["day"].lower())
        elif found := SHIFTED.search(before):
            count, unit = _amount(found, found["way"])
            bases = set(truth.today) | self.so_far
            self._compare(
                stated,
                {day for d in bases if (day := shifted(d, count, unit))},
                f"{found['n']} {found['unit']} {found['way']}",
            )
        elif last and last.means and THIS_IS.search(before):
            self._compare(stated, set(last.means | truth.today) | {truth.asked}, "this")
        self._letter(stated)

    def _between(self, last: Stated, gap: str, stated: Stated) -> bool:
        """Whether the two dates are compared with each other, as "two days after D is E" does."""
        ahead = self.text[max(0, last.start - LONGEST_GAP) : last.start]
        if IS_THEN.search(gap) and (found := ADDED_TO_A_DATE.search(ahead) or BEFORE_A_DATE.search(ahead)):
            count, unit = _amount(found, found["way"])
        elif IS_THEN.search(gap) and (found := NEXT_TO_A_DATE.search(ahead)):
            count, unit = -1 if found["way"].lower() in ("before", "preceding") else 1, "day"
        elif found := PLUS.search(gap):
            count, unit = _amount(found, found["way"])
        elif found := IS_SO_FAR_FROM.search(gap):
            count, unit = _amount(found, found["way"])
            count = -count
        elif SAME.search(gap):
            expected = set(last.means)
            # "One day after May 1, which is May 2": the clause may be of the date or of the day after it.
            if found := BEFORE_A_DATE.search(ahead) or ADDED_TO_A_DATE.search(ahead):
                expected |= {day for d in last.means if (day := shifted(d, *_amount(found, found["way"])))}
            elif found := NEXT_TO_A_DATE.search(ahead):
                count = -1 if found["way"].lower() in ("before", "preceding") else 1
                expected |= {day for d in last.means if (day := shifted(d, count, "day"))}
            self._compare(stated, expected, last.written)
            return True
        else:
            return False
        from_question = bool(last.means & self.told)
        expected = {day for d in last.means if (day := shifted(d, count, unit))}
        holds = bool(expected) and self._compare(
            stated,
            expected,
            f"{abs(count)} {unit}{'' if abs(count) == 1 else 's'} {'before' if count < 0 else 'after'} {last.written}",
        )
        if holds and from_question and self.truth.asked in stated.means:
            self.notes.followed.update(range(self.notes.num_steps))  # from the question straight to the answer
        return True

    def _compare(self, stated: Stated, expected: Iterable[date], what: str) -> bool:
        expected = set(expected)
        if not expected or stated.means & expected:
            if (stated.means | self.so_far) & self.truth.today and not self.truth.asked_today:
                self.notes.followed.add(0)
            if self.truth.asked in stated.means:
                self.notes.followed.add(self.notes.num_steps - 1)
            return True
        true = ", ".join(f"{day:%m/%d/%Y}" for day in sorted(expected)[:2])
        self.notes.wrong(f"{what} is {true}, the text says {stated.written}", stated.start, stated.end)
        return False

    def _letter(self, stated: Stated) -> None:
        found = LETTERED.search(self.text[stated.end : stated.end + LONGEST_GAP])
        if found is None or (index := ord(found[1].upper()) - ord("A")) >= len(self.truth.choices):
            return
        choice = DATE.fullmatch(self.truth.choices[index])
        if choice and not self._stated(choice).means & stated.choice:
            reason = f"({found[1]}) is {self.truth.choices[index]}, not {stated.written}"
            self.notes.wrong(reason, stated.end, stated.end + found.end())

    def _facts(self) -> None:
        """How long months are, and which years are leap years."""
        for match in MONTH_LENGTH.finditer(self.text):
            month = _month(match["month"])
            years = [int(match["year"])] if match["year"] and int(match["year"]) else [2023, 2024]
            lengths = {calendar.monthrange(year, month)[1] for year in years}
            if int(match["days"]) not in lengths:
                self.notes.wrong(f"{match['month']} does not have {match['days']} days", *match.span())
        for match in LEAP_YEAR.finditer(self.text):
            if calendar.isleap(int(match["year"])) == bool(match["no"]):
                self.notes.wrong(f"{match['year']} is {'no' if match['no'] is None else 'a'} leap year", *match.span())


def _amount(found: re.Match[str], way: str) -> tuple[int, str]:
    """How many units later."""
    count = 1 if found["n"].lower() in ("a", "an", "the") else whole_number(found["n"]) or 0
    backwards = way.lower() in (
        *EARLIER.split("|"),
        "earlier than",
        "preceding",
        "-",
        "−",
        "–",
        "minus",
        "subtract",
        "subtracting",
    )
    return (-count if backwards else count), found["unit"].lower()
