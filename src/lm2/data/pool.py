"""Background sentences as token ids, encoded once and read many times."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.background import Sentences

BATCH = 1000
"""Sentences encoded in one call."""


class Passages(Protocol):
    """Background as token ids."""

    def sentences(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Endlessly, one after the other; the same for the same generator state."""
        ...


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
            yield self.ids[self.starts[at] : self.starts[at + 1]]
            at = (at + 1) % len(self)
