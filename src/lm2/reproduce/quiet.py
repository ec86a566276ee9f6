"""Quiet text: background alone, which LM2 reads beside the rows of each step. The price on its writes is on this text.

In quiet text nothing is worth a write, which needs no label to be known; in a row, a price is one on facts, too.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lm2.reproduce.rows import JointRows
from lm2.training import BatchRequest, RunConfig
from lm2.training.write_cost import QUIET

MakeBatch = Callable[[BatchRequest], dict[str, Tensor]]


def with_quiet_text(run: RunConfig, rows: JointRows, segments: int) -> tuple[RunConfig, int]:
    """The run with a text of so many segments beside the rows of each pass, and the tokens of these texts in all."""
    make_batch = partial(_with_quiet_text, run.make_batch, rows, segments)
    return replace(run, make_batch=make_batch), run.steps * segments * rows.T


def _with_quiet_text(make_batch: MakeBatch, rows: JointRows, segments: int, request: BatchRequest) -> dict[str, Tensor]:
    rng = random.Random(f"{request.seed}/{request.step}/{request.rows[0]}/quiet")
    return {**make_batch(request), QUIET: torch.tensor([rows.quiet(segments, rng)])}
