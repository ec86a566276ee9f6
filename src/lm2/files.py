"""Files that appear whole or not at all."""

import errno
import hashlib
import json
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written(path: str | os.PathLike[str]) -> Generator[None]:
    """Around what writes a file: where the disk is full, the error names it, which writing to an open file does not."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """A path beside `path` to write to: renamed to `path` when the block ends well, removed when it does not.

    Raises:
        OSError: the folder is missing or the disk is full; no partial file stays.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with written(path):
            yield beside
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def append_line(path: Path, values: Any) -> None:
    """Add values to a JSONL file, as a line that is on the disk when this returns.

    Raises:
        OSError: the disk is full; an unfinished line may stay.
    """
    with written(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def check_place(option: str, path: Path) -> None:
    """Raises ValueError if no file can be written there: it is a folder, or its folder is missing."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder: give a file")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{option} is {path}, and there is no folder {path.parent}: make it first")


def content_digest(path: Path, suffixes: tuple[str, ...]) -> str:
    """A short hash of a file, or of the files below a folder that end so, with their names in it.

    Raises:
        OSError: nothing there, or it cannot be read.
    """
    files = sorted(p for p in path.rglob("*") if p.name.endswith(suffixes)) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with open(file, "rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()[:16]


def name_and_digest(path: Path, suffixes: tuple[str, ...]) -> str:
    """What tells a file or folder of texts from another, one of the same name too; see `content_digest`."""
    return f"{path.name} ({content_digest(path, suffixes)})"


def by_rows(values: Any, indent: str = "") -> str:
    """JSON text with one object of a list a line, so that tables can be read and compared line by line."""
    if isinstance(values, list) and any(isinstance(row, dict) for row in values):
        return "[\n" + ",\n".join(f"{indent} {json.dumps(row)}" for row in values) + f"\n{indent}]"
    if isinstance(values, dict) and any(isinstance(value, list | dict) for value in values.values()):
        lines = (f"{indent} {json.dumps(name)}: {by_rows(value, indent + ' ')}" for name, value in values.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return json.dumps(values)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, as `replacing` does."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[Any]:
    """The values of a JSONL file; none if it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write the values of a JSONL file, as `replacing` does."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Write JSON values, indented by two and with a line's end, as `replacing` does.

    Raises:
        OSError: the folder is missing or the disk is full; what was there stays.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")
