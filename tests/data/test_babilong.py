from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.data.babilong import compose, draw_offsets, take_background


def filler(length=7, start=1000):
    """Sentences of one length whose ids count up from `start`."""
    for at in count(start, length):
        yield np.arange(at, at + length)


facts = st.lists(st.integers(1, 6), max_size=8).map(
    lambda lengths: [[10 * i + j for j in range(n)] for i, n in enumerate(lengths, 1)]
)


@given(items=facts, room=st.integers(0, 60), length=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_text_is_exact_facts_stay_whole_and_in_order(items, room, length, seed):
    n_tokens = sum(map(len, items)) + room
    ids, offsets = compose(items, filler(length), n_tokens, np.random.default_rng(seed))
    assert len(ids) == n_tokens
    assert [ids[at : at + len(item)].tolist() for at, item in zip(offsets, items, strict=True)] == items
    assert list(offsets) == sorted(offsets)
    assert ids[ids >= 1000].tolist() == list(range(1000, 1000 + room))


@given(items=facts, seed=st.integers(0, 2**32))
def test_facts_stand_between_sentences_never_inside(items, seed):
    ids, _ = compose(items, filler(7), sum(map(len, items)) + 40, np.random.default_rng(seed))
    inside = (ids[1:] >= 1000) & ((ids[1:] - 1000) % 7 != 0)
    assert (ids[:-1][inside] == ids[1:][inside] - 1).all()


def test_sentences_not_used_are_left_for_the_next_text():
    source = filler(5)
    rng = np.random.default_rng(0)
    compose([[1]], source, 13, rng)
    ids, _ = compose([], source, 5, rng)
    assert ids.tolist() == [1015, 1016, 1017, 1018, 1019]


def test_gaps_are_uniform_with_replacement():
    gaps = take_background(filler(5), 20)[1]
    assert gaps.tolist() == [0, 5, 10, 15, 20]
    offsets = draw_offsets(gaps, np.array([1, 1]), np.random.default_rng(0), draws=20_000) - [0, 1]
    both = np.unique(offsets // 5, axis=0, return_counts=True)
    expected = np.array([1 if a == b else 2 for a, b in both[0]]) / 25
    assert len(both[0]) == 15
    assert both[1] / 20_000 == pytest.approx(expected, abs=0.01)


def test_last_sentence_is_cut():
    ids, gaps = take_background(filler(5), 12)
    assert ids.tolist() == list(range(1000, 1012))
    assert gaps.tolist() == [0, 5, 10, 12]


def test_same_seed_same_text():
    texts = [compose([[1, 2], [3]], filler(), 50, np.random.default_rng(5))[0] for _ in range(2)]
    assert (texts[0] == texts[1]).all()


def test_facts_longer_than_the_text_are_refused():
    with pytest.raises(ValueError, match="The 2 facts have 8 tokens, more than the text of 7"):
        compose([[1] * 3, [2] * 5], filler(), 7, np.random.default_rng(0))
