"""How an error becomes the one sentence that the command prints.

Errors that a user can cause are plain `ValueError`s and `OSError`s whose text names the rule, the values and the
remedy; there are no classes of our own for them. An `assert` is for our own bugs and is never turned into a sentence.
"""

import errno
from collections.abc import Generator, Iterable
from contextlib import contextmanager

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space or choose another folder; no unfinished file was left",
    errno.EDQUOT: "the disk quota is used up: free space or choose another folder; no unfinished file was left",
    errno.EACCES: "permission denied: choose a path you may use",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.EEXIST: "a file of this name is there already: choose another path",
    errno.EISDIR: "this is a folder, a file was expected: check the path",
}


def sentence(error: BaseException) -> str:
    """One line for the user: the error's text, or for a system error what happened, where, and the remedy.

    >>> sentence(FileNotFoundError(2, "No such file or directory", "books"))
    'books: no such file or folder: check the path'
    """
    if isinstance(error, OSError) and error.errno is not None:
        text = _REMEDIES.get(error.errno, error.strerror or str(error))
        return f"{error.filename}: {text}" if error.filename is not None else text
    return in_a_line(error)


def in_a_line(error: BaseException) -> str:
    """All that an error says, in one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def each_once(option: str, values: Iterable[object]) -> None:
    """Raises ValueError if an option names something twice: it would be counted twice.

    >>> each_once("--depths", (0, 50, 50))
    Traceback (most recent call last):
    ValueError: --depths names 50 twice: give each once
    """
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{option} names {value} twice: give each once")
        seen.add(value)


def at_least_one(options: object, *names: str) -> None:
    """Raises ValueError if one of these options is given and below 1."""
    for name in names:
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")


class Problems:
    """Collects what is wrong with several settings, so that a user hears of all of it at once.

    >>> problems = Problems()
    >>> problems.need(2 > 3, "rows must be above 3, got 2")
    >>> with problems.collected():
    ...     int("x")
    >>> problems.raise_all()
    Traceback (most recent call last):
    ValueError: 2 things are wrong: (1) rows must be above 3, got 2; (2) invalid literal for int() with base 10: 'x'
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def need(self, holds: bool, text: str) -> None:
        """Note a sentence if something does not hold."""
        if not holds:
            self.found.append(text.rstrip("."))

    @contextmanager
    def collected(self) -> Generator[None]:
        """Note the user's errors that are raised inside the block, and go on after it."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.note(error)

    def note(self, error: ValueError | OSError) -> None:
        """Note what an error says; one that was raised here is taken apart again."""
        parts = error.parts if isinstance(error, _Several) else [sentence(error)]
        self.found.extend(part.rstrip(".") for part in parts)

    def raise_all(self) -> None:
        """Raises ValueError if anything was noted."""
        if self.found:
            raise _Several(dict.fromkeys(self.found))


class _Several(ValueError):
    """A ValueError whose sentences can be taken apart again by the next collector."""

    def __init__(self, parts: Iterable[str]):
        self.parts = tuple(parts)
        numbered = "; ".join(f"({n}) {part}" for n, part in enumerate(self.parts, 1))
        super().__init__(f"{len(self.parts)} things are wrong: {numbered}" if len(self.parts) > 1 else self.parts[0])
