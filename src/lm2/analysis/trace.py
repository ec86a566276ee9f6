"""Reading a text segment by segment, and keeping what the memories did on the way.

Shape suffixes: L tokens of the text, t tokens of a call, others as in `provenance`.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm2.analysis.provenance import NO_TOKEN, Sources, head_norms, write_of
from lm2.cache import LayerState, LM2Cache
from lm2.memory import LM2Memory, Worth, initial_bank, normalise


class Block(NamedTuple):
    """A block that has a memory."""

    index: int
    norm: nn.Module
    """What makes the memory's inputs"""
    memory: LM2Memory


def blocks_of(model: Any) -> list[Block]:
    """The blocks with a memory, from below.

    Raises:
        ValueError: there is none.
    """
    layers = enumerate(model.model.layers)
    found = [Block(i, layer.input_layernorm, layer.memory) for i, layer in layers if layer.memory is not None]
    if not found:
        raise ValueError("no block of this model has a memory: there is nothing to look into")
    return found


@dataclass(frozen=True)
class Trace:
    """What the memories of a model have done since a text began. A value: `follow` returns the next."""

    cache: LM2Cache
    sources: tuple[Sources, ...]
    """For each memory"""
    written: tuple[Tensor, ...] = ()
    """rho of the tokens, the greatest over heads: (memories, t) for each call"""
    masses: tuple[Tensor, ...] = ()
    """p of the slots, the greatest over heads: (memories, N) for each segment that was written"""
    reads: tuple["Read", ...] = ()
    """What tokens read, of each call that was followed with `reads`"""

    @classmethod
    def begin(cls, model: Any) -> "Trace":
        """Before the first token."""
        sources = tuple(Sources.of_start(block.memory, model.device) for block in blocks_of(model))
        return cls(LM2Cache(model.config), sources)

    @property
    def tokens(self) -> int:
        """Read so far."""
        return int(self.cache.tokens_R[0]) if self.cache.rows else 0


class Read(NamedTuple):
    """What memories gave to some tokens of a text.

    share_tL: how much of what a token read came from each token before; start_t: from the banks' start; others_t: from
    tokens that are no longer kept. They are 1 together. size_t: the norm of what joined the residual stream.
    """

    share_tL: Tensor
    start_t: Tensor
    others_t: Tensor
    size_t: Tensor

    @classmethod
    def of_memories(cls, reads: "list[Read]") -> "Read":
        """What several memories gave to the same tokens: shares by the norms, and the sum of these."""
        size_Bt = torch.stack([read.size_t for read in reads])
        part_Bt = size_Bt / size_Bt.sum(0).clamp_min(1e-12)
        share_BtL, start_Bt, others_Bt = (torch.stack(each) for each in list(zip(*reads, strict=True))[:3])
        return cls(
            (part_Bt[..., None] * share_BtL).sum(0),
            (part_Bt * start_Bt).sum(0),
            (part_Bt * others_Bt).sum(0),
            size_Bt.sum(0),
        )

    @classmethod
    def of_calls(cls, reads: "Sequence[Read]") -> "Read":
        """What the tokens of one call after another read."""
        longest = max(read.share_tL.shape[1] for read in reads)
        shares = [F.pad(read.share_tL, (0, longest - read.share_tL.shape[1])) for read in reads]
        start, others, size = (torch.cat(each) for each in list(zip(*reads, strict=True))[1:])
        return cls(torch.cat(shares), start, others, size)


@torch.no_grad()
def follow(
    model: Any, ids_L: Tensor, trace: Trace, reads: bool = False, done: Callable[[int], Any] | None = None
) -> Trace:
    """Read on, a segment a call, and keep what was written, and with `reads` also what was read.

    Args:
        ids_L: the next tokens.
        trace: what was read before; it stays as it is.
        done: told the number of tokens after each call, for a progress bar.
    """
    T, at = model.config.segment_length, 0
    trace = replace(trace, cache=trace.cache.copy())
    while at < len(ids_L):
        piece = ids_L[at : at + T - trace.tokens % T]
        trace = _call(model, piece, trace, reads)
        at += len(piece)
        if done is not None:
            done(len(piece))
    return trace


