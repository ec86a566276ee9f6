"""Quiet text: background alone, which LM2 reads beside the rows of each step. The price on its writes is on this text.

In quiet text nothing is worth a write, which needs no label to be known; in a row, a price is one on facts, too.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from lm2.training import BatchRequest, RunConfig
from lm2.training.write_cost import QUIET


class QuietRows(Protocol):
    """What makes quiet text."""

    def quiet(self, segments: int, rng: random.Random) -> list[int]: ...


@dataclass(frozen=True)
class QuietText:
    """A text of so many segments for each pass."""

    rows: QuietRows
    segments: int

    def __call__(self, request: BatchRequest) -> dict[str, Tensor]:
        """As a part of the pass's batch."""
        rng = random.Random(f"{request.seed}/{request.step}/{request.rows[0]}/quiet")
        return {QUIET: torch.tensor([self.rows.quiet(self.segments, rng)])}


def with_quiet_text(run: RunConfig, rows: QuietRows, segments: int) -> RunConfig:
    """The run, whose `make_batch` is that of `lm2.demo.rows`, with a text of so many segments beside each pass."""
    make_batch: Callable[..., dict[str, Tensor]] = run.make_batch
    return replace(run, make_batch=partial(make_batch, quiet=QuietText(rows, segments)))


def quiet_segments(run: RunConfig) -> int:
    """Segments of quiet text that a run reads beside each pass."""
    quiet = getattr(run.make_batch, "keywords", {}).get("quiet")
    return quiet.segments if quiet else 0
