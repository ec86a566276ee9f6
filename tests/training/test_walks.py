"""Walks move the banks of half-read rows through noise, and change nothing else."""

import numpy as np
import pytest
import torch

from lm2 import LM2Cache, LM2Config, LM2ForCausalLM
from lm2.memory import LM2Memory
from lm2.training import walks


@pytest.fixture
def model():
    config = LM2Config(
        base_model_type="qwen3",
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=4,
        segment_length=4,
        memory_slots=5,
        memory_layers=[1],
    )
    return LM2ForCausalLM(config).train()


@pytest.fixture
def batch():
    ids = torch.randint(32, (4, 16))
    return {"input_ids": ids, "labels": ids.clone(), "num_items_in_batch": torch.tensor(60)}


def nothing(model, cache, rng):
    return cache


def noise(rows, segments, rng):
    return torch.from_numpy(rng.integers(32, size=(rows, segments * 4)))


def test_a_walk_of_no_noise_is_the_plain_loss(model, batch):
    batch["labels"][:, ::4] = -100  # a label at a border would need the token before it
    plain = model(**batch).loss
    for step in range(6):
        torch.testing.assert_close(walks.walked(model, batch, step, nothing).loss, plain)


def test_a_roll_out_moves_the_banks_and_lets_the_gradient_through(model):
    cache = LM2Cache(model.config)
    ids = torch.randint(32, (4, 8))
    model.model(ids, past_key_values=cache)
    before = cache.states[1].bank
    after = walks.roll_out(model, cache, np.random.default_rng(4), noise).states[1].bank
    assert (after - before).abs().max() > 1e-4
    assert cache.states[1].bank is before
    (gradient,) = torch.autograd.grad(after.square().sum(), before)
    assert gradient.abs().max() > 0


def test_a_roll_out_walks_like_the_whole_model_when_inputs_are_the_same(model, monkeypatch):
    """One row of constant noise: the cached inputs are what the model would have seen (a single block below it)."""
    model.eval()
    cache = LM2Cache(model.config)
    model.model(torch.randint(32, (2, 4)), past_key_values=cache)
    monkeypatch.setattr(walks, "walk_length", lambda rng: 3)
    constant = torch.full((16, 8 * 4), 7)
    rolled = walks.roll_out(model, cache, np.random.default_rng(0), lambda *asked: constant).states[1].bank
    walked = cache.copy()
    model.model(constant[:2, :12], past_key_values=walked)
    torch.testing.assert_close(rolled, walked.states[1].bank)


def test_half_of_the_passes_walk_at_any_border_as_the_step_says(model, batch):
    walked_at = []

    def note(model, cache, rng):
        walked_at.append(int(cache.tokens_R[0]))
        return cache

    for step in range(40):
        walks.walked(model, batch, step, note)
    assert 10 < len(walked_at) < 30
    assert set(walked_at) == {4, 8, 12}


def test_the_rest_of_a_row_is_read_from_where_the_walk_ends(model, batch):
    def losses(walk):
        return torch.stack([walks.walked(model, batch, step, walk).loss.detach() for step in range(8)])

    fresh = losses(lambda model, cache, rng: LM2Cache(model.config))
    assert (fresh - losses(nothing)).abs().max() > 1e-4


def test_the_noise_itself_gets_no_gradient(model):
    cache = LM2Cache(model.config)
    with torch.no_grad():
        model.model(torch.randint(32, (4, 8)), past_key_values=cache)
    after = walks.roll_out(model, cache, np.random.default_rng(4), noise).states[1].bank
    (gradient,) = torch.autograd.grad(after.square().sum(), [model.model.embed_tokens.weight], allow_unused=True)
    assert gradient is None


def test_walks_are_from_one_segment_to_the_longest_with_each_doubling_alike():
    rng = np.random.default_rng(0)
    lengths = np.array([walks.walk_length(rng) for _ in range(6000)])
    assert (lengths.min(), lengths.max()) == (1, walks.LONGEST_WALK)
    for first in (1, 2, 4, 8, 16, 32):
        share = ((first <= lengths) & (lengths < 2 * first)).mean()
        assert share == pytest.approx(np.log(2) / np.log(walks.LONGEST_WALK + 1), abs=0.025)


def test_a_roll_out_draws_from_all_segments_of_the_noise(model, monkeypatch):
    cache, seen, own = LM2Cache(model.config), [], LM2Memory.project
    monkeypatch.setattr(walks, "walk_length", lambda rng: 64)
    with torch.no_grad():
        model.model(torch.randint(32, (4, 4)), past_key_values=cache)
        monkeypatch.setattr(LM2Memory, "project", lambda memory, x: seen.append(x) or own(memory, x))
        walks.roll_out(model, cache, np.random.default_rng(0), noise)
    segments = seen[-1].flatten(0, 1).flatten(1)
    assert len(segments) == 4 * 64
    assert len(segments.unique(dim=0)) > 96  # of 128; all would be 111 on average
