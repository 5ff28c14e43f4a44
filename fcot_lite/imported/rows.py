"""What a row of a file says: its question or id, its rationales, and how each of them ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fcot_lite.finish_reasons import FINISH_REASONS, WORST_FIRST
from fcot_lite.imported.layouts import Layout
from fcot_lite.records import FinishReason
from fcot_lite.store import storable
from fcot_lite.tasks.rows import MAX_ROW_BYTES, BadRowError, kind_of

USER, ASSISTANT = ("user", "human"), ("assistant", "gpt", "model")


@dataclass(frozen=True, slots=True)
class Rationale:
    """One text of a row. `word` is the file's own for how it ended; `index` the row's own, where it has one; numbers
    that it does not tell are 0."""

    text: str
    answer_text: str | None
    word: str
    finish_reason: FinishReason
    index: int | None
    num_prompt_tokens: int
    num_tokens: int
    seed: int


def rationales(row: Mapping[str, Any], layout: Layout) -> list[Rationale | BadRowError]:
    """The texts of a row, each with what the row says of it, or why it is none. Raises BadRowError where the row as a
    whole can't be read."""
    value = _cell(row, layout.text)
    texts = value if isinstance(value, list) and not _is_chat(value) else [value]
    if not texts:
        raise BadRowError("empty", layout.text)
    words = _words(row, layout.finish_reason, len(texts))
    found: list[Rationale | BadRowError] = []
    for text, word in zip(texts, words, strict=True):
        try:
            found.append(_rationale(row, layout, text, word))
        except BadRowError as error:
            found.append(error)
    return found


def _rationale(row: Mapping[str, Any], layout: Layout, value: Any, word: Any) -> Rationale:
    answer_text = row.get(layout.answer_text) if layout.answer_text else None
    ends = [_finish_reason(word)]
    if answer_text is not None and layout.answer_finish_reason:
        ends.append(_finish_reason(row.get(layout.answer_finish_reason)))
    index = _whole_number(row, layout.index)
    return Rationale(
        _text(_said(value, ASSISTANT, layout.text), layout.text),
        None if answer_text is None else _text(answer_text, str(layout.answer_text)),
        str(word),
        min(ends, key=WORST_FIRST.index),
        index,
        _whole_number(row, layout.num_prompt_tokens) or 0,
        _whole_number(row, layout.num_tokens) or 0,
        _whole_number(row, layout.seed) or 0,
    )


def asked(row: Mapping[str, Any], layout: Layout) -> tuple[str | None, str | None]:
    """(question, id) of a row. Raises BadRowError."""
    id = row.get(layout.id) if layout.id else None
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int)):
        raise BadRowError("wrong type", f"{layout.id} is {kind_of(id)}, not text or a whole number")
    if layout.question is None or (id is not None and row.get(layout.question) is None):
        if id is None:
            raise BadRowError("empty", str(layout.id))
        return None, str(id)
    question = _text(_said(_cell(row, layout.question), USER, layout.question), layout.question)
    return question, None if id is None else str(id)


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRowError("column missing", f"no {column!r} among {', '.join(map(ascii, row))[:200]}")
    if row[column] is None:
        raise BadRowError("empty", column)
    return row[column]


def _text(value: Any, what: str) -> str:
    if value is None:
        raise BadRowError("empty", what)
    if not isinstance(value, str):
        raise BadRowError("wrong type", f"{what} is {kind_of(value)}, not text")
    if not value.strip():
        raise BadRowError("empty", what)
    if len(value) > MAX_ROW_BYTES:
        raise BadRowError("too long", f"{what} has {len(value):,} characters")
    return storable(value)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _said(value: Any, who: Sequence[str], what: str) -> Any:
    """The value, or where it is a chat what `who` says there: {role, content} or {from, value}. Raises BadRowError for
    a chat of more than one question, because nobody can tell which the answer is of."""
    if not _is_chat(value):
        return value
    said = []
    for turn in value:
        if not isinstance(turn, dict):
            raise BadRowError("not a chat", f"{what} holds {kind_of(turn)} among its turns")
        role = turn.get("role", turn.get("from"))
        if role in who:
            said.append(_content(turn.get("content", turn.get("value")), what))
    if len(said) != 1:
        raise BadRowError("not a chat of one question", f"{what} has {len(said)} turns of the {who[0]}")
    return said[0]


def _content(value: Any, what: str) -> Any:
    """The text of a turn, which may come in parts."""
    if not isinstance(value, list):
        return value
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
    if not all(isinstance(part, str) for part in parts):
        raise BadRowError("wrong type", f"{what} holds a part that is not text")
    return "".join(str(part) for part in parts)


def _words(row: Mapping[str, Any], column: str | None, count: int) -> list[Any]:
    """How each of the row's texts ended, in the file's own word."""
    value = row.get(column) if column else None
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise BadRowError("wrong length", f"{len(value)} {column} for {count} texts")
    return value


def _finish_reason(word: Any) -> FinishReason:
    if word is None:
        return "unknown"
    if not isinstance(word, str) or word.strip().lower() not in FINISH_REASONS:
        found = repr(word[:60]) if isinstance(word, str) else kind_of(word)
        raise BadRowError("unknown finish_reason", f"{found}; one of {', '.join(FINISH_REASONS)}, or null")
    return FINISH_REASONS[word.strip().lower()]


def _whole_number(row: Mapping[str, Any], column: str | None) -> int | None:
    value = row.get(column) if column else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
