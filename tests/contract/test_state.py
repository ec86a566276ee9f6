"""Contract 3: state is a value."""

import pytest
import torch

from lm2 import LM2Cache
from tests.contract.cases import FEW, assert_same, random_ids, tiny_model


@pytest.fixture(params=[0, 4], ids=["", "look-back"])
def model(request):
    return tiny_model("fewer slots than tokens", look_back=request.param)


def read(model, ids, cache=None):
    cache = LM2Cache(model.config) if cache is None else cache
    with torch.no_grad():
        return model(ids, past_key_values=cache).logits, cache


def tensors(cache):
    return [tensor for state in cache.states for tensor in state if tensor is not None]


@pytest.mark.parametrize("case", FEW)
def test_forward_changes_nothing_on_the_module(case):
    model = tiny_model(case)
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    read(model, random_ids(2, 20))
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}


def test_the_cache_passed_in_is_updated_and_returned(model):
    cache = LM2Cache(model.config)
    out = model(random_ids(1, 9), past_key_values=cache)
    assert out.past_key_values is cache
    assert cache.get_seq_length() == cache.seen == 9
    assert cache.count_R.tolist() == [3]
    assert cache.tokens_R.tolist() == [9]


def test_a_cache_is_returned_as_the_configuration_says_or_when_asked_for(model):
    """As other models do: a loop that passes on what a call returned would forget in silence without it."""
    ids = random_ids(1, 9)
    places = torch.arange(9)[None]
    assert isinstance(model(ids).past_key_values, LM2Cache)
    assert model(ids, use_cache=False).past_key_values is None
    assert model(ids, position_ids=places).past_key_values is None  # packed documents are read without
    model.train()
    assert model(ids).past_key_values is None
    assert isinstance(model(ids, use_cache=True).past_key_values, LM2Cache)
    model.eval().config.use_cache = False
    assert model(ids).past_key_values is None
    assert isinstance(model(ids, use_cache=True).past_key_values, LM2Cache)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_tensors_are_replaced_never_changed(model, length):
    _, cache = read(model, random_ids(2, 10))
    held = tensors(cache)
    copies = [tensor.clone() for tensor in held]
    read(model, random_ids(2, length, seed=1), cache)
    assert all(torch.equal(one, two) for one, two in zip(held, copies, strict=True))


def test_copy_forks(model):
    _, cache = read(model, random_ids(1, 10))
    fork = cache.copy()
    one, _ = read(model, random_ids(1, 8, seed=1), fork)
    two, _ = read(model, random_ids(1, 8, seed=1), cache)
    assert torch.equal(one, two)
    assert fork is not cache
    assert cache.seen == 18


@pytest.mark.parametrize("length", [10, 12])
@pytest.mark.parametrize("order", [[2, 0], [1], [0, 0, 2, 1]])
def test_select_moves_rows_also_when_no_key_is_cached(model, length, order):
    ids, more = random_ids(3, length), random_ids(3, 8, seed=1)
    _, cache = read(model, ids)
    expected, _ = read(model, more, cache.copy())
    assert_same(read(model, more[order], cache.select(order))[0], expected[order])
    for change in (cache.copy().reorder_cache, cache.copy().batch_select_indices):
        change(torch.tensor(order))
        assert_same(read(model, more[order], change.__self__)[0], expected[order])


@pytest.mark.parametrize("length", [10, 12])
def test_repeat_puts_copies_next_to_each_other(model, length):
    ids, more = random_ids(2, length), random_ids(2, 8, seed=1)
    _, cache = read(model, ids)
    expected, _ = read(model, more, cache.copy())
    other = cache.copy()
    other.batch_repeat_interleave(2)
    for repeated in (cache.repeat(2), other):
        assert repeated.rows == 4
        assert_same(read(model, more.repeat_interleave(2, 0), repeated)[0], expected.repeat_interleave(2, 0))


@pytest.mark.parametrize("length", [10, 12])
def test_reset_rows_start_anew_and_the_others_do_not_notice(model, length):
    ids, more = random_ids(3, length), random_ids(3, 9, seed=1)
    _, cache = read(model, ids)
    expected, _ = read(model, more, cache.copy())
    fresh, _ = read(model, more)
    cache.reset([1])
    after, _ = read(model, more, cache)
    assert_same(after[[0, 2]], expected[[0, 2]])
    assert_same(after[1], fresh[1])


def test_reset_of_all_forgets_all(model):
    ids = random_ids(2, 10)
    fresh, cache = read(model, ids)
    cache.reset()
    assert cache.seen == cache.rows == 0
    assert torch.equal(read(model, ids, cache)[0], fresh)


def test_detach_and_to_keep_the_values(model):
    cache = model(random_ids(1, 20), use_cache=True).past_key_values
    assert any(tensor.requires_grad for tensor in tensors(cache))
    detached = cache.detach()
    assert not any(tensor.requires_grad for tensor in tensors(detached))
    for other in (detached, cache.to("cpu")):
        assert all(torch.equal(one, two) for one, two in zip(tensors(cache), tensors(other), strict=True))
        assert other.seen == 20


def test_nbytes_does_not_grow(model):
    _, cache = read(model, random_ids(1, 7))
    size = cache.nbytes
    assert size == sum(tensor.element_size() * tensor.numel() for tensor in tensors(cache)) > 0
    read(model, random_ids(1, 200), cache)
    assert cache.nbytes == size


def test_crop_of_nothing_does_nothing_and_other_crops_raise(model):
    _, cache = read(model, random_ids(1, 10))
    held = tensors(cache)
    cache.crop(0)
    assert all(one is two for one, two in zip(held, tensors(cache), strict=True))
    for tokens in (3, -3):
        with pytest.raises(ValueError, match=rf"cannot be cropped by {tokens} tokens.*keep a copy\(\)"):
            cache.crop(tokens)
