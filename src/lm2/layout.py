"""Where each token of a call sits: ragged rows and padding, laid out by one rule. Packed documents: `lm2.documents`.

Every row's real tokens are laid left-aligned after the tokens of its open segment that are already cached, so that
column j is position j counted from the start of the open segment; then the columns fold into segments of T. So
padding on any side, and any cut of a text into calls, is the same input to the blocks.

Shape suffixes: B, L rows and columns of the call; R rows of the layout (B, or lanes of packed documents); S
segments; W columns of a segment; C = S W; T segment length; D, F features; P = `look_back` columns before a segment.

Two forms. *Fold*: (R, C) becomes (R S, W), and self-attention sees S R rows at once. *Step*, when no row passes its
segment's end and some tokens are cached: only the new tokens are queries, against the buffer of T keys.

Look-back: before the keys of a segment stand the last P of the segment before it (`tails`), at positions -P to -1, and
the mask hides them where a row has no segment before.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Layout:
    """One call's layout. `read_R` and `length_R` live on the CPU: which kernels run depends on them.

    read_R: tokens that the row has read before; length_R: real tokens of this call; row_BL, rank_BL: each token's row
    of the layout and its rank among that row's real tokens, None when the call's rows are full; real_BL: False for a
    pad.
    """

    shape: tuple[int, int]
    segment_length: int
    look_back: int
    read_R: Tensor
    length_R: Tensor
    device: torch.device
    row_BL: Tensor | None = None
    rank_BL: Tensor | None = None
    real_BL: Tensor | None = None

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "Layout":
        """The same for tensors on another device."""
        if torch.device(device) == self.device:
            return self  # with what it has worked out
        moved = {name: getattr(self, name) for name in ("row_BL", "rank_BL", "real_BL")}
        moved = {name: value if value is None else value.to(device) for name, value in moved.items()}
        return replace(self, device=torch.device(device), **moved)

    @property
    def rows(self) -> int:
        return len(self.read_R)

    @cached_property
    def start_R(self) -> Tensor:
        """Tokens of the open segment that are cached."""
        return self.read_R % self.segment_length

    @cached_property
    def end_R(self) -> Tensor:
        """Tokens since the start of the open segment, this call included."""
        return self.start_R + self.length_R

    @cached_property
    def is_step(self) -> bool:
        return bool(self.start_R.any()) and int(self.end_R.max()) <= self.segment_length

    @cached_property
    def segments(self) -> int:
        return max(1, -(-int(self.end_R.max()) // self.segment_length))

    @cached_property
    def width(self) -> int:
        """Columns per segment: T, or for a lone segment only what is there (so it is the base model's own input)."""
        return self.segment_length if self.segments > 1 else max(1, int(self.length_R.max()))

    @cached_property
    def complete_RS(self) -> Tensor:
        """Whether a row's segment has all its T tokens after this call (CPU)."""
        return self.end_R[:, None] >= (torch.arange(self.segments, device="cpu") + 1) * self.segment_length

    @cached_property
    def follows_RS(self) -> Tensor:
        """Whether a row's segment has another before it (CPU)."""
        return (self.read_R // self.segment_length)[:, None] + torch.arange(self.segments, device="cpu") > 0

    @property
    def fresh_RS(self) -> Tensor | None:
        """Before which segments the bank begins anew (CPU); None for none but a row's first."""
        return None

    @property
    def is_shared(self) -> bool:
        """Whether a segment has tokens that must not see each other although one is after the other."""
        return False

    def separate(self, allowed: Tensor, back: int) -> Tensor:
        """Take out of `allowed` (.., W, P + W) what `is_shared` is about."""
        return allowed

    @cached_property
    def looks_back(self) -> bool:
        """Whether the keys of this call include those before a segment: not so where no row has any."""
        return self.look_back > 0 and bool(self.follows_RS.any())

    def cut_RS(self, bptt_segments: int | None) -> Tensor | None:
        """Before which s the bank is detached: S - s a multiple of n, 0 < s < S, with each row's own S (CPU)."""
        if bptt_segments is None or self.segments <= bptt_segments:
            return None
        s = torch.arange(self.segments, device="cpu")
        left_RS = (-(-self.end_R // self.segment_length))[:, None] - s
        return (left_RS % bptt_segments == 0) & (left_RS > 0) & (s > 0)

    @cached_property
    def position_ids(self) -> Tensor:
        """Positions for the rotary angles."""
        return self.column_ids

    @cached_property
    def column_ids(self) -> Tensor:
        """Columns inside the segment: (1, W) for a fold, (R, W) for a step."""
        column = torch.arange(self.width, device=self.device)[None]
        if not self.is_step:
            return column
        return (self.start_R.to(self.device)[:, None] + column).clamp_max(self.segment_length - 1)

    @cached_property
    def target_BL(self) -> Tensor | None:
        """Column of each token in the flat (R C) order, R C for a pad; None when tokens are already in order."""
        columns = self.segments * self.width
        shifted = not self.is_step and bool(self.start_R.any())
        if self.row_BL is None or self.rank_BL is None:
            if not shifted:
                return None
            row_BL = torch.arange(self.rows, device=self.device)[:, None]
            rank_BL = torch.arange(self.shape[1], device=self.device)[None]
        else:
            row_BL, rank_BL = self.row_BL, self.rank_BL
        target_BL = row_BL * columns + rank_BL
        if shifted:
            target_BL = target_BL + self.start_R.to(self.device)[row_BL]
        return target_BL if self.real_BL is None else target_BL.where(self.real_BL, self.rows * columns)

    @cached_property
    def placed(self) -> tuple[Tensor, Tensor, Tensor]:
        """A step's real tokens: the row, the rank in the call, and the column in the segment of each."""
        row, rank = (torch.arange(self.width, device="cpu") < self.length_R[:, None]).nonzero(as_tuple=True)
        column = self.start_R[row] + rank
        return row.to(self.device), rank.to(self.device), column.to(self.device)

    def lay(self, x_BLD: Tensor) -> Tensor:
        """From the caller's order to (R S, W, D). Columns without a token hold some token that nobody looks at."""
        columns = self.segments * self.width
        if self.target_BL is None:
            x_RCD = F.pad(x_BLD, (0, 0, 0, columns - self.shape[1]))
            return x_RCD.reshape(self.rows * self.segments, self.width, -1)
        index = torch.arange(self.target_BL.numel(), device=self.device)
        source = index.new_zeros(self.rows * columns + 1).scatter_(0, self.target_BL.flatten(), index)[:-1]
        return x_BLD.flatten(0, 1).index_select(0, source).view(self.rows * self.segments, self.width, -1)

    def unlay(self, h: Tensor) -> Tensor:
        """From (R S, W, D) back to (B, L, D); pads become zeros."""
        if self.target_BL is None:
            return h.reshape(self.rows, -1, h.shape[-1])[:, : self.shape[1]]
        h_CD = h.flatten(0, 1)
        out_BLD = h_CD[self.target_BL.clamp_max(len(h_CD) - 1)]
        return out_BLD if self.real_BL is None else out_BLD.masked_fill(~self.real_BL[..., None], 0)

    def fill(self, new: Tensor, old: Tensor | None) -> Tensor:
        """Put the open segment's cached columns and the new ones together, along dimension -2.

        Fold: (R S, .., W, F) with columns below `start` of each row's first segment taken from `old` (R, .., T, F).
        Step: `old` with the new columns (R, .., W, F) at their positions: (R, .., T, F).

        What was cached takes the dtype of the new, which are those of the queries: autocast can have ended between.
        """
        if old is None or not self.start_R.any():
            return new
        old = old.to(new.dtype)
        if self.is_step:
            row, rank, column = self.placed
            filled = old.movedim(-2, 1).index_put((row, column), new.movedim(-2, 1)[row, rank])
            return filled.movedim(1, -2)
        column = torch.arange(self.segment_length, device=self.device)
        start_R1 = self.start_R.to(self.device)[:, None]
        new = new.unflatten(0, (self.rows, self.segments))
        first = torch.where(_columns(column < start_R1, old.dim()), old, new[:, 0])
        return torch.cat([first[:, None], new[:, 1:]], 1).flatten(0, 1)

    def open(self, filled: Tensor) -> Tensor:
        """Each row's open segment after this call, (R, .., T, F); beyond the row's count it holds anything."""
        if self.is_step:
            return filled
        filled = F.pad(filled, (0, 0, 0, self.segment_length - self.width)).unflatten(0, (self.rows, self.segments))
        last_R = (self.end_R // self.segment_length).clamp_max(self.segments - 1).to(self.device)
        return filled[torch.arange(self.rows, device=self.device), last_R]

    def tails(self, filled: Tensor, old: Tensor | None, turn: Callable[[Tensor], Tensor]) -> Tensor:
        """The P columns that stand before each segment: (R, S, .., P, F), and (R, S + 1, ..) if a segment is complete.

        Args:
            filled: what `fill` returned.
            old: (R, .., P, F), those before the first segment; None for none, which gives zeros.
            turn: what is done to the columns on their way over the border.
        """
        if old is None:
            old = filled.new_zeros(self.rows, *filled.shape[1:-2], self.look_back, filled.shape[-1])
        old = old.to(filled.dtype)
        if not self.complete_RS.any():
            return old[:, None]
        last = filled[..., -self.look_back :, :].unflatten(0, (self.rows, -1))
        return torch.cat([old[:, None], turn(last)], 1)

    def precede(self, tails: Tensor, filled: Tensor, cut_RS: Tensor | None) -> Tensor:
        """Each segment with its tail before it: (R S, .., P + W, F), or P + T columns for a step."""
        if not self.looks_back:
            return filled
        tails = tails[:, : self.segments]
        if cut_RS is not None:
            cut = cut_RS.to(self.device).view(*cut_RS.shape, *[1] * (tails.dim() - 2))
            tails = torch.where(cut, tails.detach(), tails)
        return torch.cat([tails.flatten(0, 1), filled], -2)

    def last_tail(self, tails: Tensor) -> Tensor:
        """What stands before each row's open segment after this call: (R, .., P, F)."""
        complete_R = (self.end_R // self.segment_length).to(self.device)
        return tails[torch.arange(self.rows, device=self.device), complete_R]

    def mask(self, window: int | None, dtype: torch.dtype, needed: bool) -> Tensor | None:
        """The additive attention mask, or None where plain causal attention says the same and no mask is needed.

        Every query keeps its own key, so no row is masked out whole.
        """
        plain = window is None or window >= self.width
        if plain and not (self.is_step or needed or self.looks_back or self.is_shared):
            return None
        back = self.look_back if self.looks_back else 0
        keys = torch.arange(-back, self.segment_length if self.is_step else self.width, device=self.device)
        distance = self.column_ids[..., None] - keys
        allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        if back and not self.follows_RS.all():
            allowed = allowed & (self.follows_RS.flatten().to(self.device)[:, None, None] | (keys >= 0))
        allowed = self.separate(allowed, back)
        zero = torch.zeros((), dtype=dtype, device=self.device)
        return torch.where(allowed, zero, torch.finfo(dtype).min)[:, None]


def plan(
    shape: tuple[int, int],
    segment_length: int,
    device: torch.device,
    read_B: Tensor | None = None,
    attention_mask: Tensor | None = None,
    look_back: int = 0,
) -> Layout:
    """Lay out one call, but for packed documents (`lm2.documents`).

    Args:
        shape: (B, L) of the call.
        read_B: tokens that each row has read before; None starts afresh.
        attention_mask: (B, L or more), 1 for a real token; the last L columns count, the ones before are the cache's.
        look_back: P, columns of the segment before that each segment sees.

    Raises:
        ValueError: the mask's shape does not fit.
    """
    batch, length = shape
    read_R = torch.zeros(batch, dtype=torch.long, device="cpu") if read_B is None else read_B
    if attention_mask is not None:
        check_mask(attention_mask, batch, length)
        real_BL = attention_mask[:, -length:].to(device=device, dtype=torch.bool)
        if not real_BL.all():
            row_BL = torch.arange(batch, device=device)[:, None].expand(batch, length)
            rank_BL = real_BL.cumsum(1) - 1
            length_R = real_BL.sum(1).cpu()
            return Layout(shape, segment_length, look_back, read_R, length_R, device, row_BL, rank_BL, real_BL)
    return Layout(shape, segment_length, look_back, read_R, torch.full((batch,), length, device="cpu"), device)


def check_mask(mask: Tensor, rows: int, length: int) -> None:
    """Raises ValueError if a mask is not that of so many rows and columns; it may also cover columns before."""
    if mask.dim() != 2 or mask.shape[0] != rows or mask.shape[1] < length:
        raise ValueError(
            f"attention_mask must be of shape ({rows}, {length}) or longer by the cached tokens, and it is of shape "
            f"{tuple(mask.shape)}: pass one number per token, 1 for a real one"
        )


def _columns(x_RT: Tensor, dim: int) -> Tensor:
    """(R, T) with singleton dimensions put in, to broadcast over (R, .., T, F)."""
    return x_RT.view(x_RT.shape[0], *[1] * (dim - 3), x_RT.shape[1], 1)
