"""Contract 6: where the gradient is cut, and that every memory parameter has one."""

import pytest
import torch

from lm2 import LM2Cache
from tests.contract.cases import CASES, FEW, SHAPE, random_ids, tiny_model


def reach(bptt_segments, segments, **fields):
    """For each segment, whether the last segment's logits have a gradient at its inputs, or are exactly without one."""
    model = tiny_model("memory in one block", bptt_segments=bptt_segments, **fields).train()
    length = model.config.segment_length
    embeds = model.model.embed_tokens(random_ids(1, segments * length)).detach().requires_grad_()
    model(inputs_embeds=embeds).logits[:, -length:].square().sum().backward()
    return [bool(part.abs().max() > 0) for part in embeds.grad.split(length, dim=1)]


@pytest.mark.parametrize("look_back", [0, 3, 6])
@pytest.mark.parametrize("segments", [2, 3, 5, 6])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_last_segment_reaches_back_n_segments_and_not_one_more(n, segments, look_back):
    first = max(0, segments - n)
    assert reach(n, segments, look_back=look_back) == [s >= first for s in range(segments)]


@pytest.mark.parametrize("look_back", [0, 3])
def test_without_truncation_it_reaches_the_start(look_back):
    assert all(reach(None, 6, look_back=look_back))


def test_look_back_alone_reaches_one_segment_per_block():
    assert reach(None, 5, memory_layers=[], look_back=3) == [False, False, True, True, True]
    assert reach(2, 5, memory_layers=[], look_back=3) == [False, False, False, True, True]


@pytest.mark.parametrize("look_back", [0, 3])
def test_cuts_are_counted_from_each_rows_own_end(look_back):
    """A short row beside a long one is cut as if it were alone."""
    model = tiny_model("memory in one block", bptt_segments=2, look_back=look_back).train()
    length = model.config.segment_length
    embeds = model.model.embed_tokens(random_ids(2, 5 * length)).detach().requires_grad_()
    mask = torch.ones(2, 5 * length, dtype=torch.long)
    mask[1, 3 * length :] = 0
    logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    logits[1, 2 * length : 3 * length].square().sum().backward()
    reached = [bool(part.abs().max() > 0) for part in embeds.grad[1].split(length)]
    assert reached == [False, True, True, False, False]


@pytest.mark.parametrize("look_back", [0, 3])
def test_a_call_is_not_cut_where_it_begins(look_back):
    """Its first segment reaches into the call before, however many segments follow it."""
    model = tiny_model("memory in one block", bptt_segments=2, look_back=look_back).train()
    length, cache = model.config.segment_length, LM2Cache(model.config)
    embeds = model.model.embed_tokens(random_ids(1, length)).detach().requires_grad_()
    model(inputs_embeds=embeds, past_key_values=cache)
    logits = model(random_ids(1, 4 * length, seed=1), past_key_values=cache).logits
    (last,) = torch.autograd.grad(logits[:, 2 * length :].square().sum(), embeds, retain_graph=True, allow_unused=True)
    assert last is None or not last.any()
    (first,) = torch.autograd.grad(logits[:, :length].square().sum(), embeds)
    assert first.abs().max() > 0


def test_a_row_that_ends_before_the_others_hands_its_gradient_on():
    """Its bank after the call is cut where it is cut alone: not at the segments of pads."""
    model = tiny_model("memory in one block", bptt_segments=2).train()
    length, cache = model.config.segment_length, LM2Cache(model.config)
    embeds = model.model.embed_tokens(random_ids(2, 5 * length)).detach().requires_grad_()
    mask = torch.ones(2, 5 * length, dtype=torch.long)
    mask[1, 2 * length :] = 0
    model(inputs_embeds=embeds, attention_mask=mask, past_key_values=cache)
    (bank,) = [state.bank for state in cache.states if state.bank is not None]
    bank[1].square().sum().backward()
    reached = [bool(part.abs().max() > 0) for part in embeds.grad[1].split(length)]
    assert reached == [True, True, False, False, False]


def test_values_do_not_depend_on_it():
    ids = random_ids(2, 40)
    for look_back in (0, 3):
        models = (tiny_model("memory in one block", bptt_segments=n, look_back=look_back) for n in (None, 2))
        whole, cut = (model(ids).logits for model in models)
        assert torch.equal(whole, cut)


@pytest.mark.parametrize("case", CASES)
def test_every_memory_parameter_has_a_gradient(case):
    """With one segment those of the write are zeros, with two or more none is."""
    model = tiny_model(case).train()
    length = model.config.segment_length
    for tokens in (length, 2 * length + 2):
        ids = random_ids(2, max(2, tokens))
        model(ids, labels=ids).loss.backward()
        memory = [(name, p) for name, p in model.named_parameters() if ".memory." in name]
        for name, parameter in memory:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert tokens <= length or parameter.grad.abs().max() > 0, name
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("case", FEW)
def test_every_memory_parameter_has_a_gradient_in_an_open_segment(case):
    """Also of a cache that was decoded with: what decoding keeps of a bank was made without gradients."""
    model, ids = tiny_model(case).train(), random_ids(1, 2 * SHAPE["segment_length"] + 3)
    cache = LM2Cache(model.config)
    with torch.no_grad():
        model(ids[:, :-2], past_key_values=cache)
        model(ids[:, -2:-1], past_key_values=cache)
    fork = LM2Cache(model.config)
    fork.record([state.with_bank(state.bank) for state in cache.states], cache.tokens_R, cache.seen)
    found = []
    for state in (cache, fork):
        model(ids[:, -1:], past_key_values=state).logits.square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if ".memory." in name})
        model.zero_grad(set_to_none=True)
    assert [name for name, gradient in found[0].items() if gradient is None] == []
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())
    assert all(found[0][f"model.layers.1.memory.{name}_proj.weight"].abs().max() > 0 for name in "qkv")
