"""Packed documents: several texts in one row of a call, each read as if it were alone.

A document of more than T tokens takes whole segments, its tail padded. Shorter ones share a segment: attention keeps
within a document, every one of them reads M_0, and none writes, for nothing of it comes after. Segments stand in lanes,
one document after another; where one begins, the bank begins anew.

Shape suffixes as in `lm2.layout`; here the rows R are lanes. G is documents.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from lm2.layout import Layout

PAD = -1


@dataclass(frozen=True)
class Place:
    """Where a document's tokens are: its lane, and the column of the first one."""

    lane: int
    column: int


def place_documents(lengths: Sequence[int], segment_length: int) -> list[Place]:
    """A place for each document: short ones in shared segments, then all in lanes of about the longest one's length.

    >>> place_documents([5, 20, 3], segment_length=8)
    [Place(lane=0, column=24), Place(lane=0, column=0), Place(lane=0, column=29)]
    """
    segments = {g: -(-length // segment_length) for g, length in enumerate(lengths) if length > segment_length}
    parts = [[(g, 0)] for g in segments]
    parts += _shared([g for g in range(len(lengths)) if g not in segments], lengths, segment_length)
    sizes = [segments.get(part[0][0], 1) for part in parts]
    places: dict[int, Place] = {}
    for part, (lane, segment) in zip(parts, _lanes(sizes), strict=True):
        for g, offset in part:
            places[g] = Place(lane, segment * segment_length + offset)
    return [places[g] for g in range(len(lengths))]


def _shared(short: list[int], lengths: Sequence[int], segment_length: int) -> list[list[tuple[int, int]]]:
    """Segments of short documents, each a list of (document, offset): the longest first, where there is room first."""
    found: list[list[tuple[int, int]]] = []
    filled: list[int] = []
    for g in sorted(short, key=lambda g: -lengths[g]):
        at = next((i for i, used in enumerate(filled) if used + lengths[g] <= segment_length), len(filled))
        if at == len(filled):
            found.append([])
            filled.append(0)
        found[at].append((g, filled[at]))
        filled[at] += lengths[g]
    return found


def _lanes(sizes: list[int]) -> list[tuple[int, int]]:
    """(lane, first segment) of parts of so many segments. As many lanes as the longest part allows without waste."""
    lanes = max(1, sum(sizes) // max(sizes))
    filled = [0] * lanes
    found = {}
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        lane = filled.index(min(filled))
        found[i] = (lane, filled[lane])
        filled[lane] += sizes[i]
    return [found[i] for i in range(len(sizes))]


def pad_share(lengths: Sequence[int], segment_length: int) -> float:
    """The share of the columns that hold no token when documents of these lengths are packed."""
    places = place_documents(lengths, segment_length)
    lanes = max(place.lane for place in places) + 1
    last = max(place.column + length for place, length in zip(places, lengths, strict=True))
    return 1 - sum(lengths) / (lanes * -(-last // segment_length) * segment_length)


@dataclass(frozen=True)
class PackedLayout(Layout):
    """The layout of lanes. length_R counts a lane's columns up to its last token.

    document_RC: the document of each column, -1 for none; first_RC: the column at which that document begins;
    size_RC: its tokens. All on the CPU.
    """

    _: KW_ONLY
    document_RC: Tensor
    first_RC: Tensor
    size_RC: Tensor

    @cached_property
    def _segment_RS(self) -> Tensor:
        """The number of each segment within its document; 0 for shared ones and empty ones."""
        start_S = torch.arange(self.segments, device="cpu") * self.width
        return (start_S - self.first_RC[:, :: self.width]) // self.segment_length

    @cached_property
    def _size_RS(self) -> Tensor:
        return self.size_RC[:, :: self.width]

    @cached_property
    def complete_RS(self) -> Tensor:
        """Whether the bank after a segment is read by the next: it is full, and its document goes on."""
        return (self._segment_RS + 1) * self.segment_length < self._size_RS

    @cached_property
    def follows_RS(self) -> Tensor:
        return self._segment_RS > 0

    @cached_property
    def fresh_RS(self) -> Tensor | None:
        """Where a document begins (CPU)."""
        return self._segment_RS == 0

    def cut_RS(self, bptt_segments: int | None) -> Tensor | None:
        """As for a row of its own, for each document."""
        if bptt_segments is None or self.segments <= bptt_segments:
            return None
        left_RS = -(-self._size_RS // self.segment_length) - self._segment_RS
        return (left_RS % bptt_segments == 0) & (left_RS > 0) & (self._segment_RS > 0)

    @cached_property
    def _document_RSW(self) -> Tensor:
        return self.document_RC.to(self.device).view(self.rows * self.segments, self.width)

    @cached_property
    def position_ids(self) -> Tensor:
        """Positions inside the document's part of the segment: (R S, W)."""
        column_C = torch.arange(self.segments * self.width, device="cpu")
        position_RC = (column_C - self.first_RC) % self.segment_length
        return position_RC.to(self.device).view(self.rows * self.segments, self.width)

    @cached_property
    def is_shared(self) -> bool:
        """Whether two documents are in one segment."""
        document = self._document_RSW
        return bool(((document != document[:, :1]) & (document != PAD)).any())

    def separate(self, allowed: Tensor, back: int) -> Tensor:
        """`allowed` (.., W, P + W) without what one document would see of another. Pads may see each other."""
        if not self.is_shared:
            return allowed
        document = self._document_RSW
        return allowed & F.pad(document[:, :, None] == document[:, None, :], (back, 0), value=True)


def plan_documents(
    shape: tuple[int, int], segment_length: int, device: torch.device, position_ids: Tensor, look_back: int
) -> PackedLayout | None:
    """The layout of a call whose `position_ids` do not rise by one where a document begins; None without a border."""
    position_ids = position_ids.expand(shape)
    border_BL = F.pad(position_ids[:, 1:] != position_ids[:, :-1] + 1, (1, 0), value=True)
    if not border_BL[:, 1:].any():
        return None
    border = border_BL.flatten().cpu()
    document = border.cumsum(0) - 1
    index = torch.arange(border.numel(), device="cpu")
    rank = index - torch.where(border, index, 0).cummax(0).values
    size_G = document.bincount()
    places = place_documents(size_G.tolist(), segment_length)
    lane_G, first_G = torch.tensor([(p.lane, p.column) for p in places], device="cpu").unbind(1)
    lane, column = lane_G[document], first_G[document] + rank
    length_R = lane_G.new_zeros(int(lane_G.max()) + 1).scatter_reduce(0, lane, column + 1, "amax")
    segments = -(-int(length_R.max()) // segment_length)
    columns = segments * segment_length if segments > 1 else int(length_R.max())
    document_RC, first_RC, size_RC = (
        torch.full((len(length_R), columns), empty, device="cpu").index_put((lane, column), values)
        for empty, values in ((PAD, document), (0, first_G[document]), (0, size_G[document]))
    )
    first_RC = torch.where(document_RC == PAD, torch.arange(columns, device="cpu"), first_RC)
    return PackedLayout(
        shape,
        segment_length,
        look_back,
        torch.zeros_like(length_R),
        length_R,
        device,
        lane.view(shape).to(device),
        column.view(shape).to(device),
        document_RC=document_RC,
        first_RC=first_RC,
        size_RC=size_RC,
    )
