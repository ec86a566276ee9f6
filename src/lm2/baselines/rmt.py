"""Recurrent Memory Transformer (Bulatov et al., arXiv 2207.06881 and 2402.10790) around a causal backbone.

* A segment of T tokens is run as ``[M ; Emb(tokens) ; M]``. The last hidden states of the back block are the next M.
* The only new parameter is the first memory, ``memory.weight`` (m, d), drawn with the spread of the embedding matrix.
* Each row's real tokens are first laid left-aligned, so padding on either side is the same input and no mask over pads
  is needed: attention is causal, and what an incomplete segment writes is never used.
* State in, state out: ``past_key_values`` takes and returns an ``RMTState``; a long input can come in any chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import ModelOutput

# B = rows, L = columns of the call, A = columns after left-alignment (open segment first), T = segment length,
# M = memory tokens, D = width, V = vocabulary, K = columns whose logits are kept, N = picked positions, flat


@strict
class RMTConfig(PreTrainedConfig):
    """Configuration of `RMTForCausalLM`.

    Args:
        backbone_config: configuration of the causal language model that is wrapped.
        segment_length: T, tokens of a segment, memory tokens not counted.
        memory_tokens: m; 0 is the backbone run segment by segment with no link.
        bptt_segments: n >= 2: M is detached before segment s when (S - s) is a multiple of n; None: never.
        memory_attention: "causal" (every published BABILong number) or "bidirectional": the tokens of one memory block
            also see each other forward (the version of 2022).

    Raises:
        ValueError: a size out of range, or T + 2m positions that the backbone does not have.
    """

    model_type = "lm2_rmt"
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}  # noqa: RUF012

    backbone_config: Any = None  # a configuration; a file holds its dictionary, and None is Llama's default
    segment_length: int = 512
    memory_tokens: int = 16
    bptt_segments: int | None = None
    memory_attention: Literal["causal", "bidirectional"] = "causal"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.backbone_config.tie_word_embeddings
        if self.segment_length < 1:
            raise ValueError(f"segment_length must be at least 1, got {self.segment_length}: set it to 1 or more.")
        if self.memory_tokens < 0:
            raise ValueError(f"memory_tokens must not be negative, got {self.memory_tokens}: 0 means no memory.")
        if self.bptt_segments is not None and self.bptt_segments < 2:
            raise ValueError(
                f"bptt_segments must be at least 2, got {self.bptt_segments}: with fewer no gradient reaches what a "
                "segment writes. Use 2 or more, or None for all segments."
            )
        positions = self.segment_length + 2 * self.memory_tokens
        if positions > self.backbone_config.max_position_embeddings:
            raise ValueError(
                f"A segment takes segment_length + 2 * memory_tokens = {positions} positions, but the backbone has "
                f"{self.backbone_config.max_position_embeddings}: lower segment_length or memory_tokens."
            )
        window = getattr(self.backbone_config, "sliding_window", None)
        if self.memory_attention == "bidirectional" and window is not None and window < positions:
            raise ValueError(
                f'memory_attention "bidirectional" needs a sliding window of at least segment_length + 2 * '
                f'memory_tokens = {positions}, got {window}: use "causal" or shorter segments.'
            )


@dataclass(frozen=True)
class RMTState:
    """What a row carries from call to call: its memory and the tokens of its open (incomplete) segment."""

    memory_BMD: Tensor
    ids_BT: Tensor
    count_B: Tensor

    def detach(self) -> RMTState:
        """The same values without their gradient history."""
        return RMTState(self.memory_BMD.detach(), self.ids_BT, self.count_B)

    def select(self, rows: Tensor) -> RMTState:
        """The state of the given rows, in the given order (repeats allowed)."""
        return RMTState(self.memory_BMD[rows], self.ids_BT[rows], self.count_B[rows])


@dataclass
class RMTOutput(ModelOutput):
    """What `RMTForCausalLM` returns, under the names of Hugging Face's causal language models."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: RMTState | None = None


