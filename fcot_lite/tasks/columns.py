"""From the cells of a row to a problem: the question, the gold answer of each kind, the options."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from string import ascii_uppercase
from typing import Any

from fcot_lite.answers import final_sentence, grade
from fcot_lite.errors import DataError, RecipeError
from fcot_lite.readings import folded
from fcot_lite.records import AnswerKind, Problem
from fcot_lite.task_block import TaskBlock
from fcot_lite.tasks.commonsense import multiple_choice
from fcot_lite.tasks.rows import MAX_ROW_BYTES, BadRowError, kind_of
from fcot_lite.tasks.splits import exact, template


def key(question: str) -> str:
    """By which a question is known: its hash."""
    return hashlib.sha256(exact(question).encode()).hexdigest()


def to_problem(row: Mapping[str, Any], block: TaskBlock) -> Problem:
    """A row as a problem whose id does not name its split yet. Raises BadRowError."""
    if block.question is None or block.target is None or block.answer is None:
        raise RecipeError("data of your own needs task.question, task.target and task.answer")
    question = _text(row, block.question)
    value = _cell(row, block.target)
    group = template(question)
    if block.answer == "choice":
        labels, texts = _choices(row, block.choices or ())
        problem = multiple_choice(question, texts, _chosen(value, labels, texts), group)
    else:
        problem = Problem("", question, TARGETS[block.answer](value), block.answer, {"group": group})
    if block.solution is not None and not _is_blank(row.get(block.solution)):
        problem = replace(problem, metadata={**problem.metadata, "solution": _text(row, block.solution)})
    if not _is_gradable(problem):
        raise BadRowError(f"no {block.answer} for an answer", _short(problem.target))
    return replace(problem, id=key(problem.question)[:16] if block.id is None else _id(_cell(row, block.id)))


def _is_gradable(problem: Problem) -> bool:
    """Whether the grader takes the gold answer for one: else each rationale that ends in it would count as wrong."""
    try:
        return grade(final_sentence(problem), problem).correct
    except DataError:
        return False


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRowError("column missing", f"no {column!r} among {', '.join(map(ascii, row))[:200]}")
    if row[column] is None:
        raise BadRowError("empty", column)
    return row[column]


def _text(row: Mapping[str, Any], column: str) -> str:
    return _plain(_cell(row, column), column)


def _plain(value: Any, what: str) -> str:
    """The value where it is text with something in it, its ends stripped."""
    if not isinstance(value, str):
        raise BadRowError("wrong type", f"{what} is {kind_of(value)}, not text")
    text = value.strip()
    if not text:
        raise BadRowError("empty", what)
    if len(text) > MAX_ROW_BYTES:
        raise BadRowError("too long", f"{what} has {len(text):,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRowError("half a character", f"{what} holds the lone surrogate {text[error.start]!a}") from None
    return text


def _id(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _plain(value, "id")


def _number(value: Any) -> str:
    if isinstance(value, float):
        value = Decimal(repr(value))  # the digits as they were written, where Decimal(0.1) has 55
    if isinstance(value, Decimal):
        text = f"{value:f}"  # "NaN" and "Infinity" for what is none
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _plain(value, "the target")


def _yes_no(value: Any) -> str:
    word = ("yes" if value else "no") if isinstance(value, bool) else _plain(value, "the target").lower()
    if word not in (words := {"yes": "yes", "true": "yes", "no": "no", "false": "no"}):
        raise BadRowError("no yes_no for an answer", _short(word))
    return words[word]


def _one_line(value: Any) -> str:
    text = _plain(value, "the target")
    if len(text.splitlines()) > 1:
        raise BadRowError("not one line", _short(text))
    return text


def _math(value: Any) -> str:
    return _one_line(value) if isinstance(value, str) else _number(value)


TARGETS: Mapping[AnswerKind, Callable[[Any], str]] = {
    "number": _number,
    "yes_no": _yes_no,
    "letters": _one_line,
    "text": _one_line,
    "math": _math,
}


def _choices(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """(labels, texts) of the options: a column for each, a list, or lists under "label" and "text", as the hub has."""
    labels = list(ascii_uppercase)
    values: Any = [_cell(row, column) for column in columns]
    if len(columns) == 1:
        (values,) = values
        if isinstance(values, dict) and isinstance(values.get("label"), list):
            labels = [_plain(label, "a label") for label in values["label"]]
            values = values.get("text")
        if not isinstance(values, list):
            raise BadRowError("wrong type", f"{columns[0]} is {kind_of(values)}, not a list of texts")
    texts = [_plain(value, f"choice {ascii_uppercase[i % 26]}") for i, value in enumerate(values)]
    if not 2 <= len(texts) <= min(len(labels), 26):
        raise BadRowError("number of choices", str(len(texts)))
    if len(set(map(folded, texts))) < len(texts):
        raise BadRowError("two equal choices")
    return labels[: len(texts)], texts


def _chosen(value: Any, labels: Sequence[str], texts: Sequence[str]) -> str:
    """The letter of the right option, which is given by its label, its text, or its place from 0.

    A number that names one option by its place and another by its label or text is none: nobody can tell which is
    meant. Digits that stand as text, as all of a CSV file do, are a place only where they are no label and no text.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if is_number else _plain(value, "the target")
    bare = text.removeprefix("(").removesuffix(")").upper()
    named = {i for i, label in enumerate(labels) if label.upper() == bare}
    named |= {i for i, option in enumerate(texts) if option == text}
    place = {i for i in range(len(texts)) if str(i) == text}
    matches = named | place if is_number else named or place
    if not matches:
        raise BadRowError("not one of the choices", _short(text))
    if len(matches) > 1:
        letters = " or ".join(ascii_uppercase[i] for i in sorted(matches))
        raise BadRowError("more than one choice", f"{_short(text)} can be {letters}; give the letter")
    return ascii_uppercase[matches.pop()]


def _short(text: str) -> str:
    return repr(text[:60])
