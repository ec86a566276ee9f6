"""One process at a time in a folder that a command goes on with."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Around what writes to a folder in the course of hours: a second process that comes there meanwhile is refused.

    The lock is the system's, on an open file, so one that is killed leaves none behind.

    Raises:
        ValueError: another process works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another process works in {folder}, and two would overwrite each other: wait for its end, stop it, or "
            "choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
