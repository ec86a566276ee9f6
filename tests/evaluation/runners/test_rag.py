"""Retrieval: passages of whole sentences, and the nearest of them in their order."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.evaluation.runners import rag
from lm2.evaluation.runners.rag import Bm25, Embeddings, RagRunner, retriever_of, split

SENTENCES = [
    "It rained all day.",
    "Mary went to the kitchen.",
    "Was it late?",
    "The old clock in the hall struck eleven times.",
    "John moved to the garden.",
]
AFTER = "\n</context>\n\nQuestion: Where is Mary?"


class Plain:
    """Keeps what it is asked."""

    def __init__(self):
        self.name, self.description, self.contexts = "plain", {"source": "none"}, []

    def answer(self, before, pieces, after, max_new_tokens):
        self.contexts.append("".join(pieces))
        return "kitchen"


@given(st.integers(1, 30), st.lists(st.integers(1, 120), max_size=6))
def test_passages_are_whole_sentences_in_order(words, cuts):
    text = " ".join(SENTENCES)
    at = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    passages = list(split([text[a:b] for a, b in pairwise(at)], words))
    assert " ".join(passages) == text
    for passage in passages:
        inside = [sentence for sentence in SENTENCES if sentence in passage]
        assert " ".join(inside) == passage
        assert len(passage.split()) <= words or len(inside) == 1
    for passage, following in pairwise(passages):
        next_sentence = next(sentence for sentence in SENTENCES if following.startswith(sentence))
        assert len(passage.split()) + len(next_sentence.split()) > words  # no passage is shorter than it must be


def test_an_empty_context_has_no_passage():
    assert list(split([], 5)) == list(split(["", "  "], 5)) == []


def test_bm25_finds_the_passage_of_the_question():
    scores = Bm25().scores("Where is Mary?", SENTENCES)
    assert int(scores.argmax()) == 1
    assert not Bm25().scores("Who is xyz?", SENTENCES).any()
    assert not Bm25().scores("Was it in the hall?", ["It was in the garden.", "He is at the office."]).any()


def test_of_passages_that_are_equally_near_the_first_are_given():
    plain, sentences = Plain(), [f"{'John' if n % 3 else 'Mary'} saw number {n}." for n in range(300)]
    RagRunner("rag", plain, Bm25(), 3, 4).answer("", [" ".join(sentences)], AFTER, 5)
    assert plain.contexts == [" ".join(sentences[:9:3])]


def test_the_nearest_passages_reach_the_model_in_their_order():
    plain = Plain()
    runner = RagRunner("rag", plain, Bm25(), 2, 6)
    after = AFTER.replace("Mary", "John when Mary went")
    assert runner.answer("", [" ".join(SENTENCES)], after, 5) == "kitchen"
    assert plain.contexts == ["Mary went to the kitchen. John moved to the garden."]
    runner.answer("", (), AFTER, 5)
    assert plain.contexts[-1] == ""


def test_a_context_of_few_passages_is_all_given():
    plain = Plain()
    RagRunner("rag", plain, Bm25(), 50, 6).answer("", [" ".join(SENTENCES)], AFTER, 5)
    assert plain.contexts == [" ".join(SENTENCES)]


def test_embeddings_rank_by_cosine(monkeypatch):
    class Encoder:
        def __init__(self, name):
            if name == "missing":
                raise OSError("no such model")

        def encode(self, texts, **options):
            assert options["normalize_embeddings"]
            return np.array([[1.0, 0.0] if "Mary" in text else [0.0, 1.0] for text in texts])

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Encoder))
    made = retriever_of("embedding", None)
    assert made.scores("Where is Mary?", SENTENCES).tolist() == [0, 1, 0, 0, 0]
    assert rag.EMBEDDING_MODEL in made.description["retriever"]
    with pytest.raises(ValueError, match=r"embedding model missing cannot be loaded \(no such model\)"):
        retriever_of("embedding", "missing")


@pytest.mark.parametrize(
    ("package", "make", "extra"),
    [("bm25s", Bm25, "eval"), ("sentence_transformers", lambda: Embeddings("x"), "embedding")],
)
def test_a_missing_package_is_named_with_its_extra(package, make, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"pip install 'lm2\[{extra}\]'"):
        make()


def test_passages_need_a_word():
    with pytest.raises(ValueError, match="at least 1 word, and 0 were asked for"):
        RagRunner("rag", Plain(), Bm25(), 5, 0)


def test_the_last_question_is_the_one_that_is_asked():
    plain = Plain()
    after = "\n</context>\n\nQuestion: Who moved to the garden? John.\n\nQuestion: Where is Mary?"
    RagRunner("rag", plain, Bm25(), 1, 6).answer("", [" ".join(SENTENCES)], after, 5)
    assert plain.contexts == ["Mary went to the kitchen."]
