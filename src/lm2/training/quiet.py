"""Quiet text: background alone, read beside the rows of each pass. The price on writing is on this text.

In quiet text nothing is worth a write, which needs no label to be known; in a row, a price is one on facts, too.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lm2.training.config import BatchRequest, RunConfig
from lm2.training.write_cost import QUIET

SEGMENTS = 8
"""Of the text beside a pass (docs/decisions/010-price-on-quiet-text.md)."""


class QuietRows(Protocol):
    """What makes quiet text."""

    def quiet(self, segments: int, rng: random.Random) -> list[int]: ...


@dataclass(frozen=True)
class WithQuietText:
    """A `make_batch` with a text of so many segments beside what another one makes."""

    make_batch: Callable[[BatchRequest], dict[str, Tensor]]
    rows: QuietRows
    segments: int

    def __call__(self, request: BatchRequest) -> dict[str, Tensor]:
        """The other's batch, and in it the text."""
        rng = random.Random(f"{request.seed}/{request.step}/{request.rows[0]}/quiet")
        return {**self.make_batch(request), QUIET: torch.tensor([self.rows.quiet(self.segments, rng)])}


def with_quiet_text(run: RunConfig, rows: QuietRows, segments: int = SEGMENTS) -> RunConfig:
    """The run, with a text of so many segments beside the rows of each pass."""
    return replace(run, make_batch=WithQuietText(run.make_batch, rows, segments))


def quiet_segments(run: RunConfig) -> int:
    """Segments of quiet text that a run reads beside the rows of each pass."""
    return run.make_batch.segments if isinstance(run.make_batch, WithQuietText) else 0


def row_maker(run: RunConfig) -> Callable[..., Any]:
    """What makes a run's rows, without the quiet text."""
    return run.make_batch.make_batch if isinstance(run.make_batch, WithQuietText) else run.make_batch
