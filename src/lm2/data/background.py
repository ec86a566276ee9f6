"""Sources of background text: sentences out of books, or out of a built-in generator.

Both have `min_tokens`, the length below which a sentence is not used, and `sentences(rng)`, an endless iterator that is
the same for the same generator state.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from lm2.data import grammar
from lm2.data.sources import checked, damage_named

TEXT_SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")


class Sentences(Protocol):
    """Any endless source of sentences."""

    min_tokens: int

    def sentences(self, rng: np.random.Generator) -> Iterator[str]: ...


class BookSentences:
    """Sentences of books as BABILong takes them, except that line wraps and runs of spaces become one space.

    Again and again: a random book, a random offset in it, `chunk_chars` characters from there, split by an untrained
    Punkt tokenizer, the first and the last piece dropped because they may be partial. Needs nltk (extra `data`).

    Args:
        path: a .txt, .jsonl or .jsonl.gz file (JSON lines with a `text` field, one book each), or a folder of them.
        chunk_chars: characters read at one place.
        min_tokens: shorter sentences are not used (BABILong: 10).

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: no text in it, or a line that is not a JSON object with `text` (named by file and line).
    """

    def __init__(self, path: str | Path, chunk_chars: int = 20_000, min_tokens: int = 10):
        self.books = read_books(path)
        self.chunk_chars, self.min_tokens = chunk_chars, min_tokens

    def sentences(self, rng: np.random.Generator) -> Iterator[str]:
        from nltk.tokenize.punkt import PunktSentenceTokenizer  # an optional dependency, and slow to import

        punkt = PunktSentenceTokenizer()
        fruitless = 0
        while fruitless < 1000:
            book = self.books[rng.integers(len(self.books))]
            start = int(rng.integers(max(1, len(book) - self.chunk_chars)))
            pieces = punkt.tokenize(book[start : start + self.chunk_chars])[1:-1]
            fruitless = 0 if pieces else fruitless + 1
            yield from (" ".join(piece.split()) for piece in pieces)
        raise ValueError(
            f"The background text gives no sentences: {len(self.books)} books, 1000 places tried, {self.chunk_chars} "
            "characters each; a place needs at least three sentences."
        )


class GeneratedSentences:
    """Sentences of the built-in grammar: nothing to download, people and places of its own, and no bAbI name."""

    def __init__(self, min_tokens: int = 1):
        self.min_tokens = min_tokens

    def sentences(self, rng: np.random.Generator) -> Iterator[str]:
        while True:
            yield grammar.sentence(rng)


def read_books(path: str | Path) -> list[str]:
    """The texts in a file or folder, in order of file name."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No background text at {path}: give a .txt, .jsonl or .jsonl.gz file, or a folder.")
    files = sorted(p for p in path.iterdir() if p.name.endswith(TEXT_SUFFIXES)) if path.is_dir() else [path]
    books = [book for file in files for book in read_texts(file)]
    if not books:
        raise ValueError(f"{path} holds no text: {len(files)} files ending in {', '.join(TEXT_SUFFIXES)} were read.")
    return books


def read_texts(file: Path) -> Iterator[str]:
    """The texts of a file that are not blank.

    Raises:
        ValueError: a file of another kind, cut short or not UTF-8, or a line that is not a JSON object with `text`.
    """
    if not file.name.endswith(TEXT_SUFFIXES):
        raise ValueError(f"{file}: background text comes from files ending in {', '.join(TEXT_SUFFIXES)}.")
    with damage_named(file):
        yield from (text for text in _texts(file) if text.strip())


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".txt":
        yield file.read_text(encoding="utf-8-sig")  # a byte-order mark is no text
        return
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _text_field(line, f"{file}:{number}")


def _text_field(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{where}: expected a JSON object with a text field, found {line[:60]!r}.")
    return checked(text, where)
