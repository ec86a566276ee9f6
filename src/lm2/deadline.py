"""Work that can be cut off at any point, on a machine that is there for minutes only."""

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class TimeUp(Exception):
    """The moment has come."""


@contextmanager
def until(moment: float) -> Generator[None]:
    """What is done in the block ends with `TimeUp` at a moment of `time.monotonic`. In the main thread only (not on
    Windows).

    Raises:
        TimeUp: the moment has come, also before the block has begun.
    """
    if (seconds := moment - time.monotonic()) <= 0:
        raise TimeUp
    handler = signal.signal(signal.SIGALRM, _raise)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, handler)


def _raise(*_: Any) -> None:
    raise TimeUp
