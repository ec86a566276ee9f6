"""Background text as BABILong takes it: sentences of books from random places, as long as wanted.

The published sampler takes a random book, a random character in it, the next `10 x n` characters, splits them with an
untrained Punkt tokenizer, drops the first and the last piece (they may be partial) and every sentence under 10 tokens,
and goes on until it has n tokens. Here each book is split and counted once, the first time that it is drawn; then a
place is a stretch of its sentences. Both give the same sentences, save where the random character falls into a gap
between two sentences (1 place in 200). What a sample keeps is a list of stretches, so a text of any length is small
until it is read.

Source: Kuratov et al. 2024 (arXiv:2406.10149), section 2, and the released generator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lm2.data import grammar
from lm2.data.background import read_books
from lm2.evaluation.tokens import LengthTokenizer

MIN_TOKENS = 10
CHARS_PER_TOKEN = 10
"""A place is this many characters for each token wanted."""
LEAST_CHARS = 1000
"""Of a place, so that some whole sentence is in it however few tokens are wanted."""

GENERATED_SENTENCES = 20_000
PLACES_TRIED = 1000


@dataclass(frozen=True, slots=True)
class Book:
    """A text, and for each of its sentences the first character, the end, and the tokens (with a space before)."""

    text: str
    starts: np.ndarray
    ends: np.ndarray
    tokens: np.ndarray

    def inner(self, start: int, end: int) -> tuple[int, int]:
        """The sentences in the characters `start` to `end` without the first and the last: (first, past the last)."""
        first = int(np.searchsorted(self.ends, start, side="right")) + 1
        past = int(np.searchsorted(self.starts, end, side="left")) - 1
        return first, max(first, past)

    def sentence(self, index: int) -> str:
        return self.text[self.starts[index] : self.ends[index]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sentences `first` to `past` (not included) of one book, those of a length that is used."""

    book: int
    first: int
    past: int


class Background:
    """Books that texts are filled up with; `sentences` are split on first use.

    Args:
        texts: one string for each book.
        tokenizer: counts the sentences.
        name: what reports call it.
        min_tokens: shorter sentences are not used.
    """

    def __init__(self, texts: Sequence[str], tokenizer: LengthTokenizer, name: str, min_tokens: int = MIN_TOKENS):
        self.texts, self.tokenizer, self.name, self.min_tokens = list(texts), tokenizer, name, min_tokens
        self.book = cache(self._index)

    @classmethod
    def from_books(cls, path: str | Path, tokenizer: LengthTokenizer | None = None) -> "Background":
        """Books in a .txt, .jsonl or .jsonl.gz file or a folder of them (see `lm2.data.background.read_books`)."""
        return cls(read_books(path), tokenizer or LengthTokenizer.gpt2(), f"books {Path(path).name}")

    @classmethod
    def generated(cls, tokenizer: LengthTokenizer | None = None, seed: int = 0) -> "Background":
        """The built-in grammar: one book of 20,000 sentences, for use where there are no books."""
        rng = np.random.default_rng(seed)
        text = " ".join(grammar.sentence(rng) for _ in range(GENERATED_SENTENCES))
        return cls([text], tokenizer or LengthTokenizer.gpt2(), f"generated (seed {seed})", min_tokens=1)

    def draw(
        self, rng: np.random.Generator, n_tokens: int, max_tokens: int | None = None
    ) -> tuple[list[Stretch], np.ndarray]:
        """Stretches of sentences that together reach `n_tokens` with their last, and the tokens of each sentence.

        Raises:
            ValueError: no sentence of a usable length at 1,000 places running.
        """
        stretches: list[Stretch] = []
        counts: list[np.ndarray] = []
        missing, fruitless = n_tokens, 0
        while missing > 0:
            stretch = self._place(rng, n_tokens)
            used = self._used(stretch, max_tokens)
            fruitless = 0 if len(used) else fruitless + 1
            if fruitless == PLACES_TRIED:
                raise ValueError(self._no_sentences(max_tokens))
            tokens = self.book(stretch.book).tokens[used]
            needed = min(len(used), int(np.searchsorted(np.cumsum(tokens), missing)) + 1)
            if needed:
                stretches.append(Stretch(stretch.book, stretch.first, int(used[needed - 1]) + 1))
                counts.append(tokens[:needed])
                missing -= int(tokens[:needed].sum())
        return stretches, np.concatenate(counts) if counts else np.empty(0, dtype=np.int32)

    def sentences(self, stretches: Sequence[Stretch], max_tokens: int | None = None) -> Iterator[str]:
        """The sentences of the stretches, each with a space before it."""
        for stretch in stretches:
            book = self.book(stretch.book)
            for index in self._used(stretch, max_tokens):
                yield f" {book.sentence(int(index))}"

    def _place(self, rng: np.random.Generator, n_tokens: int) -> Stretch:
        number = int(rng.integers(len(self.texts)))
        start = int(rng.integers(len(self.texts[number])))
        return Stretch(number, *self.book(number).inner(start, start + max(LEAST_CHARS, CHARS_PER_TOKEN * n_tokens)))

    def _used(self, stretch: Stretch, max_tokens: int | None) -> np.ndarray:
        """Indices of the sentences that are neither too short nor too long."""
        tokens = self.book(stretch.book).tokens[stretch.first : stretch.past]
        usable = tokens >= self.min_tokens
        if max_tokens is not None:
            usable &= tokens <= max_tokens
        return stretch.first + np.flatnonzero(usable)

    def _index(self, number: int) -> Book:
        text = self.texts[number]
        spans = np.array(list(_punkt().span_tokenize(text)), dtype=np.int64).reshape(-1, 2)
        tokens: list[int] = []
        for at in range(0, len(spans), 1000):  # in parts, because encodings are large objects
            tokens += self.tokenizer.count([f" {text[start:end]}" for start, end in spans[at : at + 1000]])
        return Book(text, spans[:, 0], spans[:, 1], np.array(tokens, dtype=np.int32))

    def _no_sentences(self, max_tokens: int | None) -> str:
        most = "no upper limit" if max_tokens is None else f"at most {max_tokens}"
        return (
            f"The background {self.name} gives no sentences: {len(self.texts)} texts, {PLACES_TRIED} places tried, "
            f"sentences of at least {self.min_tokens} tokens ({most}); give longer texts with full stops."
        )


@cache
def _punkt():
    try:
        from nltk.tokenize.punkt import PunktSentenceTokenizer  # an optional dependency, and slow to import
    except ModuleNotFoundError:
        raise ValueError("Splitting books into sentences needs nltk: pip install 'lm2[eval]'.") from None
    return PunktSentenceTokenizer()
