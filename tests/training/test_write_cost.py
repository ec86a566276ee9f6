"""The price on writing: it is what it says, it is shared like the loss, and it lowers what is written."""

import pytest
import torch

from lm2.memory import Worth
from lm2.training.write_cost import QUIET, fresh_rows, price, priced, watched_gates, with_write_cost
from tests.contract.cases import CASES, random_ids, tiny_model
from tests.training.test_trainer import SHAPE, rmt

CASE = next(iter(CASES))


def a_batch(rows: int, items: int | None = None):
    ids = random_ids(rows, 40, seed=0)
    return {"input_ids": ids, "labels": ids, "num_items_in_batch": items or rows * 39}


def gates_of(model):
    return [module for module in model.modules() if isinstance(module, Worth)]


def test_the_loss_rises_by_the_cost_of_the_mean_share():
    model = tiny_model(CASE).train()
    seen = []
    hooks = [gate.register_forward_hook(lambda gate, inputs, rho: seen.append(rho.mean())) for gate in gates_of(model)]
    plain = model(**a_batch(2), use_cache=False).loss
    for hook in hooks:
        hook.remove()
    priced = with_write_cost(model, a_batch(2), 0, cost=0.5).loss
    torch.testing.assert_close(priced - plain, 0.5 * torch.stack(seen).mean(), atol=1e-5, rtol=1e-5)
    assert not any(gate._forward_hooks for gate in gates_of(model))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.005), (40, 0.005), (50, 0.005 * 100**0.25), (60, 0.05), (80, 0.5), (900, 0.5)],
)
def test_a_price_rises_by_equal_factors(step, expected):
    assert price(0.5, (40, 80), step) == pytest.approx(expected)
    assert price(0.5, (0, 0), step) == 0.5
    assert price(0.5, (40, 40), step) == pytest.approx(0.5 if step >= 40 else 0.005)
    assert price(50.0, (40, 80), min(step, 40)) == price(0.5, (40, 80), 0), "the same at first, whatever it ends at"
    assert price(0.001, (40, 80), step) == 0.001


def test_a_step_on_the_way_pays_the_price_of_that_step():
    model, batch = tiny_model(CASE).train(), a_batch(2)
    plain, whole, part = (
        with_write_cost(model, batch, 60, cost=cost, rise=rise).loss
        for cost, rise in ((0.0, (0, 0)), (50.0, (0, 0)), (50.0, (40, 80)))
    )
    torch.testing.assert_close(part - plain, (whole - plain) / 100, atol=1e-5, rtol=1e-3)


def test_shares_of_a_run_are_steps():
    model, batch = tiny_model(CASE).train(), a_batch(2)
    expected = with_write_cost(model, batch, 60, cost=0.5, rise=(40, 80)).loss
    torch.testing.assert_close(priced(0.5, (0.4, 0.8), steps=100)(model, batch, 60).loss, expected)


def test_shares_are_the_nearest_steps_and_the_pass_that_is_given_is_paid_for():
    """It gets all of the batch but the quiet text, which is read once more."""
    model, made = tiny_model(CASE).train(), []

    def forward(model, batch, step):
        made.append((set(batch), step))
        return fresh_rows(model, batch, step)

    pay = priced(0.5, (0.29, 0.57), steps=100, forward=forward)
    batch = {**a_batch(2), "attention_mask": torch.ones(2, 40, dtype=torch.long), QUIET: random_ids(1, 24, seed=1)}
    plain = fresh_rows(model, {name: value for name, value in batch.items() if name != QUIET}, 0).loss
    dear, dearest, after = (pay(model, batch, step).loss - plain for step in (56, 57, 58))
    assert dear < dearest == after
    assert made == [(set(batch) - {QUIET}, step) for step in (56, 57, 58)]
    assert pay(model, batch, 29).loss == pay(model, batch, 0).loss
    torch.testing.assert_close(priced(0.5, (0.4, 0.4), 100)(model, batch, 40).loss - plain, dearest)


