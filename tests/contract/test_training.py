"""Contract 12, the part for one process: checkpointing and accumulation do not change the loss or the gradients."""

import pytest
import torch

from lm2 import LM2Cache
from lm2.inputs import check_carries
from tests.contract.cases import FEW, random_ids, tiny_model


def loss_and_gradients(model, batches, count, cache=None):
    total = 0.0
    for ids in batches:
        loss = model(ids, labels=ids, num_items_in_batch=count, past_key_values=cache).loss
        loss.backward()
        total += loss.item()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return total, gradients


def assert_equal_steps(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for name, expected in other[1].items():
        assert (one[1][name] - expected).abs().max() <= 1e-4 * (expected.abs().max() + 1e-3), name


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried bank"])
@pytest.mark.parametrize("case", FEW)
def test_gradient_checkpointing(case, carried):
    model, ids = tiny_model(case).train(), random_ids(3, 27)
    caches = [None, None]
    if carried:
        state = model(random_ids(3, 15, seed=1), use_cache=True).past_key_values.detach()
        caches = [state.copy(), state.copy()]
    plain = loss_and_gradients(model, [ids], 78, caches[0])
    model.activation_checkpointing_enable()
    assert_equal_steps(loss_and_gradients(model, [ids], 78, caches[1]), plain)
    if carried:
        for one, two in zip(caches[0].states, caches[1].states, strict=True):
            assert torch.equal(one.keys, two.keys)


@pytest.mark.parametrize("case", FEW)
def test_accumulation(case):
    model, ids = tiny_model(case).train(), random_ids(4, 27)
    assert_equal_steps(loss_and_gradients(model, ids.split(1), 104), loss_and_gradients(model, [ids], 104))


def test_a_cache_carries_gradients_across_calls():
    model, ids = tiny_model("fewer slots than tokens").train(), random_ids(2, 26)
    cache = LM2Cache(model.config)
    losses = []
    for start in (0, 13):  # The label at the border is the next call's first token: neither call has it.
        part = ids[:, start : start + 13]
        losses.append(model(part, labels=part, past_key_values=cache, num_items_in_batch=48).loss)
    sum(losses).backward()
    carried = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    labels = ids.clone()
    labels[:, 13] = -100
    whole = loss_and_gradients_of(model, ids, labels, 48)
    assert_equal_steps((sum(losses).item(), carried), whole)


def loss_and_gradients_of(model, ids, labels, count):
    loss = model(ids, labels=labels, num_items_in_batch=count).loss
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


def test_checkpoints_that_would_lose_the_gradients_of_a_cache_are_refused():
    model, ids = tiny_model("fewer slots than tokens").train(), random_ids(2, 13)
    model.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="use_reentrant is True, and with such checkpoints no gradient reaches"):
        model(ids, past_key_values=LM2Cache(model.config))
    with torch.no_grad():
        check_carries(model.model)
    assert model.eval()(ids, use_cache=True).past_key_values.rows == 2
    model.train().activation_checkpointing_enable({"use_reentrant": False})
    assert model(ids, use_cache=True).past_key_values.states[0].bank.requires_grad
