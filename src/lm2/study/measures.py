"""Measures of training: ways to train on the states that long inputs produce.

Each is a `training_forward` of a run: model, batch and step in, an output with the loss out. They change where a row's
bank comes from and never look at labels, so that the tokens with a loss are the same for all variants.

Shape suffixes as in `lm2.memory`: R rows, S segments, T tokens, N slots, D width.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from lm2.cache import LM2Cache, banks_of, with_banks
from lm2.demo.recipe import Recipe
from lm2.modeling import LM2ForCausalLM
from lm2.study.config import RIVALS
from lm2.study.tasks import load_task
from lm2.training.walks import Batch, Noise, roll_out, walk_length, walked
from lm2.training.write_cost import Forward, fresh_rows, with_write_cost

WRITE_COST = Recipe.write_cost


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
        cache = read_segments(model, ids[:, : (ids.shape[1] - 1) // T * T])
    ends = banks_of(cache)
    rows = torch.arange(len(ids))
    cache.reset(rows)
    chosen_R11 = (rows % 2 == 1).to(ids.device)[:, None, None]
    banks = [
        start if start is None or end is None else torch.where(chosen_R11, end.roll(1, 0), start)
        for start, end in zip(banks_of(cache), ends, strict=True)
    ]
    return model(**batch, past_key_values=with_banks(cache, banks))


def burn_in(model: LM2ForCausalLM, cache: LM2Cache, rng: np.random.Generator, noise: Noise) -> LM2Cache:
    """The whole model reads noise without gradient; M_after = M_before + (walked - M_before) detached."""
    ids = noise(cache.rows, walk_length(rng), rng)
    with torch.no_grad():
        after = read_segments(model, ids.to(model.device), cache.detach())
    return with_banks(
        cache,
        [
            old if old is None or new is None else old + (new - old).detach()
            for old, new in zip(banks_of(cache), banks_of(after), strict=True)
        ],
    )


def read_segments(model: LM2ForCausalLM, ids: Tensor, cache: LM2Cache | None = None) -> LM2Cache:
    """The state after whole segments."""
    cache = LM2Cache(model.config) if cache is None else cache
    model.model(ids, past_key_values=cache)
    return cache


def forward_of(variant: str, task: str) -> Forward:
    """The training forward of a variant; rivals have no writes to pay for."""
    if variant in RIVALS:
        return checked
    noise = load_task(task).noise
    forwards: dict[str, Forward] = {
        "carried": carried,
        "burn-in": partial(walked, walk=partial(burn_in, noise=noise)),
        "roll-outs": partial(walked, walk=partial(roll_out, noise=noise)),
    }
    parts = variant.split("+")
    forward = next((forwards[part] for part in parts if part in forwards), fresh_rows)
    if "free-writes" not in parts:
        forward = partial(with_write_cost, cost=WRITE_COST, forward=forward)
    return partial(checked, forward=forward)
