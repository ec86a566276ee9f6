"""Which tokens the content of each slot came from.

A write leaves a slot with what stays of it, what goes back to its start, and what is new (`LM2Memory.parts`), and the
new part is a weighted mean of the segment's tokens (`LM2Memory.weigh`). So the content of a slot has sources, in the
shares of these parts' norms: with a = |what stays|, b = |what goes back|, c = |what is new|, and weights w_t of tokens,

    share of an earlier token   <-  a share / (a + b + c)
    share of token t            <-  c w_t / sum(w) / (a + b + c)
    share of the start          <-  (a share + b) / (a + b + c)

in each head's columns for itself. Norms, and not values, are counted: parts may cancel. What a token's vector knows of
the tokens before it (through attention, or an earlier block's memory) is counted as that token's.

Shape suffixes: T tokens of a segment, N slots, D width, H memory heads, E width of a head, K kept sources.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lm2.memory import LM2Memory, normalise

KEPT = 64
"""Sources that are kept of a slot in a head; the shares of the others are one number."""
NO_TOKEN = -1


class Write(NamedTuple):
    """One write: what of each slot, in each head's columns, stays, goes back to the start, and is of each token."""

    kept_HN: Tensor
    restored_HN: Tensor
    added_HNT: Tensor
    mass_HN: Tensor
    bank_ND: Tensor
    """The bank that it leaves"""


class Sources(NamedTuple):
    """Where the content of the slots of one bank came from; all shares of a slot in a head are 1 together."""

    share_HNK: Tensor
    token_HNK: Tensor
    """Positions in the text, `NO_TOKEN` where a slot has fewer sources"""
    start_HN: Tensor
    others_HN: Tensor
    """Of tokens that are no longer kept"""

    @classmethod
    def of_start(cls, memory: LM2Memory, device: torch.device) -> "Sources":
        """Before anything is written."""
        shape = memory.heads, memory.slots
        share, token = torch.zeros(*shape, KEPT, device=device), torch.full((*shape, KEPT), NO_TOKEN, device=device)
        return cls(share, token, torch.ones(shape, device=device), torch.zeros(shape, device=device))

    def after(self, write: Write, first: int) -> "Sources":
        """After a write of a segment whose first token is at position `first`."""
        added_HN = write.added_HNT.sum(-1)
        total_HN = (write.kept_HN + write.restored_HN + added_HN).clamp_min(1e-12)
        stays_HN, tokens_T = write.kept_HN / total_HN, torch.arange(write.added_HNT.shape[-1], device=added_HN.device)
        share = torch.cat([self.share_HNK * stays_HN[..., None], write.added_HNT / total_HN[..., None]], -1)
        token = torch.cat([self.token_HNK, (first + tokens_T).expand_as(write.added_HNT)], -1)
        best_HNK, index_HNK = share.topk(KEPT, -1)
        start_HN = self.start_HN * stays_HN + write.restored_HN / total_HN
        empty_HN = write.kept_HN + write.restored_HN + added_HN <= 0  # columns in which a slot has nothing at all
        start_HN = torch.where(empty_HN, self.start_HN, start_HN)
        others_HN = (1 - start_HN - best_HNK.sum(-1)).clamp_min(0)
        return Sources(best_HNK, token.gather(-1, index_HNK), start_HN, torch.where(empty_HN, 0.0, others_HN))


def write_of(memory: LM2Memory, x_TD: Tensor, bank_ND: Tensor) -> Write:
    """What the memory's write of a segment is made of.

    Args:
        x_TD: the block's normed inputs of the segment.
        bank_ND: the bank that the segment reads.
    """
    with torch.autocast(x_TD.device.type, enabled=False):
        q_RTD, rho_RTH, u_RTD = memory.project(x_TD[None])
        bank_RND = bank_ND[None]
        norm_RND, start_ND = normalise(bank_RND), memory.initial_bank(1, x_TD.device)[0]
        alignment_RHTN = memory.align(q_RTD, norm_RND)
        weight_RHTN, mass_RHN1 = memory.weigh(alignment_RHTN, rho_RTH)
        offered = memory.offer(alignment_RHTN, rho_RTH, u_RTD)
        parts = memory.parts(bank_RND, norm_RND, start_ND, *offered)
        written_RND = memory.update(bank_RND, norm_RND, start_ND, *offered)
    kept_HN, restored_HN, added_HN = (head_norms(part[0], memory.heads) for part in parts)
    weight_HNT = weight_RHTN[0].transpose(1, 2)
    added_HNT = added_HN[..., None] * weight_HNT / weight_HNT.sum(-1, keepdim=True).clamp_min(1e-12)
    return Write(kept_HN, restored_HN, added_HNT, mass_RHN1[0, ..., 0], written_RND[0])


def head_norms(x_ND: Tensor, heads: int) -> Tensor:
    """The norm of each slot in each head's columns: (H, N)."""
    return x_ND.unflatten(-1, (heads, -1)).norm(dim=-1).T
