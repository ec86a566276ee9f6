"""What RMT and ARMT share: rows cut into segments, a memory from segment to segment, and a state from call to call.

* Each row's real tokens are first laid left-aligned, so padding on either side is the same input and no mask over pads
  is needed: attention is causal, and what an incomplete segment writes is never used.
* State in, state out: ``past_key_values`` takes and returns a ``SegmentState``; a long input can come in any chunks.
* Logits are built only where they are asked for or counted in the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import ModelOutput

from lm2.layout import check_mask
from lm2.loss import summed_cross_entropy

# B = rows, L = columns of the call, A = columns after left-alignment (open segment first), T = segment length,
# P = columns of the open segments, D = width, V = vocabulary, K = columns whose logits are kept, N = picked positions

Memory = tuple[Tensor, ...]
"""What is carried from segment to segment: tensors whose first dimension is the rows."""


@strict
class SegmentedConfig(PreTrainedConfig):
    """What the configurations of all baselines with segments have in common.

    Args:
        backbone_config: configuration of the causal language model that is wrapped.
        segment_length: T, tokens of a segment, memory tokens not counted.
        memory_tokens: m; 0 is the backbone run segment by segment with no link.
        bptt_segments: n >= 2: the memory is detached before segment s when (S - s) is a multiple of n; None: never.

    Raises:
        ValueError: a size out of range, or more positions in a segment than the backbone has.
    """

    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}  # noqa: RUF012

    backbone_config: Any = None  # a configuration; a file holds its dictionary, and None is Llama's default
    segment_length: int = 512
    memory_tokens: int = 16
    bptt_segments: int | None = None
    tie_word_embeddings: bool = False

    memory_blocks = 1
    """Blocks of memory tokens in a segment."""

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
        if self.positions > self.backbone_config.max_position_embeddings:
            raise ValueError(
                f"A segment takes segment_length + {self.memory_blocks} * memory_tokens = {self.positions} positions, "
                f"but the backbone has {self.backbone_config.max_position_embeddings}: lower segment_length or "
                "memory_tokens."
            )

    @property
    def positions(self) -> int:
        """Positions of a segment with its memory tokens."""
        return self.segment_length + self.memory_blocks * self.memory_tokens


@dataclass(frozen=True)
class SegmentState:
    """What a row carries from call to call: its memory and the tokens of its open (incomplete) segment."""

    memory: Memory
    ids_BT: Tensor
    count_B: Tensor

    def detach(self) -> Self:
        """The same values without their gradient history."""
        return replace(self, memory=tuple(part.detach() for part in self.memory))

    def select(self, rows: Tensor | list[int]) -> Self:
        """The state of the given rows, in the given order (repeats allowed)."""
        memory = tuple(part[rows] for part in self.memory)
        return replace(self, memory=memory, ids_BT=self.ids_BT[rows], count_B=self.count_B[rows])

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(part.nbytes for part in (*self.memory, self.ids_BT, self.count_B))


@dataclass
class SegmentedOutput(ModelOutput):
    """What a model returns, under the names of Hugging Face's causal language models."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: SegmentState | None = None


@dataclass(frozen=True)
class _Rows:
    """A call's tokens after the rows' open segments, left-aligned."""

    ids_BA: Tensor
    count_B: Tensor
    target_BA: Tensor  # the next token where it counts in the loss, else -100
    place_BL: Tensor  # aligned position of each column of the call


class MemoryTokens(nn.Module):
    """Learned tokens (m, D). Their own class, because initialisation is looked up by the parameter's owner."""

    def __init__(self, memory_tokens: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(memory_tokens, hidden_size))


