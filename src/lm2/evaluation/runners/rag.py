"""Retrieval: only the passages of the context that are nearest to the question reach the model.

Passages are whole sentences, filled up to a number of words; those that are chosen keep their order in the text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from lm2.evaluation.runners.attention import AttentionRunner

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
EMBEDDING_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Retriever(Protocol):
    """Something that ranks passages: `scores` gives each of them a number, higher for nearer to the question."""

    description: dict[str, Any]

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray: ...


class Bm25:
    """Words in common, weighted by how rare they are (Robertson and Zaragoza 2009, "BM25 and Beyond").

    Raises:
        ValueError: the package is missing.
    """

    def __init__(self):
        try:
            import bm25s
        except ImportError:
            raise ValueError("retrieval with BM25 needs the bm25s package: pip install 'lm2[eval]'") from None
        self.bm25s = bm25s
        self.description = {"retriever": f"BM25 (bm25s {bm25s.__version__})"}

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray:
        words = self.bm25s.tokenize([question, *passages], stopwords="en", show_progress=False, return_ids=False)
        assert isinstance(words, list)
        question_words, *words = words
        known = set().union(*words)
        asked = [word for word in question_words if word in known]
        if not asked:
            return np.zeros(len(passages))
        index = self.bm25s.BM25()
        index.index(words, show_progress=False)
        return index.get_scores(asked)


class Embeddings:
    """The cosine of sentence embeddings.

    Raises:
        ValueError: the package is missing, or the model cannot be had.
    """

    def __init__(self, name: str):
        try:
            from sentence_transformers import SentenceTransformer  # ty: ignore[import-not-found]
        except ImportError:
            raise ValueError(
                "retrieval with embeddings needs the sentence-transformers package: pip install 'lm2[embedding]'"
            ) from None
        try:
            self.encoder = SentenceTransformer(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"the embedding model {name} cannot be loaded ({error}): check its name") from error
        self.description = {"retriever": f"embeddings ({name})"}

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray:
        vectors = self.encoder.encode([question, *passages], normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors[1:] @ vectors[0])


def retriever_of(kind: str, embedding_model: str | None) -> Retriever:
    """The retriever of `--retriever`."""
    return Bm25() if kind == "bm25" else Embeddings(embedding_model or EMBEDDING_MODEL)


class RagRunner:
    """A plain model that sees `k` passages of about `passage_words` words each.

    Raises:
        ValueError: `passage_words` below 1.
    """

    def __init__(self, name: str, plain: AttentionRunner, retriever: Retriever, k: int, passage_words: int):
        if passage_words < 1:
            raise ValueError(f"a passage has at least 1 word, and {passage_words} were asked for")
        self.name, self.plain, self.retriever = name, plain, retriever
        self.k, self.passage_words = k, passage_words
        own = {"kind": "retrieval", "k": k, "passage_words": passage_words, **retriever.description}
        self.description = {**plain.description, **own}

    def answer(self, before: str, pieces: Iterable[str], after: str, max_new_tokens: int) -> str:
        """See `Runner.answer`. The question is what `after` has behind its last "Question:"."""
        passages = list(split(pieces, self.passage_words))
        question = after.rpartition("Question:")[2].strip()
        nearest = self._nearest(question, passages) if passages else []
        return self.plain.answer(before, [" ".join(nearest)], after, max_new_tokens)

    def _nearest(self, question: str, passages: list[str]) -> list[str]:
        order = np.argsort(-self.retriever.scores(question, passages), kind="stable")[: self.k]
        return [passages[i] for i in sorted(order)]


def split(pieces: Iterable[str], words: int) -> Iterator[str]:
    """Passages of whole sentences: as many as fit into `words` words, and at least one."""
    passage: list[str] = []
    held = 0
    for sentence in _sentences(pieces):
        count = len(sentence.split())
        if passage and held + count > words:
            yield " ".join(passage)
            passage, held = [], 0
        passage.append(sentence)
        held += count
    if passage:
        yield " ".join(passage)


def _sentences(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = SENTENCE_END.split(rest + piece)
        yield from (sentence.strip() for sentence in whole if sentence.strip())
    if rest.strip():
        yield rest.strip()
