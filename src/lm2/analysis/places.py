"""Where a text was written to the memory, in characters and tokens, for people to read."""

import re
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.tokenizer import opening

END = re.compile(r"[.!?]\W*\s|\n\s*\n\s*")
"""The end of a sentence, or an empty line."""
CONTEXT = 200
"""Characters before a place that are shown, at most."""


class Encoded(NamedTuple):
    """A text, its tokens' ids, (L,), and the first character and the end of each, (L,)."""

    text: str
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Places(NamedTuple):
    """Runs of tokens that are written, none across the end of a sentence; a run is a range of tokens.

    Facts are mostly written a little after they are told, when their last word has been read: what a place is about
    stands before it.
    """

    encoded: Encoded
    first: np.ndarray
    past: np.ndarray

    def __len__(self) -> int:  # ty: ignore[incompatible-method-override]  (of places, not of fields)
        return len(self.first)

    def at(self, place: int) -> int:
        """The first character of a place."""
        return int(self.encoded.starts[self.first[place]])

    def text(self, place: int) -> str:
        """The characters of the tokens that are written."""
        return self.encoded.text[self.at(place) : self.encoded.ends[self.past[place] - 1]]

    def before(self, place: int) -> str:
        """The sentence before it, and its own up to it; the last CONTEXT characters of them."""
        text, end = self.encoded.text, self.at(place)
        begin = max(0, end - CONTEXT)
        ends = [match.end() for match in END.finditer(text, begin, end)]
        return text[ends[-2] if len(ends) > 1 else begin : end]

    def before_tokens(self, place: int) -> int:
        """How many tokens that is, the first perhaps without its beginning."""
        first, begin = self.first[place], self.at(place) - len(self.before(place))
        return int(first - np.searchsorted(self.encoded.ends[:first], begin, side="right"))

    def sums(self, values_L: np.ndarray) -> np.ndarray:
        """The sum of a quantity of the tokens over each place."""
        total = np.concatenate([[0.0], np.cumsum(values_L, dtype=np.float64)])
        return total[self.past] - total[self.first]

    def greatest(self, values_L: np.ndarray) -> np.ndarray:
        """The greatest of a quantity of the tokens of each place."""
        return np.array([values_L[first:past].max() for first, past in zip(self.first, self.past, strict=True)])


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Encoded:
    """A text as the tokenizer begins one.

    Raises:
        ValueError: an empty text, or a tokenizer that does not tell where its tokens stand.
    """
    if not text.strip():
        raise ValueError("the text is empty: give at least one word")
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell where its tokens stand in a text: use a fast tokenizer"
        )
    start = opening(tokenizer)  # and no end token behind a text that questions follow
    encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.array([(0, 0)] * len(start) + encoded["offset_mapping"], dtype=np.int64)
    return Encoded(text, np.array(start + encoded["input_ids"]), offsets[:, 0], offsets[:, 1])


def places_of(encoded: Encoded, written_L: np.ndarray, floor: float) -> Places:
    """The places of a text, given rho of its tokens and what is above nothing."""
    ends = np.array([match.end() for match in END.finditer(encoded.text)], dtype=np.int64)
    sentence_L = np.searchsorted(ends, np.maximum(encoded.ends - 1, 0), side="right")
    open_L = written_L > floor
    begins_L = open_L & (np.diff(open_L, prepend=False) | (np.diff(sentence_L, prepend=-1) > 0))
    first = np.flatnonzero(begins_L)
    stops_L = open_L & np.append(begins_L[1:] | ~open_L[1:], True)
    return Places(encoded, first, np.flatnonzero(stops_L) + 1)
