"""Work that can be cut off at any point, on a machine that is there for minutes only."""

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class TimeUp(Exception):
    """The moment has come."""


SOON = 0.01
"""Seconds after which an outer block hears that its moment came inside an inner one: it may be on its way out."""


@contextmanager
def until(moment: float) -> Generator[None]:
    """What is done in the block ends with `TimeUp` at a moment of `time.monotonic`. In the main thread only (not on
    Windows). Blocks can be nested: the inner one ends at the earlier moment, and the outer one keeps its own.

    Raises:
        TimeUp: the moment has come, also before the block has begun.
    """
    began = time.monotonic()
    if (seconds := moment - began) <= 0:
        raise TimeUp
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    handler = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, min(seconds, left or seconds))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # first, so that the handler of before hears no alarm of this block
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(SOON, left - (time.monotonic() - began)))


def _raise(*_: Any) -> None:
    raise TimeUp
