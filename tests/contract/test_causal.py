"""Contract 1: changing token t changes no logit before t, and what cannot be predicted is not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2 import LM2Config, LM2ForCausalLM
from tests.contract.cases import CASES, padded, random_ids, tiny_model


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_changed_token_changes_no_logit_before_it(case, data):
    model = tiny_model(case)
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    side = data.draw(st.sampled_from(["left", "right", "scattered"]))
    rows = [random_ids(1, length, seed=b)[0] for b, length in enumerate(lengths)]
    row = data.draw(st.integers(0, len(rows) - 1))
    t = data.draw(st.integers(0, lengths[row] - 1))
    ids, mask = padded(rows, side)
    changed = ids.clone()
    column = mask[row].nonzero()[t]
    changed[row, column] = 1
    with torch.no_grad():
        before, after = (model(x, attention_mask=mask).logits for x in (ids, changed))
    assert not torch.equal(before[row, column], after[row, column])
    before[row, column:], after[row, column:] = 0, 0
    assert torch.equal(before, after)


def repeated_symbols(rows: int, segments: int, length: int, symbols: int) -> torch.Tensor:
    """A beginning token, then in each stretch of `length` tokens one random symbol, repeated."""
    drawn = torch.randint(1, symbols + 1, (rows, segments)).repeat_interleave(length, dim=1)
    return torch.cat([torch.zeros(rows, 1, dtype=torch.long), drawn], dim=1)[:, :-1]


def train_on_repeats(steps: int) -> torch.Tensor:
    """Loss at each position of fresh data, (L - 1,), after training on `repeated_symbols`."""
    symbols, length = 16, 8
    config = LM2Config(
        vocab_size=symbols + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        segment_length=length,
        memory_slots=8,
    )
    model = LM2ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        ids = repeated_symbols(32, 3, length, symbols)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ids = repeated_symbols(1024, 3, length, symbols)
    with torch.no_grad():
        logits = model.eval()(ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(0)


def test_training_cannot_exploit_the_future():
    """One random symbol of 16, repeated: its first place cannot be predicted, in any segment; the others can."""
    loss = train_on_repeats(steps=120)
    first = torch.tensor([0, 8, 16])  # Predicting the first token of each stretch.
    others = torch.ones(len(loss), dtype=torch.bool).index_fill(0, first, False)
    assert loss[others].mean() < 0.3  # It did learn what can be learned.
    assert loss[first].min() > math.log(16) - 0.1
