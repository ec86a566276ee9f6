"""Batches of a token store for `RunConfig.make_batch`: a function of (seed, step, rows, segments) and nothing else.

Rows are counted over the run. The count picks the source (`order.drawn`), and the count within the source picks the row
by a permutation that differs by seed, source, number of segments and pass. So a run that always has S segments sees
every row once before any a second time; each number of segments has an order of its own over all the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lm2.data.order import drawn, key_of, permuted, shares
from lm2.data.packing import IGNORED, Row, Windows
from lm2.data.store import Store

if TYPE_CHECKING:
    from lm2.training import BatchRequest, Stage


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Makes the batches of a run: input_ids, labels and position_ids, each (rows, segments T).

    The folder and the stages are no fields: a run may go on when the store has moved, and its stages are its own.

    Args:
        folder: of the token store.
        stages: of the run; they say how many rows come before a step.

    Raises:
        ValueError: not a whole store, an unknown source, or a weight that cannot be.
    """

    folder: InitVar[str | Path]
    stages: InitVar[Sequence["Stage"]]
    segment_length: int
    """T of the model"""
    weights: Mapping[str, float] | None = None
    """Share of each source in the rows; None takes those of the store, or else the sources' shares of its tokens"""
    data: str = field(init=False)
    """Fingerprint of the store: another store is another run"""
    order: "Order" = field(init=False, repr=False, compare=False)

    def __post_init__(self, folder: str | Path, stages: Sequence["Stage"]):
        if self.segment_length < 2:
            raise ValueError(f"segment_length must be at least 2, got {self.segment_length}: a token predicts the next")
        store = Store(folder)
        weights = _weights(store, self.weights)
        order = Order([Windows(store, name, self.segment_length) for name in weights], list(weights.values()), stages)
        for name, value in {"weights": weights, "data": store.fingerprint, "order": order}.items():
            object.__setattr__(self, name, value)

    def __call__(self, request: "BatchRequest") -> dict[str, Tensor]:
        rows = [windows.row(index, request.segments) for windows, index in self.order.places(request)]
        columns = zip(Row._fields, zip(*rows, strict=True), strict=True)
        return {name: torch.from_numpy(np.stack(part)) for name, part in columns}

    def pad_share(self, request: "BatchRequest") -> float:
        """The share of a batch's columns that are pads."""
        tokens = sum(windows.n_tokens(index, request.segments) for windows, index in self.order.places(request))
        return 1 - tokens / (len(request.rows) * request.segments * self.segment_length)

    def passes(self, step: int, segments: int) -> dict[str, float]:
        """How often each source's rows of so many segments have been gone through before a step."""
        return self.order.passes(step, segments)


def held_out_rows(folder: str | Path, segment_length: int, segments: int, rows: int) -> dict[str, Tensor]:
    """Rows to watch a memory on: input_ids and labels (rows, segments T), each a piece of one document without pads.

    They are spread over the store, the same in each call.

    Raises:
        ValueError: the store has no document that fills a row.
    """
    store, chosen = Store(folder), []
    sources = [Windows(store, name, segment_length) for name in store.sources]
    places = [(windows, index) for windows in sources for index in range(windows.rows(segments))]
    for i in range(len(places)):
        windows, index = places[permuted(i, len(places), key_of("held out"))]
        row = windows.row(index, segments)
        if (row.labels[1:] != IGNORED).all():  # a document's first token, and a pad, have no label
            chosen.append(row)
        if len(chosen) == rows:
            break
    if not chosen:
        raise ValueError(
            f"{folder} has 0 documents that fill a row of {segments} segments of {segment_length} tokens: use shorter "
            "rows or longer documents"
        )
    return {
        "input_ids": torch.from_numpy(np.stack([row.input_ids for row in chosen])),
        "labels": torch.from_numpy(np.stack([row.labels for row in chosen])),
    }


class Order:
    """Which rows of which source a step has.

    Args:
        windows: of each source.
        weights: of each source, in the same order.
        stages: of the run.
    """

    def __init__(self, windows: list[Windows], weights: list[float], stages: Sequence["Stage"]):
        self.windows = windows
        self.counts = shares([one.source for one in windows], weights)
        self.stages = tuple((stage.steps, stage.rows) for stage in stages)

    def places(self, request: "BatchRequest") -> list[tuple[Windows, int]]:
        """The source and the index in its stored order of each row."""
        before, S, places = self.rows_before(request.step), request.segments, []
        for row in request.rows:
            source, number = drawn(before + row, self.counts, key_of("sources", request.seed))
            windows = self.windows[source]
            n = windows.rows(S)
            key = key_of("rows", request.seed, windows.source, S, number // n)
            places.append((windows, permuted(number % n, n, key)))
        return places

    def passes(self, step: int, segments: int) -> dict[str, float]:
        rows = self.rows_before(step) / sum(self.counts)
        pairs = zip(self.windows, self.counts, strict=True)
        return {windows.source: rows * count / windows.rows(segments) for windows, count in pairs}

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one; steps beyond the last stage are like its own."""
        count = 0
        for number, (steps, rows) in enumerate(self.stages):
            here = step if number == len(self.stages) - 1 else min(step, steps)
            count, step = count + here * rows, step - here
        return count


def _weights(store: Store, given: Mapping[str, float] | None) -> dict[str, float]:
    """The weight of each source that is to be used."""
    if given is not None:
        unknown = sorted(set(given) - set(store.sources))
        if unknown or not given:
            raise ValueError(
                f"weights names {', '.join(unknown) or 'no source'}, and {store.folder} has "
                f"{', '.join(store.sources)}: name at least one of these, and no other"
            )
        return {name: float(given[name]) for name in store.sources if name in given}
    stored = {source["name"]: source["weight"] for source in store.facts["sources"]}
    if None in stored.values():
        return {name: float(sum(shard.tokens for shard in shards)) for name, shards in store.shards.items()}
    return stored
