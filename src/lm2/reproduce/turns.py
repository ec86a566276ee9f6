"""The plain model's training: whole rows, and at every fourth step rows cut into segments.

It is asked whole texts and last segments. In whole rows a question has its facts in view, always: what to say where
they are not is never asked, and what such a model says then differs by seed (docs/decisions/026).
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lm2.data.rows import IGNORED
from lm2.training.write_cost import Forward, fresh_rows

EVERY = 4
"""One of the four ways in which the plain model is asked is its last segment."""


def by_turns(segment_length: int, pad: int) -> Forward:
    """A `training_forward`: whole rows, and at every fourth step their segments, each alone."""
    return partial(_forward, segment_length=segment_length, pad=pad)


def _forward(model: nn.Module, batch: dict[str, Any], step: int, *, segment_length: int, pad: int) -> Any:
    if step % EVERY == EVERY - 1:
        ids, labels = (cut(batch[n], segment_length, fill) for n, fill in (("input_ids", pad), ("labels", IGNORED)))
        batch = {**batch, "input_ids": ids, "labels": labels}
    return fresh_rows(model, batch, step)


def cut(row_BL: Tensor, segment_length: int, fill: int) -> Tensor:
    """(B, L) to (B * ceil(L / T), T): each segment a row of its own, the last one filled up."""
    missing = -row_BL.shape[1] % segment_length
    return F.pad(row_BL, (0, missing), value=fill).reshape(-1, segment_length)
