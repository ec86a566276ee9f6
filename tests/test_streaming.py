"""Reading a text in pieces: what is left is the state after all of it, and nothing else."""

import pytest
import torch

from lm2 import LM2Cache
from lm2.streaming import SEGMENTS_AT_ONCE, read
from tests.contract.cases import assert_same, random_ids, tiny_model


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_text_is_read_in_pieces_of_whole_segments_without_gradients(more):
    model = tiny_model("fewer slots than tokens")
    piece = SEGMENTS_AT_ONCE * model.config.segment_length
    ids, told, cache = random_ids(2, 2 * piece + more), [], LM2Cache(model.config)
    read(model, ids, cache, told.append)
    assert told == [piece, piece, *[1] * (more > 0)] if more >= 0 else [piece, piece - 1]
    with torch.no_grad():
        whole = model(ids, use_cache=True).past_key_values
    assert cache.tokens_R.tolist() == whole.tokens_R.tolist() == [ids.shape[1]] * 2
    for one, other in zip(cache.states, whole.states, strict=True):
        assert not one.bank.requires_grad
        assert_same(one.bank, other.bank)


def test_of_no_tokens_nothing_is_read():
    model, told = tiny_model("fewer slots than tokens"), []
    cache = LM2Cache(model.config)
    read(model, random_ids(1, 0), cache, told.append)
    assert (cache.rows, told) == (0, [])
