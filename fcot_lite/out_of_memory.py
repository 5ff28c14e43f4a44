"""Memory that ran out in training, under one name."""

import contextlib
from collections.abc import Iterator

from fcot_lite.engines.memory import ran_out_of_memory
from fcot_lite.errors import ResourceError


class OutOfMemory(ResourceError):
    """Training took more memory than there is."""


@contextlib.contextmanager
def named_out_of_memory() -> Iterator[None]:
    """Turns whatever says inside the block that memory ran out, a card's or the machine's, into OutOfMemory."""
    from safetensors import SafetensorError

    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if not isinstance(error, MemoryError) and not ran_out_of_memory(str(error)):
            raise
        raise OutOfMemory(str(error).partition("\n")[0][:200] or type(error).__name__) from error
