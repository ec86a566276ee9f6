import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.background import read_books
from lm2.evaluation import sentences
from lm2.evaluation.sentences import Background, Stretch
from lm2.evaluation.tokens import LengthTokenizer


@pytest.fixture(scope="module")
def book(shared_data) -> str:
    return read_books(shared_data / "books" / "test.jsonl.gz")[0][50_000:130_000]


def test_a_place_has_the_sentences_that_punkt_finds_there(book):
    """One place in 200 may differ: where the cut falls between two sentences."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    punkt = PunktSentenceTokenizer()
    indexed = Background([book], LengthTokenizer.gpt2(), "book").book(0)
    rng = np.random.default_rng(0)
    same = 0
    for _ in range(200):
        start = int(rng.integers(len(book)))
        end = start + int(rng.integers(1000, 8000))
        first, past = indexed.inner(start, end)
        same += [indexed.sentence(i) for i in range(first, past)] == punkt.tokenize(book[start:end])[1:-1]
    assert same >= 198


def test_line_wraps_stay_and_short_sentences_go(book):
    background = Background([book], LengthTokenizer.gpt2(), "book")
    stretches, counts = background.draw(np.random.default_rng(1), 3000)
    sentences = list(background.sentences(stretches))
    assert background.tokenizer.count(sentences) == counts.tolist()
    assert counts.min() >= 10
    assert all(sentence[0] == " " and sentence[1:] in book for sentence in sentences)
    assert any("\n" in sentence for sentence in sentences)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 20_000), seed=st.integers(0, 2**32))
def test_the_last_sentence_reaches_the_count_and_no_other_does(background, n, seed):
    stretches, counts = background.draw(np.random.default_rng(seed), n)
    assert counts.sum() >= n
    assert counts[:-1].sum() < max(n, 1)
    assert len(list(background.sentences(stretches))) == len(counts)


def test_long_sentences_can_be_left_out(background):
    stretches, counts = background.draw(np.random.default_rng(0), 2000, max_tokens=15)
    assert counts.max() <= 15
    assert len(list(background.sentences(stretches, 15))) == len(counts)


def test_what_a_draw_keeps_does_not_grow_with_sentences(background):
    stretches, counts = background.draw(np.random.default_rng(0), 100_000)
    assert len(stretches) < len(counts) / 50


def test_same_generator_state_same_stretches(background):
    first, second = (background.draw(np.random.default_rng(7), 5000)[0] for _ in range(2))
    assert first == second


def test_text_without_sentences_is_refused():
    background = Background(["No full stop here", "Two. Only."], LengthTokenizer.gpt2(), "empty")
    with pytest.raises(ValueError, match=r"background empty gives no sentences: 2 texts, 1000 places.*at least 10"):
        background.draw(np.random.default_rng(0), 10)


def test_books_come_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("One sentence of at least ten tokens stands here now. " * 20)
    background = Background.from_books(tmp_path)
    stretches, _ = background.draw(np.random.default_rng(0), 30)
    assert next(background.sentences(stretches)) == " One sentence of at least ten tokens stands here now."
    assert background.name == f"books {tmp_path.name}"


def test_only_places_running_without_sentences_are_too_many(background, monkeypatch):
    monkeypatch.setattr(sentences, "PLACES_TRIED", 5)
    n = 40 * int(sum(background.book(i).tokens.sum() for i in range(len(background.texts))))
    stretches, counts = background.draw(np.random.default_rng(0), n)
    assert len(stretches) > 5
    assert counts.sum() >= n


def test_sentences_of_just_enough_tokens_are_used(background):
    tokens = background.book(0).tokens
    least = int(np.median(tokens))
    whole = [Stretch(0, 0, len(tokens))]
    picky = Background(background.texts, background.tokenizer, "small", min_tokens=least)
    assert (tokens == least).any()
    assert len(list(picky.sentences(whole))) == (tokens >= least).sum()
    assert len(list(picky.sentences(whole, max_tokens=least))) == (tokens == least).sum()
