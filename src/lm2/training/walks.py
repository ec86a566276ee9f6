"""Training on the states that long texts leave, without reading long texts.

A bank that has only met short rows breaks in long ones, because its states leave what was seen in training. A walk
moves the banks of a row, read half, through segments of noise before the rest is read.

Shape suffixes as in `lm2.memory`: R rows, S segments, T tokens, N slots, D width.

Source: "Understanding and Improving Length Generalization in Recurrent Models" (Buitrago Ruiz and Gu, 2025), state
passing; the walk of the banks alone is ours.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from lm2.cache import LM2Cache, banks_of, with_banks
from lm2.memory import LM2Memory
from lm2.modeling import LM2ForCausalLM

Batch = dict[str, Any]
Noise = Callable[[int, int, np.random.Generator], Tensor]
"""Rows and segments in, token ids (rows, segments T) without anything to remember out."""
Walk = Callable[[LM2ForCausalLM, LM2Cache, np.random.Generator], LM2Cache]
"""Takes a state at the border of a segment to what it is after some segments of noise."""

LONGEST_WALK = 64
NOISE_ROWS, NOISE_SEGMENTS = 16, 8
"""Rows and segments of noise whose inputs a roll-out draws from."""


def walked(model: LM2ForCausalLM, batch: Batch, step: int, walk: Walk) -> CausalLMOutputWithPast:
    """Rows are read in two parts, and between them the banks walk through noise."""
    ids, labels, count = batch["input_ids"], batch["labels"], batch["num_items_in_batch"]
    T = model.config.segment_length
    rng = np.random.default_rng([step, len(ids), ids.shape[1]])
    borders = (ids.shape[1] - 1) // T
    if borders < 1 or rng.random() < 0.5:
        return model(**batch, use_cache=False)
    at = T * int(rng.integers(1, borders + 1))
    cache = LM2Cache(model.config)
    first = model(ids[:, :at], labels=labels[:, :at], past_key_values=cache, num_items_in_batch=count)
    cache = walk(model, cache, rng)
    second = model(ids[:, at:], labels=labels[:, at:], past_key_values=cache, num_items_in_batch=count)
    return CausalLMOutputWithPast(loss=first.loss + second.loss)


def roll_out(model: LM2ForCausalLM, cache: LM2Cache, rng: np.random.Generator, noise: Noise) -> LM2Cache:
    """The banks alone walk through cached inputs of noise segments, in random order, with gradient."""
    inputs = _noise_inputs(model, noise(NOISE_ROWS, NOISE_SEGMENTS, rng).to(model.device))
    segments = walk_length(rng)
    chosen_RS = torch.from_numpy(rng.integers(NOISE_ROWS * NOISE_SEGMENTS, size=(cache.rows, segments)))
    complete_RS = torch.ones(cache.rows, segments, dtype=torch.bool)
    banks = banks_of(cache)
    for index, memory in memories(model):
        bank_RND = banks[index]
        assert bank_RND is not None
        parts = memory.project(inputs[index][chosen_RS])
        banks[index] = memory.scan(*parts, bank_RND, complete_RS, None, None, True)[1]
    return with_banks(cache, banks)


def memories(model: LM2ForCausalLM) -> list[tuple[int, LM2Memory]]:
    """The memories of a model, each with the index of its block."""
    blocks = enumerate(model.model.layers)
    return [(i, block.memory) for i, block in blocks if isinstance(block.memory, LM2Memory)]


def walk_length(rng: np.random.Generator) -> int:
    """Log-uniform between 1 and LONGEST_WALK."""
    return int(np.exp(rng.uniform(0, np.log(LONGEST_WALK + 1))))


@torch.no_grad()
def _noise_inputs(model: LM2ForCausalLM, ids: Tensor) -> dict[int, Tensor]:
    """What each memory is given for the segments of `ids`: block index -> (rows segments, T, D)."""
    found: dict[int, Tensor] = {}

    def keep(module: LM2Memory, arguments: tuple[Any, ...], *, index: int) -> None:
        found[index] = arguments[0].flatten(0, 1)

    with ExitStack() as hooks:
        for i, memory in memories(model):
            hooks.enter_context(memory.register_forward_pre_hook(partial(keep, index=i)))
        model.model(ids, use_cache=False)
    return found