@dataclass(frozen=True)
class _Rows:
    """A call's tokens after the rows' open segments, left-aligned."""

    ids_BA: Tensor
    count_B: Tensor
    target_BA: Tensor  # the next token where it counts in the loss, else -100
    place_BL: Tensor  # aligned position of each column of the call


class MemoryTokens(nn.Module):
    """The first memory M0 (m, d). Its own class, because initialisation is looked up by the parameter's owner."""

    def __init__(self, memory_tokens: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(memory_tokens, hidden_size))


class RMTForCausalLM(PreTrainedModel):
    """A causal language model with recurrent memory tokens (arXiv 2207.06881, section 3).

    For each segment s:  H = backbone([M ; Emb(ids_s) ; M]);  logits_s = head(H[m : m + T]);  M <- H[-m:].
    """

    config_class = RMTConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: RMTConfig):
        super().__init__(config)
        self.backbone = AutoModelForCausalLM.from_config(config.backbone_config)
        self.memory = MemoryTokens(config.memory_tokens, config.backbone_config.hidden_size)
        self.post_init()

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel, **config) -> RMTForCausalLM:
        """Wrap a (pretrained) causal language model; `config` holds the fields of `RMTConfig`. The model is shared."""
        model = cls(RMTConfig(backbone_config=backbone.config, **config))
        model.backbone = backbone
        embedding = backbone.get_input_embeddings().get_parameter("weight")
        nn.init.normal_(model.memory.weight, std=embedding.detach().float().std().item())
        return model.to(backbone.device)

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, MemoryTokens):
            init.normal_(module.weight, std=self.config.backbone_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.get_output_embeddings()

    def initial_state(self, rows: int) -> RMTState:
        """The state of `rows` rows that have read nothing."""
        memory_BMD = self.memory.weight.expand(rows, -1, -1)
        ids_BT = torch.zeros(rows, self.config.segment_length, dtype=torch.long, device=memory_BMD.device)
        return RMTState(memory_BMD, ids_BT, ids_BT.new_zeros(rows))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: RMTState | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> RMTOutput:
        """Read the tokens segment by segment.

        Args:
            input_ids: (B, L), padded on any side where `attention_mask` (B, L) is 0.
            past_key_values: state returned by an earlier call; `input_ids` are then the new tokens only.
            labels: (B, L); -100 is ignored. Shifted once over the whole row: the last position of a segment predicts
                the first token of the next. In training mode only labelled positions get logits; `logits` is None.
            logits_to_keep: the last k columns, or the given columns; 0 keeps all. Others are never built.
            use_cache: return the state as `past_key_values`.
            num_items_in_batch: the loss is the sum over labels divided by this, by default their mean.

        Raises:
            ValueError: `input_ids` has no column.
        """
        if input_ids.shape[1] == 0:
            raise ValueError(f"input_ids needs at least one column, got shape {tuple(input_ids.shape)}: give a prompt.")
        state = self.initial_state(len(input_ids)) if past_key_values is None else past_key_values
        rows = _lay_out(input_ids, attention_mask, labels, state)
        wants_logits = labels is None or not self.training
        columns = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        place_BK = rows.place_BL[:, columns]
        kept_BA = torch.zeros_like(rows.ids_BA, dtype=torch.bool).scatter_(1, place_BK, wants_logits)

        kept, labelled, written_BMD = [], [], state.memory_BMD
        for segment, hidden_BTD, written_BMD in self._segments(rows, state.memory_BMD, bool(use_cache)):  # noqa: B007
            if wants_logits:
                kept.append(hidden_BTD[kept_BA[:, segment]])
            if labels is not None:
                labelled.append(hidden_BTD[rows.target_BA[:, segment] != -100])

        head = self.get_output_embeddings()
        loss = None if labels is None else self._loss(head(torch.cat(labelled)), rows.target_BA, num_items_in_batch)
        logits = head(torch.cat(kept))[self._order(kept_BA, place_BK)] if wants_logits else None
        after = self._state_after(rows, written_BMD) if use_cache else None
        return RMTOutput(loss=loss, logits=logits, past_key_values=after)

    def _segments(self, rows: _Rows, memory_BMD: Tensor, use_cache: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield (columns, hidden states, memory afterwards) of each segment."""
        T, window = self.config.segment_length, self.config.bptt_segments
        segments = -(-rows.ids_BA.shape[1] // T)
        for s in range(segments):
            if window is not None and s > 0 and (segments - s) % window == 0:
                memory_BMD = memory_BMD.detach()
            columns = slice(s * T, (s + 1) * T)
            complete_B = rows.count_B >= (s + 1) * T
            # What the last segment writes is only read by a later call.
            writes = s + 1 < segments or (use_cache and bool(complete_B.any()))
            hidden_BTD, written_BMD = self._run_segment(rows.ids_BA[:, columns], memory_BMD, writes)
            if writes:
                memory_BMD = torch.where(complete_B[:, None, None], written_BMD, memory_BMD)
            yield columns, hidden_BTD, memory_BMD

    def _run_segment(self, ids_BT: Tensor, memory_BMD: Tensor, writes: bool) -> tuple[Tensor, Tensor]:
        """The hidden states of a segment's tokens and of its write block (empty unless `writes`)."""
        tokens_BTD = self.get_input_embeddings()(ids_BT)
        blocks = [memory_BMD.to(tokens_BTD.dtype), tokens_BTD]
        inputs_BXD = torch.cat([*blocks, blocks[0]] if writes else blocks, dim=1)
        hidden_BXD = self.backbone.base_model(
            inputs_embeds=inputs_BXD, attention_mask=self._mask(inputs_BXD, ids_BT.shape[1]), use_cache=False
        ).last_hidden_state
        first, last = memory_BMD.shape[1], memory_BMD.shape[1] + ids_BT.shape[1]
        return hidden_BXD[:, first:last], hidden_BXD[:, last:]

    def _mask(self, inputs_BXD: Tensor, tokens: int) -> Tensor | None:
        """None for the plain causal layout, so that the attention kernel needs no mask."""
        if self.config.memory_attention == "causal":
            return None
        at_X = torch.arange(inputs_BXD.shape[1], device=inputs_BXD.device)
        block_X = (at_X >= self.config.memory_tokens).int() + (at_X >= self.config.memory_tokens + tokens).int()
        same_block_XX = (block_X[:, None] == block_X) & (block_X != 1)
        return ((at_X[:, None] >= at_X) | same_block_XX)[None, None]

    def _loss(self, logits_NV: Tensor, target_BA: Tensor, num_items: Tensor | int | None) -> Tensor:
        pieces = target_BA.split(self.config.segment_length, dim=1)
        target_N = torch.cat([piece[piece != -100] for piece in pieces])
        total = F.cross_entropy(logits_NV.float(), target_N, reduction="sum")
        return total / (max(len(target_N), 1) if num_items is None else num_items)

    def _order(self, kept_BA: Tensor, place_BK: Tensor) -> Tensor:
        """Where each kept column lies in the list that the segments made (segment by segment, then row by row)."""
        flat_BA = torch.arange(kept_BA.numel(), device=kept_BA.device).view_as(kept_BA)
        T = self.config.segment_length
        pieces = zip(flat_BA.split(T, dim=1), kept_BA.split(T, dim=1), strict=True)
        made_N, index_N = torch.cat([flat[kept] for flat, kept in pieces]).sort()
        return index_N[torch.searchsorted(made_N, flat_BA.gather(1, place_BK))]

    def _state_after(self, rows: _Rows, memory_BMD: Tensor) -> RMTState:
        T = self.config.segment_length
        open_B, at_T = rows.count_B % T, torch.arange(T, device=rows.ids_BA.device)
        source_BT = (rows.count_B - open_B)[:, None] + at_T
        ids_BT = rows.ids_BA.gather(1, source_BT.clamp(max=rows.ids_BA.shape[1] - 1))
        return RMTState(memory_BMD, ids_BT.masked_fill(at_T >= open_B[:, None], 0), open_B)

    @torch.no_grad()
    def stream(self, chunks: Iterable[Tensor], state: RMTState | None = None) -> tuple[Tensor, RMTState]:
        """Read chunks (B, any) with memory that does not grow; the logits (B, V) after the last token, and the state.

        Raises:
            ValueError: there is no chunk.
        """
        output = RMTOutput(past_key_values=state)
        for chunk in chunks:
            output = self(chunk, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        if output.logits is None or output.past_key_values is None:
            raise ValueError("stream() needs at least one chunk, got 0: give the tokens as a list of tensors.")
        return output.logits[:, -1], output.past_key_values

    @torch.no_grad()
    def generate_answer(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: RMTState | None = None,
        *,
        max_new_tokens: int,
        eos_token_id: int | None = None,
    ) -> Tensor:
        """Greedy continuation (B, up to max_new_tokens), filled with `eos_token_id` after a row's end.

        Each new token runs the open segment once more, so what comes out is exactly what `forward` would give for the
        whole text; answers are short and segments are bounded, so a cache of keys would save little.

        Raises:
            ValueError: a row has no real token, or `max_new_tokens` is below 1.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        real_BL = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        if not bool(real_BL.any(dim=1).all()):
            raise ValueError(f"Every row needs at least one real token, got counts {real_BL.sum(1).tolist()}.")
        order_BL = real_BL.sort(dim=1, stable=True).indices  # pads first, so that the last column is real in every row
        ids_BL, real_BL = input_ids.gather(1, order_BL), real_BL.gather(1, order_BL)
        answer, ended_B = [], torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        while len(answer) < max_new_tokens and not bool(ended_B.all()):
            output = self(ids_BL, real_BL, past_key_values, logits_to_keep=1, use_cache=True)
            next_B, past_key_values = output.logits[:, -1].argmax(-1), output.past_key_values
            if eos_token_id is not None:
                next_B = next_B.masked_fill(ended_B, eos_token_id)
                ended_B = ended_B | (next_B == eos_token_id)
            answer.append(next_B)
            ids_BL, real_BL = next_B[:, None], None
        return torch.stack(answer, dim=1)


def _lay_out(ids_BL: Tensor, mask_BL: Tensor | None, labels_BL: Tensor | None, state: RMTState) -> _Rows:
    """Put the open segment before each row's real tokens and lay all of them left-aligned, pads (as id 0) behind."""
    length = ids_BL.shape[1]
    opened = int(state.count_B.max())
    real_BL = torch.ones_like(ids_BL, dtype=torch.bool) if mask_BL is None else mask_BL[:, -length:].bool()
    open_BP = torch.arange(opened, device=ids_BL.device) < state.count_B[:, None]
    real_BA = torch.cat([open_BP, real_BL], dim=1)
    order_BA = real_BA.sort(dim=1, descending=True, stable=True).indices
    count_B = real_BA.sum(1)
    width = max(int(count_B.max()), 1)

    def align(values_BA: Tensor, fill: int) -> Tensor:
        return values_BA.masked_fill(~real_BA, fill).gather(1, order_BA)[:, :width]

    aligned_BA = align(torch.cat([state.ids_BT[:, :opened], ids_BL], dim=1), 0)
    known_BL = torch.full_like(ids_BL, -100) if labels_BL is None else labels_BL
    known_BA = align(F.pad(known_BL, (opened, 0), value=-100), -100)
    target_BA = F.pad(known_BA[:, 1:], (0, 1), value=-100)
    # A token that an earlier call brought predicts nothing here: labels are shifted within the call.
    target_BA = target_BA.masked_fill(torch.arange(width, device=ids_BL.device) < state.count_B[:, None], -100)
    place_BL = order_BA.argsort(1)[:, opened:].clamp(max=width - 1)
    return _Rows(aligned_BA, count_B, target_BA, place_BL)
