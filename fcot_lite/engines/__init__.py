"""What an engine is: requests go in, completions come out as they finish."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fcot_lite.recipe import Sampling
from fcot_lite.records import FinishReason


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to make, under the caller's own key. `seed` is the request's own, in place of sampling.seed."""

    key: str
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    stop_token_ids: tuple[int, ...]
    use_adapter: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """`num_tokens` counts what was generated, the end-of-turn token included."""

    key: str
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int


class Engine(Protocol):
    """Whoever calls `submit` and `poll` holds interrupts back meanwhile (interrupts.py)."""

    version: str

    def submit(self, requests: Sequence[Request]) -> None:
        """Queues the requests; returns at once."""

    def poll(self, timeout: float) -> list[Completion]:
        """Whatever has finished, perhaps gathered for a moment; [] after `timeout` seconds, and at once when nothing is
        pending."""

    def cancel(self, keys: Sequence[str]) -> None:
        """Drops these requests: a cancelled key never comes back; its tokens stay in `num_tokens_generated`. A key that
        was never submitted is none to it."""

    def num_tokens_generated(self) -> int:
        """All tokens generated since the start, those of cancelled requests included."""

    def close(self) -> None:
        """Ends the engine and gives its memory back."""
