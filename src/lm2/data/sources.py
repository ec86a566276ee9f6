"""Where documents come from: local files here, the hub in `lm2.data.hub`.

A source is cut into parts that are read independently and always in the same order, so that several processes can
share the work and an interrupted run can go on.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from lm2.files import content_digest
from lm2.progress import counted

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".txt")
PART_BYTES = 64 << 20
"""Small files are read together until they have this size."""


class Part(Protocol):
    """Documents that are read in order by one process."""

    @property
    def key(self) -> str:
        """What tells it from other documents."""
        ...

    @property
    def size(self) -> int: ...

    def documents(self) -> Iterator[tuple[str, float]]:
        """Each text, with the share (0 to 1) of the part that has been read after it."""
        ...


class Source(Protocol):
    """Named documents with a weight (None: their share of the tokens) for training on several sources."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float | None: ...

    @property
    def place(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    def pinned(self, revision: str | None) -> Self:
        """The source at a fixed revision: the given one, or what is newest now."""
        ...

    def parts(self) -> list[Part]: ...


@dataclass(frozen=True)
class FilePart:
    """Files of a local source, one after the other."""

    files: tuple[Path, ...]
    column: str
    key: str
    size: int

    def documents(self) -> Iterator[tuple[str, float]]:
        before = 0
        for file in self.files:
            size = file.stat().st_size
            for text, share in _read(file, self.column):
                yield text, (before + share * size) / max(self.size, 1)
            before += size


@dataclass(frozen=True)
class FileSource:
    """A JSONL, gzipped JSONL, Parquet or text file (a text file is one document), or a folder with such files.

    Files of a folder are read in the order of their paths, subfolders included.
    """

    name: str
    path: Path
    column: str = "text"
    weight: float | None = None

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def revision(self) -> None:
        return None

    def pinned(self, revision: str | None) -> Self:
        return self

    def parts(self) -> list[Part]:
        """Raises ValueError if there is no file to read."""
        groups: list[list[tuple[Path, int]]] = [[]]
        filled, total = 0, 0
        for file in self.files():
            size = file.stat().st_size
            if groups[-1] and filled + size > PART_BYTES:
                groups.append([])
                filled = 0
            groups[-1].append((file, size))
            filled += size
            total += size
        with counted(f"reading the files of {self.name} to know them again", total, transient=True) as advance:
            return [self._part(group, advance) for group in groups]

    def files(self) -> list[Path]:
        if not self.path.exists():
            raise ValueError(
                f"there is no file or folder {self.path}: give a path, or hub:OWNER/NAME for a data set on the hub"
            )
        if self.path.is_file():
            if not self.path.name.endswith(SUFFIXES):
                raise ValueError(f"{self.path} is of no known kind: files must end in {', '.join(SUFFIXES)}")
            return [self.path]
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        if not files:
            raise ValueError(f"{self.path} holds 0 files ending in {', '.join(SUFFIXES)}: give a folder that has some")
        return files

    def _part(self, files: list[tuple[Path, int]], advance: Callable[[float], None]) -> FilePart:
        # Known by all that they hold, which takes minutes for 100 GB where tokenizing takes hours: a size stays when a
        # file is changed, and a time of change does not when it is copied to go on elsewhere.
        root, listed = self.path if self.path.is_dir() else self.path.parent, []
        for file, size in files:
            listed.append([file.relative_to(root).as_posix(), content_digest(file, SUFFIXES)])
            advance(size)
        paths, sizes = zip(*files, strict=True)
        return FilePart(paths, self.column, json.dumps([self.column, *listed]), sum(sizes))


def parse_source(text: str, column: str = "text") -> Source:
    """A source from `[NAME=]PLACE[@WEIGHT]`, where PLACE is a path or hub:OWNER/NAME[/CONFIG[/SPLIT]].

    Raises:
        ValueError: a weight that is not above 0, a name that cannot be one, or no place.
    """
    from lm2.data.hub import HubSource

    head, equals, rest = text.partition("=")
    has_name = bool(equals) and not set(head) & {"/", ":"}
    name, (place, weight) = (head if has_name else None), _split_weight(rest if has_name else text)
    if not place or name == "":
        raise ValueError(f"{text!r} is no source: write [NAME=]PLACE[@WEIGHT], such as web=data/web@3")
    if place.startswith("hub:"):
        return HubSource.parse(place, name, column, weight)
    path = Path(place).expanduser()
    return FileSource(name or path.name.split(".")[0] or path.name, path, column, weight)


def _split_weight(place: str) -> tuple[str, float | None]:
    match = re.fullmatch(r"(.*)@(-?[0-9.]+)", place, re.DOTALL)
    if match is None:
        return place, None
    try:
        weight = float(match[2])
    except ValueError:
        return place, None
    if weight <= 0:
        raise ValueError(
            f"the weight of {match[1]} is {match[2]}: a weight must be above 0; leave the source out instead"
        )
    return match[1], weight


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """The document in a row; a missing value is an empty one.

    Raises:
        ValueError: no such column, or something that is no text in it.
    """
    if column not in row:
        raise ValueError(f"{where} has no column {column!r}, it has {sorted(row)}: choose one of them with --column")
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{where}: column {column!r} holds {type(text).__name__}, not text: choose another with --column"
        )
    return checked(text or "", where)


def checked(text: str, where: str) -> str:
    """The text itself.

    Raises:
        ValueError: it has half of a pair of surrogates, which is no character and no tokenizer takes. JSON can have
            one, and Python makes one of each byte of a command line or standard input that is not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        what, remedy = "half of a character", "repair the line or remove it"
        if 0xDC80 <= half <= 0xDCFF:
            what = f"the byte {half - 0xDC00:#x}, which is not UTF-8, or {what}"
            remedy = f"convert the text, or {remedy}"
        raise ValueError(f"{where}: \\u{half:x} is {what}: {remedy}") from None
    return text


@contextmanager
def damage_named(file: Path) -> Generator[None]:
    """Raises ValueError with the file's name where its compression or its encoding is broken."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged or cut short ({error}): fetch it anew, or leave it out") from None


def _read(file: Path, column: str) -> Iterator[tuple[str, float]]:
    """Texts of a file, with the share of it that has been read."""
    with damage_named(file):
        if file.suffix == ".parquet":
            yield from _read_parquet(file, column)
        elif file.suffix == ".txt":
            yield file.read_text(encoding="utf-8-sig"), 1.0  # a byte-order mark is no text
        else:
            yield from _read_lines(file, column)


def _read_lines(file: Path, column: str) -> Iterator[tuple[str, float]]:
    size = max(file.stat().st_size, 1)
    with open(file, "rb") as raw:
        lines = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield text_of(_json_object(line, f"{file}:{number}"), column, f"{file}:{number}"), raw.tell() / size


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object, found {line[:60]!r}: repair the line or remove it")
    return row


def _read_parquet(file: Path, column: str) -> Iterator[tuple[str, float]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ValueError("reading Parquet needs the package pyarrow: pip install 'lm2[data]'") from None
    try:
        with parquet.ParquetFile(file) as table:
            names, rows = table.schema_arrow.names, max(table.metadata.num_rows, 1)
            text_of(dict.fromkeys(names, ""), column, str(file))
            read = 0
            for batch in table.iter_batches(batch_size=1000, columns=[column]):
                for text in batch.column(0).to_pylist():
                    read += 1
                    yield text_of({column: text}, column, f"{file}, row {read}"), read / rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is damaged or cut short ({error}): fetch it anew, or leave it out") from None
