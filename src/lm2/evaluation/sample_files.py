"""Samples in files: JSON lines that we write, and the JSON arrays of the released sets.

A line has task, length, index, question, target, facts and the context as `input`; `input`, `question` and `target` are
the fields of the released sets. The same samples give the same bytes. Contexts are written piece by piece, objects are
read one at a time, and a sample knows where its context lies and does not hold it: a file may be larger than memory.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from lm2.evaluation.babilong import PIECE_CHARS, Fact, Sample
from lm2.evaluation.sets import check_task
from lm2.evaluation.tokens import n_tokens
from lm2.files import replacing

_READ = 1 << 16
_BETWEEN = " \t\r\n,[]"
_SPACE = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True, slots=True)
class FileText:
    """The `input` of the JSON object between two bytes of a file, read each time it is asked for."""

    path: Path
    start: int
    end: int

    def pieces(self) -> Iterator[str]:
        """Parts of about 2,000 characters.

        Raises:
            ValueError: the object is there no more.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self.start)
                text = json.loads(file.read(self.end - self.start))["input"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path} is not what it was when it was opened: run again.") from None
        return split(text)


class Stored(NamedTuple):
    """A JSON object of a file, and where its context is read from."""

    fields: dict[str, Any]
    content: FileText


def split(text: str) -> Iterator[str]:
    """Parts of about 2,000 characters, cut before a single space."""
    start = 0
    while start < len(text):
        space = _SPACE.search(text, start + PIECE_CHARS)
        end = space.start() if space else len(text)
        yield text[start:end]
        start = end


@dataclass(frozen=True)
class FileBabilong:
    """Samples of a file that `write_samples` wrote.

    Raises:
        ValueError: while reading, a line that is not such a sample, named by file and number; a cell without samples.
    """

    path: Path

    @property
    def description(self) -> dict:
        """What a report says about the samples."""
        return {"samples": "file", "file": Path(self.path).name}

    def samples(self, task: str, length: str) -> Iterator[Sample]:
        """The samples of a cell, in the order of the file."""
        check_task(task)
        n_tokens(length)
        found = (sample for sample in read_samples(self.path) if (sample.task, sample.length) == (task, length))
        first = next(found, None)
        if first is None:
            raise ValueError(f"{self.path} has no sample of {task} at {length}: write that cell, or leave it out.")
        yield first
        yield from found


def write_samples(path: str | Path, samples: Iterable[Sample]) -> int:
    """Write samples as JSON lines, whole or not at all; returns their number.

    Raises:
        OSError: the folder is missing or the disk is full; no partial file stays.
    """
    written = 0
    with replacing(path) as beside, open(beside, "w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            _write(file, sample)
            written += 1
    return written


def read_samples(path: str | Path) -> Iterator[Sample]:
    """The samples of a file that `write_samples` wrote.

    Raises:
        ValueError: an object that is not a whole sample, named by file and number.
    """
    for number, stored in enumerate(json_objects(path), 1):
        fields = stored.fields
        try:
            facts = tuple(Fact(f["text"], f["supporting"], f["distance"]) for f in fields["facts"])
            yield stored_sample(fields["task"], fields["length"], fields["index"], stored, facts)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, sample {number}: a sample has task, length, index, question, target, facts and input, "
                f"and {error} is missing or wrong: write the file anew."
            ) from None


def stored_sample(task: str, length: str, index: int, stored: Stored, facts: tuple[Fact, ...] = ()) -> Sample:
    """A sample of the fields `input`, `question` and `target`.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is no text.
    """
    fields = stored.fields
    for name in ("input", "question", "target"):
        if not isinstance(fields[name], str):
            raise TypeError(name)
    return Sample(task, length, index, fields["question"], fields["target"], facts, stored.content)


def json_objects(path: str | Path) -> Iterator[Stored]:
    """The objects of a JSON array or of JSON lines, one at a time.

    Raises:
        ValueError: text that is not JSON, or that ends within an object.
    """
    decoder = json.JSONDecoder()
    buffer, number, start = "", 1, 0
    with open(path, encoding="utf-8", newline="") as file:  # as it is on disk, for the bytes are counted
        while True:
            left = buffer.lstrip(_BETWEEN)
            start += len(buffer) - len(left)
            buffer = left
            try:
                if not buffer.startswith("{"):
                    raise ValueError
                fields, end = decoder.raw_decode(buffer)
            except ValueError:
                if buffer and not buffer.startswith("{"):
                    raise _not_json(path, number, buffer) from None
                # as much again as there is, so that a long object is tried a few times only
                more = _read(file, max(_READ, len(buffer)), path, number)
                if not more and buffer:
                    raise _not_json(path, number, buffer) from None
                if not more:
                    return
                buffer += more
            else:
                after = start + len(buffer[:end].encode())
                yield Stored(fields, FileText(Path(path), start, after))
                buffer, number, start = buffer[end:], number + 1, after


def _read(file: TextIO, size: int, path: str | Path, number: int) -> str:
    try:
        return file.read(size)
    except UnicodeDecodeError as error:
        raise _not_json(path, number, repr(error.object[error.start : error.end])) from None


def _not_json(path: str | Path, number: int, found: str) -> ValueError:
    return ValueError(
        f"{path}, sample {number}: expected a whole JSON object, found {found[:40]!r}: "
        "the file is damaged or cut short; fetch or write it anew."
    )


def _write(file: TextIO, sample: Sample) -> None:
    facts = [{"text": f.text, "supporting": f.supporting, "distance": f.distance} for f in sample.facts]
    small = {
        "task": sample.task,
        "length": sample.length,
        "index": sample.index,
        "question": sample.question,
        "target": sample.target,
        "facts": facts,
    }
    file.write(json.dumps(small, ensure_ascii=False)[:-1] + ', "input": "')
    for piece in sample.text():
        file.write(json.dumps(piece, ensure_ascii=False)[1:-1])
    file.write('"}\n')
