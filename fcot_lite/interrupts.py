"""Ctrl-C and SIGTERM, where they must not cut something in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back until the block is done.

    An engine in this process whose step, or the message to whose process, is cut in two is unable to cancel what is
    under way; a sample that is stored and not yet counted would be counted as cancelled too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for caught_number in caught:
        signal.raise_signal(caught_number)
