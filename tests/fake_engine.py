"""An engine without a model: it answers from a queue or a function, in an order that no caller should rely on."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fcot_lite.engines import Completion, Request
from fcot_lite.errors import EngineError
from fcot_lite.records import FinishReason


class Answer(NamedTuple):
    text: str
    finish_reason: FinishReason = "stop"
    num_tokens: int = 7


def by_seed(request: Request) -> Answer:
    """A text that only this request can have."""
    return Answer(f"{request.seed} {request.prompt_token_ids}", num_tokens=1 + request.seed % 9)


class FakeEngine:
    """Finishes the newest requests first, `per_poll` at a time, and nothing at all in every third poll.

    Every pending request generates a token per poll. `submitted` and `cancelled` are all that ever were.
    """

    version = "fake 1.0"

    def __init__(
        self,
        answer: Callable[[Request], Answer] | None = by_seed,
        *,
        per_poll: int = 3,
        dies_at_poll: int | None = None,
        interrupted_at_poll: int | None = None,
    ) -> None:
        self.submitted: list[Request] = []
        self.cancelled: list[str] = []
        self.most_pending = 0
        self.polls = 0
        self.closed = False
        self._answer = answer
        self._per_poll = per_poll
        self._dies_at_poll = dies_at_poll
        self._interrupted_at_poll = interrupted_at_poll
        self._queue: deque[Answer] = deque()
        self._pending: dict[str, tuple[Request, Answer]] = {}
        self._num_tokens: dict[str, int] = {}

    def enqueue(self, *answers: Answer) -> None:
        """The answers of the next requests, in the order in which they are submitted."""
        self._queue.extend(answers)

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            assert request.key not in self._num_tokens, f"{request.key} was submitted twice"
            answer = self._queue.popleft() if self._queue else self._answer and self._answer(request)
            assert answer, f"nothing is enqueued for {request}"
            self._pending[request.key] = request, answer
            self._num_tokens[request.key] = 0
            self.submitted.append(request)
        self.most_pending = max(self.most_pending, len(self._pending))

    def poll(self, timeout: float) -> list[Completion]:
        if not self._pending:
            return []
        self.polls += 1
        for key, (_, answer) in self._pending.items():
            self._num_tokens[key] = min(self._num_tokens[key] + 1, answer.num_tokens - 1)
        if self.polls == self._dies_at_poll:
            raise EngineError("the engine died: out of fuel")
        if self.polls == self._interrupted_at_poll:
            raise KeyboardInterrupt
        if self.polls % 3 == 0:
            return []
        return [self._finish(key) for key in list(self._pending)[: -self._per_poll - 1 : -1]]

    def cancel(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self._pending[key]
        self.cancelled.extend(keys)

    def num_tokens_generated(self) -> int:
        return sum(self._num_tokens.values())

    def close(self) -> None:
        self.closed = True

    def _finish(self, key: str) -> Completion:
        request, answer = self._pending.pop(key)
        self._num_tokens[key] = answer.num_tokens
        return Completion(key, answer.text, answer.finish_reason, len(request.prompt_token_ids), answer.num_tokens)
