"""Checks of the reasoning itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with `text[start:end]`, and which check says so."""

    check: str
    reason: str
    start: int
    end: int
