"""Generated multiple-choice tasks, in the form of BIG-bench's (arXiv 2206.04615): generated_shuffled_objects and
generated_date_understanding. Stories and contexts are this project's own."""

import calendar
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fcot_lite.tasks.generated import Generator, Item, bucket, ranges
from fcot_lite.tasks.generated_names import NAMES


def letter(index: int) -> str:
    return chr(ord("A") + index)


def with_choices(stem: str, choices: Sequence[str]) -> str:
    """The paper's rendering."""
    listed = ", ".join(f"({letter(i)}) {choice}" for i, choice in enumerate(choices))
    return f"{stem}\nWhich choice is true? Answer choices: {listed}."


def listing(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) < 3 else f"{', '.join(items[:-1])}, and {items[-1]}"


# --- shuffled objects


@dataclass(frozen=True, slots=True)
class Story:
    """`holds` takes a name and an object, `swap` two names, `asked` a name."""

    opening: str
    holds: str
    middle: str
    swap: str
    asked: str
    objects: tuple[str, ...]


STORIES = (
    Story(
        "{people} sit in a circle, each with a balloon.",
        "{0} has the {1}",
        "Every now and then two of them trade balloons.",
        "{0} and {1} trade balloons",
        "When the music stops, {0} has the",
        ("red balloon", "blue balloon", "green balloon", "white balloon", "pink balloon", "gold balloon",
         "grey balloon", "orange balloon"),
    ),
    Story(
        "{people} each bring a dish to a picnic.",
        "{0} brings the {1}",
        "As the afternoon goes on, pairs of them swap what they hold.",
        "{0} and {1} swap their dishes",
        "When the picnic is over, {0} holds the",
        ("apple pie", "rice salad", "lentil soup", "fruit bowl", "cheese plate", "bean stew", "garlic bread",
         "carrot cake"),
    ),
    Story(
        "{people} row for the same club, each in a seat of their own.",
        "{0} starts in the {1}",
        "During training the coach makes pairs of them change places.",
        "{0} and {1} change places",
        "At the end of the training, {0} is in the",
        ("first seat", "second seat", "third seat", "fourth seat", "fifth seat", "sixth seat", "seventh seat",
         "eighth seat"),
    ),
    Story(
        "{people} each borrow a book from the village library.",
        "{0} borrows the {1}",
        "Over the summer they exchange books with each other.",
        "{0} and {1} exchange books",
        "At the end of the summer, {0} has the",
        ("atlas", "cookbook", "dictionary", "crime novel", "travel guide", "book of poems", "book of fairy tales",
         "history of Rome"),
    ),
    Story(
        "{people} look after one animal each at the shelter.",
        "{0} looks after the {1}",
        "During the week, pairs of them switch animals.",
        "{0} and {1} switch animals",
        "On Sunday, {0} looks after the",
        ("parrot", "tortoise", "old dog", "grey cat", "rabbit", "hamster", "pony", "goat"),
    ),
)  # fmt: skip


def shuffled_knobs(options: Mapping[str, Any]) -> dict[str, Any]:
    limits = {"people": ((3, 3), 3, 7), "swaps": ((3, 3), 1, 24)}
    return ranges("generated_shuffled_objects", limits, options)


def draw_shuffled(rng: random.Random, knobs: dict[str, Any], split: str) -> Item:
    """The split is that of the story: no story is told on two sides, whoever is asked about."""
    story = rng.choice(STORIES)
    people = rng.sample(NAMES, rng.randint(*knobs["people"]))
    objects = rng.sample(story.objects, len(people))
    holds = dict(zip(people, objects, strict=True))
    told = [story.opening.format(people=listing(people))]
    told.append(listing([story.holds.format(*pair) for pair in holds.items()]) + ".")
    told.append(story.middle)
    steps = [f"At the start {listing([f'{person}: {thing}' for person, thing in holds.items()])}."]
    num_swaps = rng.randint(*knobs["swaps"])
    for index in range(num_swaps):
        one, other = rng.sample(people, 2)
        word = "First" if index == 0 else "Finally" if index == num_swaps - 1 else "Then"
        told.append(f"{word}, {story.swap.format(one, other)}.")
        holds[one], holds[other] = holds[other], holds[one]
        steps.append(f"{story.swap.format(one, other)}, so {one}: {holds[one]}, {other}: {holds[other]}.")
    tale = " ".join(told)
    asked = rng.choice(people)
    choices = rng.sample(objects, len(objects))
    target = letter(choices.index(holds[asked]))
    stem = f"{tale} {story.asked.format(asked)}"
    steps.append(f"{story.asked.format(asked)} {holds[asked]}, that is ({target}).")
    return Item(bucket(tale), f"{tale} {asked}", with_choices(stem, choices), target, " ".join(steps), tuple(choices))