def _call(model: Any, ids_t: Tensor, trace: Trace, reads: bool) -> Trace:
    """Read tokens of one segment. The cache of the trace moves on."""
    T, blocks, before = model.config.segment_length, blocks_of(model), trace.tokens
    states = list(trace.cache.states) or [None] * len(model.model.layers)
    with _inputs([block.norm for block in blocks]) as seen:
        model(ids_t[None], past_key_values=trace.cache, logits_to_keep=1)
    rhos, masses, sources, found = [], [], [], []
    for block, x, own in zip(blocks, seen, trace.sources, strict=True):
        memory, x_tD = block.memory, x.flatten(0, -2)[: len(ids_t)]
        bank_ND, pending_tD = _before(states[block.index], memory, x_tD, before % T)
        rhos.append(memory.rho(x_tD).amax(-1))
        if reads:
            found.append(_read(memory, x_tD, bank_ND, own, before + len(ids_t)))
        if (before + len(ids_t)) % T == 0:
            write = write_of(memory, torch.cat([pending_tD, x_tD]), bank_ND)
            own = own.after(write, before - before % T)
            masses.append(write.mass_HN.amax(0))
        sources.append(own)
    return Trace(
        trace.cache,
        tuple(sources),
        (*trace.written, torch.stack(rhos)),
        (*trace.masses, torch.stack(masses)) if masses else trace.masses,
        (*trace.reads, Read.of_memories(found)) if reads else trace.reads,
    )


def _before(state: LayerState | None, memory: LM2Memory, x_tD: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The bank before a call, and the inputs of the open segment's `count` tokens."""
    if state is None:
        return initial_bank(memory.slots, memory.width, x_tD.device), x_tD[:0]
    assert state.bank is not None
    assert state.pending is not None
    return state.bank[0], state.pending[0, :count]


def _read(memory: LM2Memory, x_tD: Tensor, bank_ND: Tensor, sources: Sources, length: int) -> Read:
    """What tokens read of a bank; a slot's heads count by the norms of their columns."""
    with torch.autocast(x_tD.device.type, enabled=False):
        q_RtD, norm_RND = memory.query(x_tD[None]), normalise(bank_ND[None])
        weight_tN = memory.attend(q_RtD, norm_RND)[0].mean(0)
        size_t = memory.gate(memory.read(q_RtD[:, None], norm_RND[:, None]))[0, 0].norm(dim=-1)
    norm_HN = head_norms(bank_ND, memory.heads)
    part_HN = norm_HN / norm_HN.sum(0)
    start_N, others_N = ((part_HN * share_HN).sum(0) for share_HN in (sources.start_HN, sources.others_HN))
    share_NS = (part_HN[..., None] * sources.share_HNK).movedim(0, 1).flatten(1)
    token_NS = sources.token_HNK.movedim(0, 1).flatten(1)
    known_NS = token_NS != NO_TOKEN
    share_tS = (weight_tN[..., None] * (share_NS * known_NS)).flatten(1)
    share_tL = torch.zeros(len(x_tD), length, device=x_tD.device)
    share_tL.index_add_(1, token_NS.clamp_min(0).flatten(), share_tS)
    return Read(share_tL, weight_tN @ start_N, weight_tN @ others_N, size_t)


@contextmanager
def _inputs(norms: list[nn.Module]) -> Generator[list[Tensor]]:
    """While open, the outputs of these modules are put into the list, in order."""
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for norm in norms:
            hooks.enter_context(norm.register_forward_hook(lambda module, inputs, x: seen.append(x)))
        yield seen


@contextmanager
def closed(model: Any, cache: LM2Cache, closed_RL: Tensor) -> Generator[None]:
    """While open, the chosen tokens of each row are written to no slot; those after the last column are.

    Args:
        cache: the one that the model reads into, from the text's first token on: it tells where a call begins.
        closed_RL: true for a token that is not written.
    """

    def close(gate: nn.Module, inputs: tuple[Tensor], rho_RSTH: Tensor) -> Tensor:
        T = model.config.segment_length
        first = int(cache.tokens_R[0]) // T * T if cache.rows else 0
        own_RL = closed_RL[:, first : first + rho_RSTH[0, ..., 0].numel()]
        chosen_RSTH = torch.zeros_like(rho_RSTH, dtype=torch.bool)
        chosen_RSTH.flatten(1, -2)[:, : own_RL.shape[1]] = own_RL[..., None]
        return rho_RSTH.masked_fill(chosen_RSTH, 0)

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, Worth):
                hooks.enter_context(module.register_forward_hook(close))
        yield