@pytest.mark.parametrize("cost", [-0.1, float("inf"), float("nan")])
def test_a_price_that_cannot_be_is_one_sentence(cost):
    with pytest.raises(ValueError, match=f"must be 0 or more, and write_cost is {cost}"):
        priced(cost, (0.0, 0.0), steps=100)


@pytest.mark.parametrize("rise", [(0.8, 0.4), (-0.1, 0.5), (0.5, 1.1)])
def test_shares_out_of_order_are_one_sentence(rise):
    with pytest.raises(ValueError, match=f"write_cost_rise is {rise[0]} {rise[1]}"):
        priced(0.5, rise, steps=100)


def test_parts_of_a_batch_add_up_to_the_whole():
    model, whole = tiny_model(CASE).train(), a_batch(4)
    halves = [
        {**whole, "input_ids": whole["input_ids"][i : i + 2], "labels": whole["labels"][i : i + 2]} for i in (0, 2)
    ]
    parts = [with_write_cost(model, half, 0, cost=0.5).loss for half in halves]
    torch.testing.assert_close(sum(parts), with_write_cost(model, whole, 0, cost=0.5).loss)


def test_a_step_writes_less():
    model = tiny_model(CASE).train()
    optimizer = torch.optim.SGD([p for name, p in model.named_parameters() if "write_gate" in name], lr=1.0)
    plain, batch = model(**a_batch(2), use_cache=False).loss, a_batch(2)
    before = (with_write_cost(model, batch, 0, cost=100.0).loss - plain).detach()
    with_write_cost(model, batch, 0, cost=100.0).loss.backward()
    optimizer.step()
    after = with_write_cost(model, batch, 0, cost=100.0).loss - model(**batch, use_cache=False).loss
    assert after.item() < before.item()


def test_with_quiet_text_the_price_is_on_that_text_alone():
    model = tiny_model(CASE).train()
    batch, quiet = a_batch(2), random_ids(1, 24, seed=1)
    plain = model(**batch, use_cache=False).loss
    with watched_gates(model) as rhos:
        model(quiet, use_cache=False)
    paid = 0.5 * torch.stack([rho.mean() for rho in rhos]).mean()
    loss = with_write_cost(model, {**batch, QUIET: quiet}, 0, cost=0.5).loss
    torch.testing.assert_close(loss - plain, paid, atol=1e-5, rtol=1e-5)
    other = with_write_cost(model, {**batch, QUIET: random_ids(1, 24, seed=2)}, 0, cost=0.5).loss
    assert abs((other - loss).item()) > 1e-6


@pytest.mark.parametrize("quiet", [{}, {QUIET: random_ids(1, 24, seed=1)}])
def test_activations_that_are_computed_again_change_no_gradient(quiet):
    found = []
    for checkpointing in (False, True):
        model = tiny_model(CASE).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        with_write_cost(model, {**a_batch(2), **quiet}, 0, cost=5.0).loss.backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_model_without_gates_does_not_read_the_quiet_text():
    model = rmt()
    calls = []
    model.register_forward_hook(lambda *passed: calls.append(passed))
    ids = random_ids(1, 24, seed=1) % SHAPE["vocab_size"]
    with_write_cost(model, {"input_ids": ids, "labels": ids, "num_items_in_batch": 23, QUIET: ids}, 0, cost=1.0)
    assert len(calls) == 1


def test_a_price_on_quiet_text_lowers_what_is_written_there():
    model = tiny_model(CASE).train()
    batch = {**a_batch(1), QUIET: random_ids(1, 24, seed=1)}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    plain = model(**a_batch(1), use_cache=False).loss.detach()
    before = (with_write_cost(model, batch, 0, cost=100.0).loss - plain).detach()
    with_write_cost(model, batch, 0, cost=100.0).loss.backward()
    optimizer.step()
    after = with_write_cost(model, batch, 0, cost=100.0).loss - model(**a_batch(1), use_cache=False).loss
    assert after < before
