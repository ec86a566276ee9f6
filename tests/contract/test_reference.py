"""Contract 11: the fast path is the same as the equations with loops, values and gradients."""

import pytest
import torch

from lm2.reference import reference_logits
from tests.contract.cases import CASES, assert_same, random_ids, tiny_model


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_references(case):
    model = tiny_model(case)
    ids = random_ids(1, 2 * model.config.segment_length + 3)
    direction = torch.randn(ids.shape[1], model.config.vocab_size)
    fast = model(ids).logits[0]
    slow = reference_logits(model, ids[0])
    assert_same(fast, slow)
    names, parameters = zip(*model.named_parameters(), strict=True)
    fast_gradients = torch.autograd.grad((fast * direction).sum(), parameters)
    slow_gradients = torch.autograd.grad((slow * direction).sum(), parameters, allow_unused=True)
    largest = max(gradient.abs().max() for gradient in fast_gradients)  # what is zero is rounded as these are
    for name, one, other in zip(names, fast_gradients, slow_gradients, strict=True):
        other = torch.zeros_like(one) if other is None else other
        scale = other.abs().max() + 1e-3 * largest
        assert (one - other).abs().max() <= 2e-3 * scale, name
