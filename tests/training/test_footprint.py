"""What a step keeps in memory: counted right, and with checkpointing no longer a matter of segments and slots."""

import pytest
import torch

from lm2 import LM2Config, LM2ForCausalLM
from lm2.training.footprint import estimated_row_bytes, peak_bytes, row_bytes
from tests.training.test_trainer import SHAPE

FLOAT = 4


def test_bytes_are_counted_while_they_live():
    weight = torch.ones(1000, requires_grad=True)

    def keeps_two() -> torch.Tensor:
        (weight * 3).sum()  # not needed any more
        return (weight.exp() * weight).sum()

    # exp(w), and one at a time: the product; then d exp(w) or d w beside exp(w)
    assert 2000 * FLOAT <= peak_bytes(keeps_two, [weight]) <= 4100 * FLOAT


def step_bytes(segments: int, checkpointing: bool, recompute_writes: bool = True, **fields) -> int:
    torch.manual_seed(0)
    config = {**SHAPE, "num_hidden_layers": 10, "segment_length": 8, "memory_slots": 16, "memory_heads": 4, **fields}
    model = LM2ForCausalLM(LM2Config(**config)).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    for layer in model.model.layers:
        layer.memory.gradient_checkpointing &= recompute_writes
    ids = torch.randint(SHAPE["vocab_size"], (1, segments * 8))
    return peak_bytes(lambda: model(ids, labels=ids).loss, model.parameters())


def test_checkpointing_lets_eight_times_the_segments_in():
    assert step_bytes(16, checkpointing=True) <= step_bytes(2, checkpointing=False)


def test_the_writes_alignments_are_not_kept():
    shape = {"num_hidden_layers": 1, "memory_slots": 64}
    kept, recomputed = (step_bytes(16, True, recompute_writes=flag, **shape) for flag in (False, True))
    alignments = 15 * 4 * 8 * 64 * FLOAT  # segments that write, heads, tokens, slots
    assert kept - recomputed > 2 * alignments


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_estimate_is_near_what_is_counted(checkpointing):
    with torch.device("meta"):
        model = LM2ForCausalLM(LM2Config(**{**SHAPE, "num_hidden_layers": 4, "segment_length": 64})).train()
    counted = row_bytes(model, 8, checkpointing)
    assert estimated_row_bytes(model, checkpointing)(8) == pytest.approx(counted, rel=0.3)
