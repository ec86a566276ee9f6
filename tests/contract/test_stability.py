"""Contract 8: 10,000 segments of random and of constant input leave a bank finite, bounded and of high rank."""

import functools

import pytest
import torch

from lm2 import LM2Cache
from lm2.memory import LM2Memory
from tests.contract.cases import random_ids, tiny_config, tiny_model

SLOTS = 5, 40
"""Fewer than a segment has tokens, and many more."""
LONG = [(5, 2_000), *(pytest.param(slots, 10_000, marks=pytest.mark.slow) for slots in SLOTS)]
"""Slots and segments. Ten thousand segments take half a minute on a slow machine, and have a small twin."""


def effective_rank(bank_ND):
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(bank_ND)
    share = values / values.sum()
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


INPUTS = ("random", "constant")


@functools.cache
@torch.no_grad()
def after(slots, segments):
    """The banks of a memory with fresh weights, before and after: one row for each of INPUTS."""
    torch.manual_seed(0)
    config = tiny_config("fewer slots than tokens", memory_slots=slots)
    memory = LM2Memory(config)
    start_RND = bank_RND = memory.initial_bank(2, torch.device("cpu"))
    x_RTD = torch.randn(2, config.segment_length, config.hidden_size)
    for _ in range(segments):
        x_RTD[0].normal_()
        _, bank_RND, _ = memory.step(x_RTD[:, :1], x_RTD, bank_RND, torch.tensor([True, True]))
    return start_RND, bank_RND


@pytest.mark.parametrize(("slots", "segments"), LONG)
@pytest.mark.parametrize("inputs", INPUTS)
def test_many_segments_leave_a_finite_and_bounded_bank(inputs, slots, segments):
    bank_ND = after(slots, segments)[1][INPUTS.index(inputs)]
    assert torch.isfinite(bank_ND).all()
    assert bank_ND.square().mean(-1).max() <= 1 + 1e-5


@pytest.mark.parametrize(("slots", "segments"), LONG)
@pytest.mark.parametrize("inputs", INPUTS)
def test_many_segments_leave_a_bank_of_high_rank(inputs, slots, segments):
    start_ND, bank_ND = (bank_RND[INPUTS.index(inputs)] for bank_RND in after(slots, segments))
    assert effective_rank(bank_ND) > effective_rank(start_ND) / 4


@pytest.mark.parametrize("inputs", INPUTS)
@torch.no_grad()
def test_a_thousand_segments_through_the_whole_model(inputs):
    model = tiny_model("fewer slots than tokens")
    ids = random_ids(1, 6000) if inputs == "random" else torch.full((1, 6000), 7)
    cache = LM2Cache(model.config)
    for part in ids.split(600, dim=1):
        logits = model(part, past_key_values=cache, logits_to_keep=1).logits
    assert torch.isfinite(logits).all()
    for state in cache.states:
        assert state.bank.square().mean(-1).max() <= 1 + 1e-5
