"""Recurrent Memory Transformer (Bulatov et al., arXiv 2207.06881 and 2402.10790) around a causal backbone.

* A segment of T tokens is run as ``[M ; Emb(tokens) ; M]``. The last hidden states of the back block are the next M.
* The only new parameter is the first memory, ``memory.weight`` (m, d), drawn with the spread of the embedding matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

from lm2.baselines.segments import Memory, MemoryTokens, SegmentedConfig, SegmentedForCausalLM, SegmentState

# B = rows, T = segment length, M = memory tokens, D = width, X = M + T + M


@strict
class RMTConfig(SegmentedConfig):
    """Configuration of `RMTForCausalLM`: that of `SegmentedConfig`, and

    Args:
        memory_attention: "causal" (every published BABILong number) or "bidirectional": the tokens of one memory block
            also see each other forward (the version of 2022).

    Raises:
        ValueError: a size out of range, or T + 2m positions that the backbone does not have.
    """

    model_type = "lm2_rmt"
    memory_blocks = 2

    memory_attention: Literal["causal", "bidirectional"] = "causal"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        window = getattr(self.backbone_config, "sliding_window", None)
        if self.memory_attention == "bidirectional" and window is not None and window < self.positions:
            raise ValueError(
                f'memory_attention "bidirectional" needs a sliding window of at least segment_length + 2 * '
                f'memory_tokens = {self.positions}, got {window}: use "causal" or shorter segments.'
            )


@dataclass(frozen=True)
class RMTState(SegmentState):
    """What a row carries from call to call; the memory is one tensor."""

    @property
    def memory_BMD(self) -> Tensor:
        """M, as the open segment reads it."""
        return self.memory[0]


class RMTForCausalLM(SegmentedForCausalLM):
    """A causal language model with recurrent memory tokens (arXiv 2207.06881, section 3).

    For each segment s:  H = backbone([M ; Emb(ids_s) ; M]);  logits_s = head(H[m : m + T]);  M <- H[-m:].
    """

    config_class = RMTConfig

    def __init__(self, config: RMTConfig):
        super().__init__(config)
        self.memory = MemoryTokens(config.memory_tokens, config.backbone_config.hidden_size)
        self.post_init()

    def initial_state(self, rows: int) -> RMTState:
        memory_BMD = self.memory.weight.expand(rows, -1, -1)
        ids_BT = torch.zeros(rows, self.config.segment_length, dtype=torch.long, device=memory_BMD.device)
        return RMTState((memory_BMD,), ids_BT, ids_BT.new_zeros(rows))

    def _run_segment(self, ids_BT: Tensor, memory: Memory, writes: bool) -> tuple[Tensor, Memory]:
        """The hidden states of a segment's tokens and of its write block (empty unless `writes`)."""
        memory_BMD = memory[0]
        tokens_BTD = self.get_input_embeddings()(ids_BT)
        blocks = [memory_BMD.to(tokens_BTD.dtype), tokens_BTD]
        inputs_BXD = torch.cat([*blocks, blocks[0]] if writes else blocks, dim=1)
        hidden_BXD = self.backbone.base_model(
            inputs_embeds=inputs_BXD, attention_mask=self._mask(inputs_BXD, ids_BT.shape[1]), use_cache=False
        ).last_hidden_state
        first, last = memory_BMD.shape[1], memory_BMD.shape[1] + ids_BT.shape[1]
        return hidden_BXD[:, first:last], (hidden_BXD[:, last:],)

    def _mask(self, inputs_BXD: Tensor, tokens: int) -> Tensor | None:
        """None for the plain causal layout, so that the attention kernel needs no mask."""
        if self.config.memory_attention == "causal":
            return None
        at_X = torch.arange(inputs_BXD.shape[1], device=inputs_BXD.device)
        block_X = (at_X >= self.config.memory_tokens).int() + (at_X >= self.config.memory_tokens + tokens).int()
        same_block_XX = (block_X[:, None] == block_X) & (block_X != 1)
        allowed_XX = (at_X[:, None] >= at_X) | same_block_XX
        zero = torch.zeros((), dtype=inputs_BXD.dtype, device=inputs_BXD.device)
        return torch.where(allowed_XX, zero, torch.finfo(inputs_BXD.dtype).min)[None, None]