class SegmentedForCausalLM(PreTrainedModel):
    """A causal language model run segment by segment with a memory; a subclass says what a segment reads and writes."""

    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SegmentedConfig):
        super().__init__(config)
        self.backbone = AutoModelForCausalLM.from_config(config.backbone_config)

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel, **config) -> Self:
        """Wrap a (pretrained) causal language model; `config` holds the configuration's fields. The model is shared,
        and stays in training or evaluation mode.
        """
        config_class = cast(type[SegmentedConfig], cls.config_class)
        model = cls(config_class(backbone_config=backbone.config, **config))
        model.backbone = backbone
        embedding = backbone.get_input_embeddings().get_parameter("weight")
        spread = embedding.detach().float().std().item()
        for module in model.modules():
            if isinstance(module, MemoryTokens):
                nn.init.normal_(module.weight, std=spread)
        for name, module in model.named_children():
            if name != "backbone":
                module.to(backbone.dtype)  # in which it is saved
        return model.to(backbone.device).train(backbone.training)

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, MemoryTokens):
            init.normal_(module.weight, std=self.config.backbone_config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.get_output_embeddings()

    def initial_state(self, rows: int) -> SegmentState:
        """The state of `rows` rows that have read nothing."""
        raise NotImplementedError

    def _run_segment(self, ids_BT: Tensor, memory: Memory, writes: bool) -> tuple[Tensor, Memory]:
        """The hidden states (B, T, D) of a segment's tokens, and if it writes the memory afterwards."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: SegmentState | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SegmentedOutput:
        """Read the tokens segment by segment.

        Args:
            input_ids: (B, L), padded on any side where `attention_mask` (B, L or more; the last L columns count) is 0.
            past_key_values: state returned by an earlier call; `input_ids` are then the new tokens only.
            labels: (B, L); -100 is ignored. Shifted once over the whole row: the last position of a segment predicts
                the first token of the next. In training mode only labelled positions get logits; `logits` is None.
            logits_to_keep: the last k columns, or the given columns; 0 keeps all. Others are never built.
            use_cache: return the state as `past_key_values`.
            num_items_in_batch: the loss is the sum over labels divided by this, by default their mean.

        Raises:
            ValueError: `input_ids` has no column, or `attention_mask` or `past_key_values` does not fit it.
        """
        _check_fit(input_ids, attention_mask, past_key_values)
        state = self.initial_state(len(input_ids)) if past_key_values is None else past_key_values
        rows = _lay_out(input_ids, attention_mask, labels, state)
        wants_logits = labels is None or not self.training
        columns = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        place_BK = rows.place_BL[:, columns]
        kept_BA = torch.zeros_like(rows.ids_BA, dtype=torch.bool).scatter_(1, place_BK, wants_logits)

        kept, labelled, memory = [], [], state.memory
        for segment, hidden_BTD, memory in self._segments(rows, state.memory, bool(use_cache)):  # noqa: B007
            if wants_logits:
                kept.append(hidden_BTD[kept_BA[:, segment]])
            if labels is not None:
                labelled.append(hidden_BTD[rows.target_BA[:, segment] != -100])

        head = self.get_output_embeddings()
        loss = None if labels is None else self._loss(torch.cat(labelled), rows.target_BA, num_items_in_batch)
        logits = head(torch.cat(kept))[self._order(kept_BA, place_BK)] if wants_logits else None
        after = self._state_after(state, rows, memory) if use_cache else None
        return SegmentedOutput(loss=loss, logits=logits, past_key_values=after)

    def _segments(self, rows: _Rows, memory: Memory, use_cache: bool) -> Iterator[tuple[slice, Tensor, Memory]]:
        """Yield (columns, hidden states, memory afterwards) of each segment."""
        T, window = self.config.segment_length, self.config.bptt_segments
        segments = -(-rows.ids_BA.shape[1] // T)
        for s in range(segments):
            if window is not None and s > 0:
                left_B = -(-rows.count_B // T) - s
                cut_B = (left_B > 0) & (left_B % window == 0)
                memory = tuple(_where(cut_B, part.detach(), part) for part in memory)
            columns = slice(s * T, (s + 1) * T)
            complete_B = rows.count_B >= (s + 1) * T
            # What the last segment writes is only read by a later call.
            writes = s + 1 < segments or (use_cache and bool(complete_B.any()))
            hidden_BTD, written = self._run_segment(rows.ids_BA[:, columns], memory, writes)
            if writes:
                memory = tuple(_where(complete_B, new, old) for new, old in zip(written, memory, strict=True))
            yield columns, hidden_BTD, memory

    def _loss(self, hidden_ND: Tensor, target_BA: Tensor, num_items: Tensor | int | None) -> Tensor:
        pieces = target_BA.split(self.config.segment_length, dim=1)
        target_N = torch.cat([piece[piece != -100] for piece in pieces])
        vocabulary = self.config.backbone_config.vocab_size
        total = summed_cross_entropy(self.get_output_embeddings(), hidden_ND, target_N, vocabulary)
        return total / (max(len(target_N), 1) if num_items is None else num_items)

    def _order(self, kept_BA: Tensor, place_BK: Tensor) -> Tensor:
        """Where each kept column lies in the list that the segments made (segment by segment, then row by row)."""
        flat_BA = torch.arange(kept_BA.numel(), device=kept_BA.device).view_as(kept_BA)
        T = self.config.segment_length
        pieces = zip(flat_BA.split(T, dim=1), kept_BA.split(T, dim=1), strict=True)
        made_N, index_N = torch.cat([flat[kept] for flat, kept in pieces]).sort()
        return index_N[torch.searchsorted(made_N, flat_BA.gather(1, place_BK))]

    def _state_after(self, before: SegmentState, rows: _Rows, memory: Memory) -> SegmentState:
        T = self.config.segment_length
        open_B, at_T = rows.count_B % T, torch.arange(T, device=rows.ids_BA.device)
        source_BT = (rows.count_B - open_B)[:, None] + at_T
        ids_BT = rows.ids_BA.gather(1, source_BT.clamp(max=rows.ids_BA.shape[1] - 1))
        ids_BT = ids_BT.masked_fill(at_T >= open_B[:, None], 0)
        return replace(before, memory=memory, ids_BT=ids_BT, count_B=open_B)

    @torch.no_grad()
    def stream(self, chunks: Iterable[Tensor], state: SegmentState | None = None) -> tuple[Tensor, SegmentState]:
        """Read chunks (B, any) with memory that does not grow; the logits (B, V) after the last token, and the state.

        Raises:
            ValueError: there is no chunk.
        """
        output = SegmentedOutput(past_key_values=state)
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
        past_key_values: SegmentState | None = None,
        *,
        max_new_tokens: int,
        eos_token_id: int | list[int] | None = None,
    ) -> Tensor:
        """Greedy continuation (B, up to max_new_tokens), filled with (the first) `eos_token_id` after a row's end.

        Each new token runs the open segment once more, so what comes out is exactly what `forward` would give for the
        whole text; answers are short and segments are bounded, so a cache of keys would save little.

        Raises:
            ValueError: a row has no real token, `max_new_tokens` is below 1, or `forward` refuses the inputs.
        """
        _check_fit(input_ids, attention_mask, past_key_values)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        real_BL = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        if not bool(real_BL.any(dim=1).all()):
            raise ValueError(f"Every row needs at least one real token, got counts {real_BL.sum(1).tolist()}.")
        order_BL = real_BL.sort(dim=1, stable=True).indices  # pads first, so that the last column is real in every row
        ids_BL, real_BL = input_ids.gather(1, order_BL), real_BL.gather(1, order_BL)
        answer, ended_B = [], torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        ends = torch.as_tensor([] if eos_token_id is None else eos_token_id, dtype=torch.long, device=input_ids.device)
        while len(answer) < max_new_tokens and not bool(ended_B.all()):
            output = self(ids_BL, real_BL, past_key_values, logits_to_keep=1, use_cache=True)
            next_B, past_key_values = output.logits[:, -1].argmax(-1), output.past_key_values
            if ends.numel():
                next_B = next_B.masked_fill(ended_B, ends.view(-1)[0])
                ended_B = ended_B | torch.isin(next_B, ends)
            answer.append(next_B)
            ids_BL, real_BL = next_B[:, None], None
        return torch.stack(answer, dim=1)


def _check_fit(ids_BL: Tensor, mask: Tensor | None, state: SegmentState | None) -> None:
    """Raises ValueError if there is no column, or the mask or the state is not that of these rows."""
    rows, length = ids_BL.shape
    if length == 0:
        raise ValueError(f"input_ids needs at least one column, got shape {tuple(ids_BL.shape)}: give a prompt.")
    if mask is not None:
        check_mask(mask, rows, length)
    if state is not None and len(state.count_B) != rows:
        raise ValueError(
            f"past_key_values has {len(state.count_B)} rows and input_ids has {rows}: use past_key_values.select(...) "
            "to bring them together."
        )


def _lay_out(ids_BL: Tensor, mask_BL: Tensor | None, labels_BL: Tensor | None, state: SegmentState) -> _Rows:
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


def _where(choice_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(choice_B.view(-1, *[1] * (no.ndim - 1)), yes, no)
