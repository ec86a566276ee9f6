"""Measures of training change where a bank comes from, and nothing else."""

import numpy as np
import pytest
import torch

from lm2 import LM2Cache
from lm2.study import measures
from lm2.study.measure import recorded_masses
from lm2.training.write_cost import with_write_cost


@pytest.fixture
def batch():
    ids = torch.randint(32, (4, 16))
    return {"input_ids": ids, "labels": ids.clone(), "num_items_in_batch": torch.tensor(60)}


def test_carried_leaves_every_second_row_alone(tiny, batch):
    model = tiny("default").train()
    ids, labels = batch["input_ids"], batch["labels"]
    for row, same in ((0, True), (1, False)):
        only = labels.clone()
        only[torch.arange(4) != row] = -100
        losses = [
            call(ids, only)
            for call in (
                lambda i, y: model(i, labels=y, num_items_in_batch=15).loss,
                lambda i, y: measures.carried(model, {"input_ids": i, "labels": y, "num_items_in_batch": 15}, 0).loss,
            )
        ]
        assert torch.allclose(*losses, atol=1e-6) == same


@pytest.mark.parametrize(
    ("row", "changed", "same"), [(0, slice(8, 12), False), (0, slice(12, 16), True), (2, slice(0, 16), True)]
)
def test_carried_rows_begin_with_the_row_before_as_it_is_before_its_last_segment(tiny, batch, row, changed, same):
    model = tiny("default").train()
    ids, labels = batch["input_ids"], torch.full_like(batch["labels"], -100)
    labels[1] = ids[1]
    other = ids.clone()
    other[row, changed] = (ids[row, changed] + 1) % 32
    losses = [
        measures.carried(model, {"input_ids": i, "labels": labels, "num_items_in_batch": 15}, 0).loss
        for i in (ids, other)
    ]
    assert torch.allclose(*losses, rtol=0, atol=1e-7) == same


def test_a_burn_in_moves_the_banks_and_passes_the_gradient_straight_through(tiny):
    model = tiny("default")
    cache = LM2Cache(model.config)
    model.model(torch.randint(32, (4, 8)), past_key_values=cache)
    before = cache.states[1].bank

    def noise(rows, segments, rng):
        return torch.from_numpy(rng.integers(32, size=(rows, segments * 4)))

    after = measures.burn_in(model, cache, np.random.default_rng(4), noise).states[1].bank
    assert (after - before).abs().max() > 1e-4
    assert cache.states[1].bank is before
    (gradient,) = torch.autograd.grad(after.square().sum(), before)
    torch.testing.assert_close(gradient, 2 * after.detach())


def test_all_but_free_writes_and_rivals_pay_for_writing(tiny, batch):
    """A row of one segment draws no noise and carries nothing, so all else is the plain pass."""
    model = tiny("default").train()
    short = {**batch, "input_ids": batch["input_ids"][:, :4], "labels": batch["labels"][:, :4]}
    plain = model(**short).loss
    for variant in ("free-writes", "free-writes+carried", "rmt", "plain"):
        assert torch.equal(measures.forward_of(variant, "once")(model, short, 0).loss, plain)
    priced = with_write_cost(model, short, 0, measures.WRITE_COST).loss
    assert priced > plain
    for variant in ("default", "mean", "carried", "roll-outs", "burn-in"):
        assert torch.equal(measures.forward_of(variant, "once")(model, short, 0).loss, priced)


def test_divergence_stops_the_run(tiny, batch):
    model = tiny("default").train()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="nan at step 7"):
        measures.checked(model, batch, 7)


@torch.no_grad()
def test_recorded_masses(tiny):
    model, ids = tiny("no-mass"), torch.randint(32, (2, 12))
    with recorded_masses(model) as found:
        model(ids, use_cache=True)
    assert [len(masses) for masses in found] == [3]
    assert all(torch.equal(mass, torch.ones(2, 5, 16)) for mass in found[0])
    model(ids, use_cache=True)
    assert len(found[0]) == 3
