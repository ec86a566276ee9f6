"""Whole documents as token ids, and how a tokenizer is told from another one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lm2.data.tokenizer import opening
from lm2.folders import read_tokenizer

PROBE = "Where's Zoë? 3.14\t% of 1,024\n\n  def f(x_1): return {'a': [x_1]}  # naïve 東京 😀"
"""Cut in different ways by tokenizers that share a vocabulary but not their rules."""


@dataclass(frozen=True)
class DocumentEncoder:
    """Whole documents: the tokenizer's start token if it puts one before a text, the text, its end token if it has one.

    Text that spells a special token, such as "<|endoftext|>" in a web page, is encoded as text and not as that token.
    It holds plain values, so that it can be sent to other processes.
    """

    specification: str
    """The `tokenizers` library's own JSON."""
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    vocabulary: int
    """One more than the largest id."""
    name: str
    fingerprint: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> "DocumentEncoder":
        """Raises ValueError for a tokenizer without a fast implementation."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ValueError(
                f"the tokenizer {name} is a {type(tokenizer).__name__} without a fast implementation: give one that "
                "AutoTokenizer loads as a fast tokenizer"
            )
        end = tokenizer.eos_token_id
        return cls(
            backend.to_str(),
            tuple(opening(tokenizer)),
            () if end is None else (int(end),),
            max(tokenizer.get_vocab().values()) + 1,
            name,
            fingerprint(tokenizer),
        )

    @property
    def dtype(self) -> str:
        """The smallest of the stored number types, little-endian, that holds every id."""
        return "<u2" if self.vocabulary <= 1 << 16 else "<u4"

    @property
    def facts(self) -> dict[str, Any]:
        """What a store records."""
        names = ("name", "fingerprint", "vocabulary")
        return {name: getattr(self, name) for name in names} | {
            "opening": list(self.opening),
            "closing": list(self.closing),
        }

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.specification)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """Token ids of each text; None where it is empty or leaves nothing to predict (fewer than two tokens)."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._document(encoding.ids) for encoding in encoded]

    def _document(self, ids: list[int]) -> np.ndarray | None:
        whole = [*self.opening, *ids, *self.closing]
        return np.array(whole, self.dtype) if ids and len(whole) > 1 else None


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the vocabulary, the ids around a text and the cut of a probe: the same for a re-saved tokenizer."""
    probe = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    facts = [sorted(tokenizer.get_vocab().items()), probe, opening(tokenizer), tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load_tokenizer(place: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a saved folder, a GGUF file or a name on the hub.

    Raises:
        ValueError: there is none.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return read_tokenizer(path.parent, repr(place), gguf_file=path.name, local_files_only=True)
    return read_tokenizer(path if path.is_dir() else place, repr(place), local_files_only=path.is_dir())
