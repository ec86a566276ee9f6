"""Documents into windows of T tokens, windows into rows of S segments, rows into a batch.

A window is what one segment of the model sees. A document longer than T takes whole windows of its own, its tail
padded; shorter ones share a window. Either way a window is a contiguous range of at most T tokens of the store, so the
whole packing is the list of where windows start. A row is S windows in a row; a document that goes on beyond the row's
end starts afresh in the next row.

What the model gets: `position_ids` restart at each document, which is how it knows borders; a document's first token is
never a label. Pads close a window and go on with the positions of its last document: they come after all its tokens, so
nothing that has a label sees them, and the bank that they reach is read by nobody. A window of pads alone is a document
of its own.

Shape suffixes: C = S T columns of a row.
"""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from lm2.data.store import OFFSET, Shard, Store
from lm2.files import replacing

IGNORED = -100


def window_starts(offsets: np.ndarray, T: int) -> np.ndarray:
    """Where each window starts, and the end of the last one.

    Args:
        offsets: where each document starts, and the end of the last.
    """
    borders: list[int] = offsets.tolist()
    starts, document = [], 0
    while document < len(borders) - 1:
        start, end = borders[document], borders[document + 1]
        if end - start > T:
            starts.extend(range(start, end, T))
            document += 1
        else:
            starts.append(start)
            document = bisect_right(borders, start + T, document + 1) - 1
    return np.array([*starts, borders[-1]], OFFSET)


def stored_starts(store: Store, shard: Shard, T: int) -> np.ndarray:
    """`window_starts` of a shard, kept beside the store; made in memory where the store cannot be written to."""
    path = store.folder / f"windows-{T}" / f"{shard.name}.starts"
    if not path.is_file():
        starts = window_starts(store.offsets(shard), T)
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as beside:
                beside.write_bytes(starts.tobytes())
        except OSError:  # read-only or full: the list is small beside the data, and only costs time
            return starts
    return np.memmap(path, OFFSET, "r")


class Windows:
    """One source of a store, packed for segments of T tokens.

    Rows of S windows do not cross shards, so a shard's last row may end in windows of pads.
    """

    def __init__(self, store: Store, source: str, T: int):
        self.store, self.source, self.T = store, source, T
        self.shards = store.shards[source]
        self.starts = [stored_starts(store, shard, T) for shard in self.shards]
        self.counts = np.array([len(starts) - 1 for starts in self.starts])
        self._tokens = [store.tokens(shard) for shard in self.shards]
        self._offsets = [store.offsets(shard) for shard in self.shards]

    def __reduce__(self):
        return Windows, (self.store, self.source, self.T)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def pad_share(self) -> float:
        """The share of columns that hold no token."""
        return 1 - sum(shard.tokens for shard in self.shards) / (len(self) * self.T)

    def rows(self, S: int) -> int:
        """Rows of S segments in one pass over the source."""
        return int((-(-self.counts // S)).sum())

    def row(self, index: int, S: int) -> "Row":
        """Row `index` of the source in its stored order: ids, labels and positions of S T columns each."""
        shard, first = self._place(index, S)
        starts = self.starts[shard][first : first + S + 1].astype(np.int64)
        offsets = self._offsets[shard]
        inside = offsets[np.searchsorted(offsets, starts[0], "right") : np.searchsorted(offsets, starts[-1])]
        tokens = self._tokens[shard][starts[0] : starts[-1]]
        return lay_out(tokens, starts - starts[0], inside - starts[0], S * self.T, self.T, self.store.pad_id)

    def n_tokens(self, index: int, S: int) -> int:
        """Tokens in row `index`; its other columns are pads."""
        shard, first = self._place(index, S)
        starts = self.starts[shard][first : first + S + 1]
        return int(starts[-1] - starts[0])

    def _place(self, index: int, S: int) -> tuple[int, int]:
        """The shard of a row and the row's first window in it."""
        ends = np.cumsum(-(-self.counts // S))
        shard = int(np.searchsorted(ends, index, "right"))
        return shard, int(index - (ends[shard - 1] if shard else 0)) * S


class Row(NamedTuple):
    """(C,) each."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray


def lay_out(tokens: np.ndarray, starts: np.ndarray, borders: np.ndarray, C: int, T: int, pad_id: int) -> Row:
    """Put the tokens of a row's windows into its columns.

    Args:
        tokens: of all windows together.
        starts: (windows + 1,): where each window starts in `tokens`, and the end.
        borders: where documents start in `tokens`, other than at 0.
    """
    lengths = np.diff(starts)
    shift = np.repeat(np.arange(len(lengths)) * T - starts[:-1], lengths)  # from place in `tokens` to column
    column = np.arange(len(tokens)) + shift
    first = np.concatenate([column[:1], column[borders]])
    ids_C, labels_C = np.full(C, pad_id, np.int64), np.full(C, IGNORED, np.int64)
    ids_C[column] = labels_C[column] = tokens
    labels_C[first] = IGNORED
    base_C = np.zeros(C, np.int64)
    base_C[first] = first
    if (end := len(lengths) * T) < C:
        base_C[end] = end
    return Row(ids_C, labels_C, np.arange(C) - np.maximum.accumulate(base_C))
