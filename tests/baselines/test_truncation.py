"""Where the gradient of a memory that is handed on is cut."""

import pytest
import torch

from tests.baselines.cases import KINDS, T, tiny, tokens, watch_embeddings


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_row_that_ends_before_the_others_hands_its_gradient_on(kind):
    """Its memory after the call is cut where it is cut alone: not at the segments of pads."""
    model, ids = tiny(kind, bptt_segments=2).train(), tokens(2, 5 * T)
    mask = torch.ones_like(ids)
    mask[1, 2 * T :] = 0
    embedded = watch_embeddings(model)
    state = model(ids, mask, use_cache=True).past_key_values
    sum(part[1].square().sum() for part in state.memory).backward()
    gradients = [0.0 if e.grad is None else e.grad[1].abs().max().item() for e in embedded]
    assert [s for s, g in enumerate(gradients) if g > 0] == [0, 1]
