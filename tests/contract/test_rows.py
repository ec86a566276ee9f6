"""Contract 4: rows are independent, and padding on any side is the same input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.cases import CASES, FEW, assert_same, padded, random_ids, tiny_model

SIDES = ["left", "right", "scattered"]


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4))
@torch.no_grad()
def test_a_batch_is_each_row_alone_whatever_the_padding(case, lengths):
    model = tiny_model(case)
    rows = [random_ids(1, length, seed=b)[0] for b, length in enumerate(lengths)]
    alone = [model(row[None]).logits[0] for row in rows]
    for side in SIDES:
        ids, mask = padded(rows, side)
        together = model(ids, attention_mask=mask).logits
        assert torch.isfinite(together).all()
        for b, expected in enumerate(alone):
            assert_same(together[b, mask[b].bool()], expected)


@torch.no_grad()
def test_permuting_rows_permutes_outputs():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(4, 20)
    order = torch.tensor([2, 0, 3, 1])
    assert_same(model(ids[order]).logits, model(ids).logits[order])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", FEW)
def test_pads_get_no_gradient_and_gradients_are_those_of_the_rows_alone(case, side):
    model = tiny_model(case)
    rows = [random_ids(1, length, seed=b)[0] for b, length in enumerate([20, 3, 7])]
    ids, mask = padded(rows, side)
    labels = ids.masked_fill(mask == 0, -100)

    def gradients(batches):
        embeds = [(model.model.embed_tokens(x).detach().requires_grad_(), m, y) for x, m, y in batches]
        for e, m, y in embeds:
            model(inputs_embeds=e, attention_mask=m, labels=y, num_items_in_batch=10).loss.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return found, [e.grad for e, _, _ in embeds]

    alone, _ = gradients([(row[None], None, row[None]) for row in rows])
    if side == "scattered":  # The label after a pad is the pad's to predict, which no row alone has.
        labels = torch.full_like(labels, -100)
        labels[0, 1:] = torch.where(mask[0, :-1] * mask[0, 1:] > 0, ids[0, 1:], -100)
    together, (embeds_grad,) = gradients([(ids, mask, labels)])
    assert embeds_grad[mask == 0].abs().max() == 0
    assert all(torch.isfinite(gradient).all() for gradient in together.values())
    if side != "scattered":
        for name, expected in alone.items():
            assert (together[name] - expected).abs().max() <= 1e-3 * (expected.abs().max() + 1e-3), name


@torch.no_grad()
def test_pads_write_nothing_and_forget_nothing():
    """A row of pads only keeps its bank bit for bit, while another row crosses segments."""
    model = tiny_model("fewer slots than tokens")
    cache = model(random_ids(2, 14), use_cache=True).past_key_values
    before = [state.bank[1].clone() for state in cache.states]
    mask = torch.tensor([[1] * 20, [0] * 20])
    model(random_ids(2, 20, seed=1), attention_mask=mask, past_key_values=cache)
    assert cache.count_R.tolist() == [(14 + 20) % 6, 14 % 6]
    for state, bank in zip(cache.states, before, strict=True):
        assert torch.equal(state.bank[1], bank)


@torch.no_grad()
def test_a_row_of_pads_alone_is_finite():
    model = tiny_model("fewer slots than tokens")
    logits = model(torch.zeros(2, 9, dtype=torch.long), attention_mask=torch.tensor([[1] * 9, [0] * 9])).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_mask_of_another_number_of_rows_is_refused(rows):
    with pytest.raises(ValueError, match=rf"attention_mask must be of shape \(2, 8\) .* it is of shape \({rows}, 8\)"):
        tiny_model("memory in one block")(random_ids(2, 8), attention_mask=torch.ones(rows, 8))
