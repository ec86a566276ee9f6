"""Background sentences as token ids, encoded once and read many times."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.background import Sentences

BATCH = 1000
"""Sentences encoded in one call."""
RARE = 0.02
"""A word is telling when fewer of the sentences hold it."""


class Pool(Protocol):
    """Sentences without end, as token ids."""

    def sentences(self, rng: np.random.Generator) -> Iterator[np.ndarray]: ...


class TokenPool:
    """About `n_tokens` ids of sentences, each encoded with a space before it.

    Sentences shorter than the source's `min_tokens` are left out. `sentences(rng)` starts at a random one and goes on
    in order, round and round, so neighbours in a book stay neighbours.

    Args:
        source: where the sentences come from.
        tokenizer: any Hugging Face tokenizer.
        seed: the same seed gives the same pool.
        n_tokens: size; texts longer than this see sentences again.
    """

    def __init__(self, source: Sentences, tokenizer: PreTrainedTokenizerBase, seed: int, n_tokens: int = 500_000):
        if n_tokens < 1:
            raise ValueError(f"A pool of background text needs at least 1 token, n_tokens is {n_tokens}.")
        pieces: list[list[int]] = []
        size, fruitless = 0, 0
        texts = source.sentences(np.random.default_rng(seed))
        while size < n_tokens:
            batch = [f" {next(texts)}" for _ in range(min(BATCH, 1 + n_tokens // 10))]
            encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
            kept = [ids for ids in encoded if len(ids) >= max(1, source.min_tokens)]
            fruitless = 0 if kept else fruitless + 1
            if fruitless == 100:
                raise ValueError(
                    f"No background sentence has min_tokens = {source.min_tokens} tokens or more "
                    f"({fruitless * len(batch)} read): lower min_tokens."
                )
            pieces += kept
            size += sum(map(len, kept))
        self.ids = np.concatenate(pieces).astype(np.int32)
        self.starts = np.cumsum([0, *map(len, pieces)])

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.starts) - 1

    def sentences(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        at = int(rng.integers(len(self)))
        while True:
            yield self[at]
            at = (at + 1) % len(self)

    def __getitem__(self, at: int) -> np.ndarray:
        """The ids of a sentence."""
        return self.ids[self.starts[at] : self.starts[at + 1]]

    def sentence_of(self, places: np.ndarray) -> np.ndarray:
        """Which sentence each of these places in `ids` is in."""
        return np.searchsorted(self.starts, places, side="right") - 1


class HarderPool:
    """A pool that is harder to read past for a memory that is to write the facts of stories and nothing else.

    A book says "garden" in one sentence of 250, most of what a model reads of gardens is facts, and what it writes at
    the word in a book wears the bank out. Here such sentences come often, and words that the books hardly have as well.

    Args:
        pool: the sentences.
        words: token ids of the stories. Telling are those that the pool has, in fewer than RARE of its sentences.
        telling: share of the sentences that is replaced by sentences with a telling word, each word equally often;
            without any telling word none is.
        strange: share of the tokens that is replaced by any token of the pool, each equally often.
    """

    def __init__(self, pool: TokenPool, words: Iterable[int], telling: float, strange: float):
        self.pool, self.telling, self.strange = pool, telling, strange
        self.tokens = np.unique(pool.ids)
        holders = (np.unique(pool.sentence_of(np.flatnonzero(pool.ids == word))) for word in sorted(set(words)))
        self.holders = [found for found in holders if 0 < len(found) < RARE * len(pool)]
        """For each telling word the sentences that hold it"""

    def sentences(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        for ids in self.pool.sentences(rng):
            if self.holders and rng.random() < self.telling:
                ids = self.pool[int(rng.choice(self.holders[rng.integers(len(self.holders))]))]
            other = self.tokens[rng.integers(len(self.tokens), size=len(ids))]
            yield np.where(rng.random(len(ids)) < self.strange, other, ids)