# --- date understanding


# Not calendar's: those follow the locale.
MONTHS = ("", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def slashes(day: date) -> str:
    return f"{day.month:02}/{day.day:02}/{day.year:04}"


def words(day: date) -> str:
    return f"{MONTHS[day.month]} {day.day}, {day.year}"


def months_later(day: date, months: int) -> date | None:
    """The same day of another month, None where that has no such day: "a month before March 31" is anybody's guess."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    if day.day > calendar.monthrange(year, month + 1)[1]:
        return None
    return date(year, month + 1, day.day)


def days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


Told = tuple[str, str] | None  # the context, and how it leads to today's date; None where it does not suit this date


def _after_birthday(today: date, n: int, name: str) -> Told:
    born = months_later(today, -12 * n)
    steps = f"{n} years after {born and words(born)}"
    return (f"{name} was born on {words(born)}. Today {name} turns {n}.", steps) if born else None


def _wedding(today: date, n: int, name: str) -> Told:
    wed = months_later(today, -12 * n)
    steps = f"{n} years after {wed and words(wed)}"
    return (f"{name} married on {words(wed)}, and today is the wedding anniversary number {n}.", steps) if wed else None


def _last_of_month(today: date, n: int, name: str) -> Told:
    if (today + timedelta(1)).day != 1:
        return None
    month = f"{MONTHS[today.month]} {today.year}"
    return f"Today is the last day of {month}.", f"{month} has {today.day} days"


def _first_of_month(today: date, n: int, name: str) -> Told:
    before = today - timedelta(1)
    month = f"{MONTHS[before.month]} {before.year}"
    return (f"Yesterday was the last day of {month}.", "the next month began today") if today.day == 1 else None


def _first_weekday(today: date, n: int, name: str) -> Told:
    if today.day > 7:
        return None
    month, weekday = f"{MONTHS[today.month]} {today.year}", WEEKDAYS[today.weekday()]
    began = WEEKDAYS[today.replace(day=1).weekday()]
    return (
        f"{MONTHS[today.month]} 1, {today.year} was a {began}. Today is the first {weekday} of {month}.",
        f"{days(today.day - 1)} after the first",
    )


def _day_of_year(today: date, n: int, name: str) -> Told:
    leap = "a leap year" if calendar.isleap(today.year) else "not a leap year"
    number = today.timetuple().tm_yday
    return (
        f"{today.year} is {leap}, and today is its day number {number}.",
        f"{MONTHS[today.month]} begins with day {number - today.day + 1}",
    )


# Each takes today's date, a number of days or years, and a name. The last part explains "so today is …".
CONTEXTS: tuple[Callable[[date, int, str], Told], ...] = (
    lambda d, n, name: (f"Today is {words(d)}.", "as it says"),
    lambda d, n, name: (f"{name} writes today's date as {slashes(d)}, the month first.", "as it says"),
    lambda d, n, name: (
        f"{name} lives in London and writes today's date, the day first, as {d.day:02}/{d.month:02}/{d.year}.",
        "the month is the second number",
    ),
    lambda d, n, name: (f"Yesterday was {words(d - timedelta(1))}.", "one day later"),
    lambda d, n, name: (f"Tomorrow is {words(d + timedelta(1))}.", "one day earlier"),
    lambda d, n, name: (f"The day before yesterday was {words(d - timedelta(2))}.", "2 days later"),
    lambda d, n, name: (f"The day after tomorrow is {words(d + timedelta(2))}.", "2 days earlier"),
    lambda d, n, name: (f"It was {words(d - timedelta(n))} {days(n)} ago.", f"{days(n)} later"),
    lambda d, n, name: (f"In {days(n)} it will be {words(d + timedelta(n))}.", f"{days(n)} earlier"),
    lambda d, n, name: (
        f"{name}'s exam was set for {words(d - timedelta(n))}, but it was put off by {days(n)}, to today.",
        f"{days(n)} later",
    ),
    lambda d, n, name: (
        f"{name} wanted to leave on {words(d + timedelta(n))}, but leaves today, {days(n)} early.",
        f"{days(n)} earlier",
    ),
    lambda d, n, name: (
        f"{name} thinks that today is {words(d + timedelta(1))}, and is one day ahead.",
        "one day earlier",
    ),
    lambda d, n, name: (
        f"The clock in {name}'s kitchen is a day slow: it shows {slashes(d - timedelta(1))}.",
        "one day later",
    ),
    lambda d, n, name: (
        f"{name} bought milk on {words(d - timedelta(n))}. It keeps for {days(n)}, so today is the last one.",
        f"{days(n)} later",
    ),
    lambda d, n, name: (
        f"Exactly {n} week{'' if n == 1 else 's'} ago, on {words(d - timedelta(7 * n))}, {name} moved house.",
        f"{days(7 * n)} later",
    ),
    _after_birthday,
    _wedding,
    _last_of_month,
    _first_of_month,
    _first_weekday,
    _day_of_year,
)
# What is asked, how the solution says it, and the date meant.
ASKED: tuple[tuple[str, str, Callable[[date], date | None]], ...] = (
    ("today", "Today", lambda d: d),
    ("tomorrow", "Tomorrow", lambda d: d + timedelta(1)),
    ("yesterday", "Yesterday", lambda d: d - timedelta(1)),
    ("10 days ago", "10 days ago", lambda d: d - timedelta(10)),
    ("a month ago", "A month ago", lambda d: months_later(d, -1)),
    ("one year ago from today", "One year ago", lambda d: months_later(d, -12)),
    ("one week ago from today", "One week ago", lambda d: d - timedelta(7)),
    ("one week from today", "One week from today", lambda d: d + timedelta(7)),
    ("24 hours later", "24 hours later", lambda d: d + timedelta(1)),
)
NUM_CHOICES = 6
RARE = (_last_of_month, _first_of_month)  # their date is moved there: else they would come once in thirty draws


def date_knobs(options: Mapping[str, Any]) -> dict[str, Any]:
    """`years` of today's date; `offset`: the days, weeks or years that a context lies away from today."""
    limits = {"years": ((1960, 2030), 1900, 2100), "offset": ((1, 10), 1, 60)}
    return ranges("generated_date_understanding", limits, options)


def draw_date(rng: random.Random, knobs: dict[str, Any], split: str) -> Item | None:
    """The split is that of the context, whatever is asked about it."""
    context = rng.choice(CONTEXTS)
    today = date(rng.randint(*knobs["years"]), 1, 1) + timedelta(rng.randrange(365))
    if context in RARE:
        today = today.replace(day=1) - timedelta(context is _last_of_month)
    told = context(today, rng.randint(*knobs["offset"]), rng.choice(NAMES))
    asked, said, shift = rng.choice(ASKED)
    right = shift(today)
    if told is None or right is None:
        return None
    text, reason = told
    choices = [slashes(day) for day in _mistakes(rng, today, right)[: NUM_CHOICES - 1]]
    place = rng.randrange(NUM_CHOICES)
    choices.insert(place, slashes(right))
    steps = f"Today is {words(today)} ({reason})."
    if asked != "today":
        steps += f" {said} {'is' if right > today else 'was'} {words(right)}."
    steps += f" This is {slashes(right)}, that is ({letter(place)})."
    stem = f"{text} What is the date {asked} in MM/DD/YYYY?"
    return Item(bucket(text), f"{text} {asked}", with_choices(stem, choices), letter(place), steps, tuple(choices))


def _mistakes(rng: random.Random, today: date, right: date) -> list[date]:
    """Dates that somebody who slips could give, in random order, none of them right and none twice."""
    slips: list[date | None] = [shift(today) for _, _, shift in ASKED]
    slips += [right + timedelta(n) for n in (-2, -1, 1, 2, 7, 10)]
    slips += [months_later(right, n) for n in (-12, -1, 1, 12)]
    if right.day <= 12:
        slips.append(right.replace(month=right.day, day=right.month))
    wrong = sorted({day for day in slips if day is not None} - {right})
    return rng.sample(wrong, len(wrong))


SHUFFLED_OBJECTS = Generator("generated_shuffled_objects", "choice", shuffled_knobs, draw_shuffled)
DATE_UNDERSTANDING = Generator("generated_date_understanding", "choice", date_knobs, draw_date)
