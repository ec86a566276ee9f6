"""Texts that commands are given: a file, or standard input. A byte-order mark is no text."""

import sys
from pathlib import Path


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        ValueError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it first") from None


def read_input() -> str:
    """All of standard input.

    Raises:
        ValueError: it is not UTF-8, and Python does not let such bytes through.
    """
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text ({error.reason}): convert it first") from None
