"""Associative Recurrent Memory Transformer (Rodkin et al., arXiv 2407.04841) around a causal backbone.

* A segment of T tokens is run as ``[Emb(tokens) ; M]``: m learned write tokens M at the end, the same in every segment.
* Each block has an associative memory (A, z), read by all positions before the block, written from its outputs at the
  write tokens. A and z start at zero and are float32, always.
* W_v starts at zero, so the untrained model is the backbone run segment by segment.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import initialization as init

from lm2.baselines.segments import Memory, MemoryTokens, SegmentedConfig, SegmentedForCausalLM, SegmentState
from lm2.memory import Float32Linear, MemoryLinear, zero_from

# B = rows, T = segment length, M = write tokens, X = T + M, D = width, E = d_mem, K = width of a key = 2 nu E

EPS = 1e-5
"""Added to the normaliser, as in the paper's code."""


@strict
class ARMTConfig(SegmentedConfig):
    """Configuration of `ARMTForCausalLM`: that of `SegmentedConfig`, and

    Args:
        key_width: d_mem, the width of queries and keys before phi.
        key_order: nu, the number of shifts in phi; a key is 2 nu d_mem wide.

    Raises:
        ValueError: a size out of range, or T + m positions that the backbone does not have.
    """

    model_type = "lm2_armt"

    key_width: int = 64
    key_order: int = 3

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if not 1 <= self.key_order < self.key_width:
            raise ValueError(
                f"key_order must be at least 1 and below key_width = {self.key_width}, where phi begins to repeat its "
                f"products, got {self.key_order}: lower key_order or raise key_width."
            )


@dataclass(frozen=True)
class ARMTState(SegmentState):
    """What a row carries from call to call; the memory is A (B, K, D) and z (B, K) of each block in turn."""


def phi(x: Tensor, order: int) -> Tensor:
    """DPFP features (Schlag et al., arXiv 2102.11174, section 5): (.., E) to (.., 2 nu E), none negative.

    r = relu([x ; -x]);   phi(x) = [r * roll(r, 1) ; ... ; r * roll(r, nu)]
    """
    r = torch.cat([x, -x], dim=-1).relu()
    return torch.cat([r * r.roll(shift, dims=-1) for shift in range(1, order + 1)], dim=-1)


class ZeroLinear(Float32Linear):
    """A linear map that starts at zero, computed in float32."""

    def reset_parameters(self) -> None:
        init.zeros_(self.weight)


class StrengthGate(Float32Linear):
    """W_b x + b, whose sigmoid is beta: how far a write token replaces what its key held."""

    def __init__(self, width: int):
        super().__init__(width, 1, bias=True)


