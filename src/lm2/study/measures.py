"""Measures of training: ways to train on the states that long inputs produce.

Each is a `training_forward` of a run: model, batch and step in, an output with the loss out. They change where a row's
bank comes from and never look at labels, so that the tokens with a loss are the same for all variants.

Shape suffixes as in `lm2.memory`: R rows, S segments, T tokens, N slots, D width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from lm2.cache import LM2Cache
from lm2.demo.recipe import Recipe
from lm2.memory import LM2Memory
from lm2.modeling import LM2ForCausalLM
from lm2.study.config import RIVALS
from lm2.study.rules import memories
from lm2.study.tasks import load_task
from lm2.training.write_cost import Forward, fresh_rows, with_write_cost

Batch = dict[str, Any]
Walk = Callable[[LM2ForCausalLM, LM2Cache, np.random.Generator], LM2Cache]
"""Takes a state at the border of a segment to what it is after some segments of noise."""

WRITE_COST = Recipe.write_cost
LONGEST_WALK = 64
NOISE_ROWS, NOISE_SEGMENTS = 16, 8
"""Rows and segments of noise whose inputs a roll-out draws from."""


def checked(model: Any, batch: Batch, step: int, forward: Forward = fresh_rows) -> Any:
    """One pass that stops the run when it diverges.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    out = forward(model, batch, step)
    if not torch.isfinite(out.loss):
        raise FloatingPointError(f"the loss is {out.loss.item()} at step {step}")
    return out


def carried(model: LM2ForCausalLM, batch: Batch, step: int) -> CausalLMOutputWithPast:
    """Every second row starts from the bank that its neighbour has before its last segment."""
    ids = batch["input_ids"]
    T = model.config.segment_length
    if ids.shape[1] <= T or len(ids) < 2:
        return model(**batch, use_cache=False)
    with torch.no_grad():
        cache = _read(model, ids[:, : (ids.shape[1] - 1) // T * T])
    ends = _banks(cache)
    rows = torch.arange(len(ids))
    cache.reset(rows)
    chosen_R11 = (rows % 2 == 1).to(ids.device)[:, None, None]
    banks = [
        start if start is None or end is None else torch.where(chosen_R11, end.roll(1, 0), start)
        for start, end in zip(_banks(cache), ends, strict=True)
    ]
    return model(**batch, past_key_values=_with_banks(cache, banks))


def walked(model: LM2ForCausalLM, batch: Batch, step: int, task: str, walk: Walk) -> CausalLMOutputWithPast:
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


def burn_in(model: LM2ForCausalLM, cache: LM2Cache, rng: np.random.Generator, task: str) -> LM2Cache:
    """The whole model reads noise without gradient; M_after = M_before + (walked - M_before) detached."""
    noise = load_task(task).noise(cache.rows, _walk_length(rng), rng)
    with torch.no_grad():
        after = _read(model, noise.to(model.device), cache.detach())
    return _with_banks(
        cache,
        [
            old if old is None or new is None else old + (new - old).detach()
            for old, new in zip(_banks(cache), _banks(after), strict=True)
        ],
    )


def roll_out(model: LM2ForCausalLM, cache: LM2Cache, rng: np.random.Generator, task: str) -> LM2Cache:
    """The banks alone walk through cached inputs of noise segments, in random order, with gradient."""
    inputs = _noise_inputs(model, load_task(task).noise(NOISE_ROWS, NOISE_SEGMENTS, rng).to(model.device))
    segments = _walk_length(rng)
    chosen_RS = torch.from_numpy(rng.integers(NOISE_ROWS * NOISE_SEGMENTS, size=(cache.rows, segments)))
    complete_RS = torch.ones(cache.rows, segments, dtype=torch.bool)
    banks = _banks(cache)
    for index, memory in memories(model):
        bank_RND = banks[index]
        assert bank_RND is not None
        parts = memory.project(inputs[index][chosen_RS])
        banks[index] = memory.scan(*parts, bank_RND, complete_RS, None, None, True)[1]
    return _with_banks(cache, banks)


def forward_of(variant: str, task: str) -> Forward:
    """The training forward of a variant; rivals have no writes to pay for."""
    if variant in RIVALS:
        return checked
    forwards: dict[str, Forward] = {
        "carried": carried,
        "burn-in": partial(walked, task=task, walk=partial(burn_in, task=task)),
        "roll-outs": partial(walked, task=task, walk=partial(roll_out, task=task)),
    }
    parts = variant.split("+")
    forward = next((forwards[part] for part in parts if part in forwards), fresh_rows)
    if "free-writes" not in parts:
        forward = partial(with_write_cost, cost=WRITE_COST, forward=forward)
    return partial(checked, forward=forward)


def _walk_length(rng: np.random.Generator) -> int:
    """Log-uniform between 1 and LONGEST_WALK."""
    return int(np.exp(rng.uniform(0, np.log(LONGEST_WALK + 1))))


def _read(model: LM2ForCausalLM, ids: Tensor, cache: LM2Cache | None = None) -> LM2Cache:
    """The state after whole segments."""
    cache = LM2Cache(model.config) if cache is None else cache
    model.model(ids, past_key_values=cache)
    return cache


def _banks(cache: LM2Cache) -> list[Tensor | None]:
    return [state.bank for state in cache.states]


def _with_banks(cache: LM2Cache, banks: list[Tensor | None]) -> LM2Cache:
    changed = cache.copy()
    changed.states = [state._replace(bank=bank) for state, bank in zip(cache.states, banks, strict=True)]
    return changed


@torch.no_grad()
def _noise_inputs(model: LM2ForCausalLM, ids: Tensor) -> dict[int, Tensor]:
    """What each memory is given for the segments of `ids`: block index -> (rows segments, T, D)."""
    found: dict[int, Tensor] = {}

    def keep(module: LM2Memory, arguments: tuple[Any, ...], *, index: int) -> None:
        found[index] = arguments[0].flatten(0, 1)

    hooks = [memory.register_forward_pre_hook(partial(keep, index=i)) for i, memory in memories(model)]
    try:
        model.model(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found
