from itertools import islice

import numpy as np
import pytest

from lm2.data.background import GeneratedSentences
from lm2.data.pool import TokenPool


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