class AssociativeMemory(nn.Module):
    """The associative memory of one block.

        read    h <- h + phi(W_q h) A / (phi(W_q h) . z + eps)
        write   of the block's outputs x at the write tokens, all at once:
                k = phi(W_k x)    v = W_v x    beta = sigmoid(W_b x + b)
                v_old = k A / (k . z + eps)
                gamma = clip(1 - k . z / |k|^2, 0, 1), not differentiated
                A <- A + sum_x beta k (v - v_old)      z <- z + sum_x gamma k

    Source: arXiv 2407.04841, section 3, and its code for gamma.
    """

    def __init__(self, hidden_size: int, key_width: int, key_order: int):
        super().__init__()
        self.order, self.width = key_order, 2 * key_order * key_width
        self.query = Float32Linear(hidden_size, key_width)
        self.key = Float32Linear(hidden_size, key_width)
        self.value = ZeroLinear(hidden_size, hidden_size)
        self.strength_gate = StrengthGate(hidden_size)

    def empty(self, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """A and z of rows that have read nothing: zeros."""
        A_BKD = torch.zeros(rows, self.width, self.value.out_features, device=device)
        return A_BKD, torch.zeros(rows, self.width, device=device)

    def read(self, hidden_BXD: Tensor, A_BKD: Tensor, z_BK: Tensor) -> Tensor:
        """The block's input: what the memory answers to each position is added to it."""
        with torch.autocast(hidden_BXD.device.type, enabled=False):
            answer_BXD, _ = _recall(phi(self.query(hidden_BXD), self.order), A_BKD, z_BK)
        return hidden_BXD + answer_BXD.to(hidden_BXD.dtype)

    def write(self, outputs_BMD: Tensor, A_BKD: Tensor, z_BK: Tensor) -> tuple[Tensor, Tensor]:
        """The memory after the segment."""
        with torch.autocast(outputs_BMD.device.type, enabled=False):
            k_BMK = phi(self.key(outputs_BMD), self.order)
            old_BMD, mass_BM1 = _recall(k_BMK, A_BKD, z_BK)
            new_BMD = self.strength_gate(outputs_BMD).sigmoid() * (self.value(outputs_BMD) - old_BMD)
            with torch.no_grad():
                # A key of zeros adds nothing to z whatever gamma is.
                square_BM1 = k_BMK.square().sum(-1, keepdim=True).clamp_min(torch.finfo(k_BMK.dtype).tiny)
                gamma_BM1 = (1 - mass_BM1 / square_BM1).clamp(0, 1)
            return A_BKD + k_BMK.mT @ new_BMD, z_BK + (gamma_BM1 * k_BMK).sum(1)


def _recall(key_BXK: Tensor, A_BKD: Tensor, z_BK: Tensor) -> tuple[Tensor, Tensor]:
    """key A / (key . z + eps), and key . z with a last dimension of 1."""
    mass_BX1 = key_BXK @ z_BK[..., None]
    return key_BXK @ A_BKD / (mass_BX1 + EPS), mass_BX1


class ARMTMemory(nn.Module):
    """The write tokens, and the associative memory of each block."""

    def __init__(self, config: ARMTConfig):
        super().__init__()
        width, blocks = config.backbone_config.hidden_size, config.backbone_config.num_hidden_layers
        self.tokens = MemoryTokens(config.memory_tokens, width)
        self.blocks = nn.ModuleList(AssociativeMemory(width, config.key_width, config.key_order) for _ in range(blocks))


class ARMTForCausalLM(SegmentedForCausalLM):
    """A causal language model with an associative memory in each block (arXiv 2407.04841, section 3).

    For each segment, h = [Emb(ids) ; M], and for each block l:
        h <- block_l(read_l(h, A_l, z_l));    (A_l, z_l) <- write_l(h[-m:], A_l, z_l);    logits = head(norm(h[:T])).
    """

    config_class = ARMTConfig

    def __init__(self, config: ARMTConfig):
        super().__init__(config)
        self.memory = ARMTMemory(config)
        self.post_init()

    def _init_weights(self, module: nn.Module):
        if isinstance(module, MemoryLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def initial_state(self, rows: int) -> ARMTState:
        """The state of `rows` rows that have read nothing: A and z are zero."""
        device = self.memory.tokens.weight.device
        memory = tuple(part for own in self._memories() for part in own.empty(rows, device))
        ids_BT = torch.zeros(rows, self.config.segment_length, dtype=torch.long, device=device)
        return ARMTState(memory, ids_BT, ids_BT.new_zeros(rows))

    @torch.compiler.disable  # which does not see hooks of a call: what blocks read and write would be left out
    def _run_segment(self, ids_BT: Tensor, memory: Memory, writes: bool) -> tuple[Tensor, Memory]:
        """The hidden states of a segment's tokens, and the memory afterwards (nothing unless `writes`)."""
        inputs_BXD, tokens = self.get_input_embeddings()(ids_BT), ids_BT.shape[1]
        if writes:
            write_BMD = self.memory.tokens.weight.to(inputs_BXD.dtype).expand(len(ids_BT), -1, -1)
            inputs_BXD = torch.cat([inputs_BXD, write_BMD], dim=1)
        with self._remembering(memory, tokens, writes) as written:
            hidden_BXD = self.backbone.base_model(inputs_embeds=inputs_BXD, use_cache=False).last_hidden_state
        return hidden_BXD[:, :tokens], tuple(written)

    @contextmanager
    def _remembering(self, memory: Memory, tokens: int, writes: bool) -> Generator[list[Tensor]]:
        """While this lasts, the backbone's blocks read the memory, and fill the list with what they write.

        Hooks that are taken away again leave the backbone as it is, whatever its family, and stay outside of a
        checkpointed block, which runs twice.
        """
        written: list[Tensor] = []
        with ExitStack() as hooks:
            for i, (block, own) in enumerate(zip(self._blocks(), self._memories(), strict=True)):
                attached = _Attached(own, memory[2 * i], memory[2 * i + 1], tokens, written)
                hooks.enter_context(block.register_forward_pre_hook(attached.before))
                if writes:
                    hooks.enter_context(block.register_forward_hook(attached.after))
            yield written

    def _memories(self) -> list[AssociativeMemory]:
        """By block."""
        return cast(list[AssociativeMemory], list(self.memory.blocks))

    def _blocks(self) -> nn.ModuleList:
        """The backbone's blocks.

        Raises:
            ValueError: the backbone keeps them in no list of their own.
        """
        blocks = self.config.backbone_config.num_hidden_layers
        for module in self.backbone.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == blocks:
                return module
        raise ValueError(
            f"ARMT needs a backbone with a list of {blocks} blocks, and {type(self.backbone).__name__} has none: use a "
            "decoder such as Llama, Mistral, Qwen, SmolLM or GPT-2."
        )

    def _loss(self, hidden_ND: Tensor, target_BA: Tensor, num_items: Tensor | int | None) -> Tensor:
        """The cross-entropy, from which every parameter of the memory has a gradient."""
        return super()._loss(hidden_ND, target_BA, num_items) + zero_from(self.memory)


@dataclass(frozen=True)
class _Attached:
    """The hooks of one block in one segment."""

    own: AssociativeMemory
    A_BKD: Tensor
    z_BK: Tensor
    tokens: int
    written: list[Tensor]

    def before(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.own.read(inputs[0], self.A_BKD, self.z_BK), *inputs[1:]

    def after(self, block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        hidden_BXD = output[0] if isinstance(output, tuple) else output
        self.written.extend(self.own.write(hidden_BXD[:, self.tokens :], self.A_BKD, self.z_BK))
