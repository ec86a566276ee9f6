from itertools import islice

import numpy as np
import pytest

from lm2.data.background import GeneratedSentences
from lm2.data.pool import RARE, HarderPool, TokenPool


def read(pool, n, seed=0):
    return list(islice(pool.sentences(np.random.default_rng(seed)), n))


def test_sentences_are_those_of_the_source_in_order_and_round_and_round(tokenizer, pool):
    source = GeneratedSentences().sentences(np.random.default_rng(0))
    texts = [f" {next(source)}" for _ in range(len(pool))]
    got = [tokenizer.decode(ids) for ids in read(pool, 2 * len(pool))]
    at = texts.index(got[0])
    assert got[: len(pool)] == texts[at:] + texts[:at]
    assert got[len(pool) :] == got[: len(pool)]


def test_short_sentences_are_left_out(tokenizer):
    pool = TokenPool(GeneratedSentences(min_tokens=15), tokenizer, seed=0, n_tokens=5000)
    lengths = np.diff(pool.starts)
    assert lengths.min() == 15
    assert lengths.sum() == len(pool.ids) >= 5000


def test_same_seed_same_pool(tokenizer):
    one, two, other = (TokenPool(GeneratedSentences(), tokenizer, seed, 2000).ids for seed in (1, 1, 2))
    assert one.tolist() == two.tolist()
    assert one.tolist() != other.tolist()


def test_impossible_pools_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"min_tokens = 900 tokens or more .*lower min_tokens"):
        TokenPool(GeneratedSentences(min_tokens=900), tokenizer, seed=0, n_tokens=100)
    with pytest.raises(ValueError, match="at least 1 token, n_tokens is 0"):
        TokenPool(GeneratedSentences(), tokenizer, seed=0, n_tokens=0)


def test_a_harder_pool_has_telling_sentences_more_often_and_each_word_equally(pool):
    counts = {word: sum(word in pool[i] for i in range(len(pool))) for word in np.unique(pool.ids).tolist()}
    rarest = sorted((n, word) for word, n in counts.items() if n < RARE * len(pool))
    few, many, everywhere = rarest[0][1], rarest[-1][1], max(counts, key=counts.get)
    harder = HarderPool(pool, [few, many, everywhere, int(pool.ids.max()) + 1], telling=0.5, strange=0.0)
    assert [len(found) for found in harder.holders] == [counts[word] for word in sorted((few, many))]
    got = read(harder, 4000)
    known = {tuple(pool[i].tolist()) for i in range(len(pool))}
    assert all(tuple(ids.tolist()) in known for ids in got)
    for word in (few, many):
        assert 0.2 < np.mean([word in ids for ids in got]) < 0.3
    assert len({tuple(ids.tolist()) for ids in got}) > 100  # the other half is the pool


def test_a_harder_pool_has_strange_tokens_of_the_pool(pool):
    strange = read(HarderPool(pool, [], telling=0.5, strange=0.1), 500)
    changed = np.concatenate(strange) != np.concatenate(read(pool, 500))
    assert 0.08 < changed.mean() < 0.12
    assert set(np.concatenate(strange).tolist()) <= set(pool.ids.tolist())


def test_without_telling_words_and_strange_tokens_a_harder_pool_is_the_pool(pool):
    harder = HarderPool(pool, [int(pool.ids.max()) + 1], telling=1.0, strange=0.0)
    first = next(harder.sentences(np.random.default_rng(3)))
    assert first.tolist() == next(pool.sentences(np.random.default_rng(3))).tolist()
