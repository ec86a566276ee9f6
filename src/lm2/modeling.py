"""The LM2 model: a Llama-like backbone whose blocks read and write a bank of memory slots.

A block is written once, around the family's own attention, MLP, norm and rotary classes, and its parameters keep the
family's names; the memory hangs beside them at `model.layers.N.memory.*`.

Shape suffixes: B, L rows and columns of the call; R, S, W rows, segments and columns per segment of the layout (see
`lm2.layout`); T segment length; D width; N slots; V vocabulary. `h` is always (R S, W, D).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3
from transformers.models.smollm3 import modeling_smollm3 as smollm3
from transformers.utils import can_return_tuple

from lm2.cache import LayerState, LM2Cache
from lm2.configuration import LM2Config
from lm2.documents import plan_documents
from lm2.generation import LM2GenerationMixin
from lm2.inputs import check_attentions, check_carries, check_inputs
from lm2.layout import Layout, plan
from lm2.loss import summed_cross_entropy
from lm2.memory import LM2Memory, MemoryLinear


def _no_window(config: LM2Config, layer: int) -> int | None:
    return None


def _every_window(config: LM2Config, layer: int) -> int | None:
    return getattr(config, "sliding_window", None)


def _listed_window(config: LM2Config, layer: int) -> int | None:
    return getattr(config, "sliding_window", None) if config.layer_types[layer] == "sliding_attention" else None


class Family(NamedTuple):
    """The parts of a backbone family, and the sliding window of its block number `layer`."""

    attention: type[nn.Module]
    mlp: type[nn.Module]
    norm: type[nn.Module]
    rotary: type[nn.Module]
    window: Callable[[LM2Config, int], int | None]


def _family(module: ModuleType, name: str, window: Callable[[LM2Config, int], int | None]) -> Family:
    parts = (getattr(module, f"{name}{part}") for part in ("Attention", "MLP", "RMSNorm", "RotaryEmbedding"))
    return Family(*parts, window)


FAMILIES = {
    "llama": _family(llama, "Llama", _no_window),
    "mistral": _family(mistral, "Mistral", _every_window),
    "qwen2": _family(qwen2, "Qwen2", _listed_window),
    "qwen3": _family(qwen3, "Qwen3", _listed_window),
    "smollm3": _family(smollm3, "SmolLM3", _listed_window),
}


@dataclass(frozen=True)
class Call:
    """What all blocks of one forward call share.

    keep: whether the state after the call is wanted; masks: the attention mask by sliding window; border: cosine and
    sine of the rotary angles at position T, for look-back.
    """

    layout: Layout
    rotary: tuple[Tensor, Tensor]
    border: tuple[Tensor, Tensor]
    masks: dict[int | None, Tensor | None]
    cut_RS: Tensor | None
    keep: bool

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "Call":
        """The same on another device: where blocks are on several (`device_map`), accelerate moves what has a `to`."""
        from accelerate.utils import send_to_device

        names = ("layout", "rotary", "border", "masks")
        return replace(self, **{name: send_to_device(getattr(self, name), device, non_blocking) for name in names})


class OpenSegment:
    """Stands in for a cache in the family's attention: puts cached and new keys together, and remembers the result.

    With look-back it also puts the keys and values of the tokens before each segment there. Keys arrive turned by the
    positions of their own segment; those that cross the border are turned back by T, which brings them to -P to -1.
    """

    def __init__(self, call: Call, state: LayerState | None, rotates: bool):
        self.call, self.state, self.rotates = call, state, rotates
        self.keys = self.values = torch.empty(0)
        self.tails: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        layout, state = self.call.layout, self.state
        self.keys = layout.fill(keys, state.keys if state else None)
        self.values = layout.fill(values, state.values if state else None)
        if not layout.look_back:
            return self.keys, self.values
        key_tails = layout.tails(self.keys, state.tail_keys if state else None, self._turn_back)
        value_tails = layout.tails(self.values, state.tail_values if state else None, lambda tail: tail)
        self.tails = [key_tails, value_tails]
        cut_RS = self.call.cut_RS
        return layout.precede(key_tails, self.keys, cut_RS), layout.precede(value_tails, self.values, cut_RS)

    def close(self, pending: Tensor | None, bank: Tensor | None, contents: tuple[Tensor, Tensor] | None) -> LayerState:
        """The block's state after the call."""
        layout = self.call.layout
        tail_keys, tail_values = [layout.last_tail(tails) for tails in self.tails] or [None, None]
        keys, values = layout.open(self.keys), layout.open(self.values)
        return LayerState(keys, values, pending, bank, tail_keys, tail_values, *(contents or ()))

    def _turn_back(self, keys: Tensor) -> Tensor:
        if not self.rotates:
            return keys
        cos, sin = self.call.border
        return (keys.float() * cos - llama.rotate_half(keys.float()) * sin).to(keys.dtype)


class LM2DecoderLayer(GradientCheckpointingLayer):
    """One block: h + attention + gated memory read, then the MLP.

    State goes in and comes out; a cache is never seen here, since a checkpointed layer would lose it.
    """

    def __init__(self, config: LM2Config, layer_idx: int):
        super().__init__()
        family = FAMILIES[config.base_model_type]
        self.self_attn = family.attention(config, layer_idx)
        self.mlp = family.mlp(config)
        self.input_layernorm = family.norm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = family.norm(config.hidden_size, eps=config.rms_norm_eps)
        self.memory = LM2Memory(config) if layer_idx in config.memory_indices else None
        self.window = family.window(config, layer_idx)
        self.rotates = bool(getattr(self.self_attn, "use_rope", True))  # SmolLM3 has blocks without positions.

    def forward(self, h: Tensor, state: LayerState | None, call: Call) -> tuple[Tensor, LayerState | None]:
        x = self.input_layernorm(h)
        segment = OpenSegment(call, state, self.rotates)
        attended, _ = self.self_attn(
            hidden_states=x,
            position_embeddings=call.rotary,
            attention_mask=call.masks[self.window],
            past_key_values=segment,
        )
        h = h + attended
        pending = bank_RND = contents = None
        if self.memory is not None:
            read, pending, bank_RND, contents = self._remember(self.memory, x, state, call)
            h = h + read
        h = h + self.mlp(self.post_attention_layernorm(h))
        return h, segment.close(pending, bank_RND, contents) if call.keep else None

    def _remember(
        self, memory: LM2Memory, x: Tensor, state: LayerState | None, call: Call
    ) -> tuple[Tensor, Tensor | None, Tensor, tuple[Tensor, Tensor] | None]:
        """The gated read for each column, and the open segment's inputs, the bank and its contents after the call."""
        layout, contents = call.layout, None
        bank_RND = memory.initial_bank(layout.rows, x.device) if state is None else state.bank
        x_filled = layout.fill(x, state.pending if state else None)
        assert bank_RND is not None
        if layout.is_step:
            assert state is not None
            read, bank_RND, contents = memory.step(x, x_filled, bank_RND, layout.complete_RS[:, 0], state.contents)
        else:
            x_RSWD = x_filled.unflatten(0, (layout.rows, layout.segments))
            read, bank_RND = memory(x_RSWD, bank_RND, layout.complete_RS, call.cut_RS, layout.fresh_RS, call.keep)
            read = read.flatten(0, 1)
        return read, layout.open(x_filled) if call.keep else None, bank_RND, contents


class LM2PreTrainedModel(PreTrainedModel):
    """Weight initialisation and Hugging Face's flags, shared by `LM2Model` and `LM2ForCausalLM`."""

    config_class = LM2Config
    config: LM2Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LM2DecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _is_stateful = True  # A bank cannot be rolled back, so assisted generation is refused by transformers itself.

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, MemoryLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class LM2Model(LM2PreTrainedModel):
    """The backbone with its memories, without the language-model head."""

    def __init__(self, config: LM2Config):
        super().__init__(config)
        config.check_memory()
        family = FAMILIES[config.base_model_type]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(LM2DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.windows = {family.window(config, i) for i in range(config.num_hidden_layers)}
        self.norm = family.norm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = family.rotary(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: LM2Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Read a batch of rows, from their start or on from a cache.

        Args:
            input_ids: (B, L), L >= 1; or `inputs_embeds`, (B, L, D).
            attention_mask: (B, L), 1 for a real token, pads anywhere; with a cache it may also cover the cached
                columns.
            position_ids: only used to find the borders of packed documents, and only without a mask and a cache;
                positions inside a segment are always counted from the real tokens.
            past_key_values: the state to go on from; it is updated and returned.
            use_cache: whether a call without `past_key_values` returns a state (one that is passed always goes on);
                None is the configuration's in evaluation mode without `position_ids`, and otherwise False.

        Returns:
            Hidden states (B, L, D), zeros at pads, and the cache.

        Raises:
            ValueError: the inputs are empty, or do not fit each other or the cache; or attention weights are asked for.
        """
        check_attentions(output_attentions, self.config)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds, not both and not neither")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and position_ids is None
        cache = LM2Cache(self.config) if use_cache and past_key_values is None else past_key_values
        check_inputs(embeds, cache, self.config)
        if cache is not None:
            check_carries(self)
        read_B = cache.tokens_R if cache is not None and cache.rows else None
        layout = self._layout(embeds, read_B, attention_mask, position_ids if cache is None else None)
        h = layout.lay(embeds)
        call = self._call(layout, h, keep=cache is not None)
        h, states, all_hidden = self._blocks(h, call, cache, bool(output_hidden_states))
        if cache is not None:
            cache.record(states, layout.read_R + layout.length_R, embeds.shape[1])
        out_BLD = self.norm(layout.to(h.device).unlay(h))
        hidden_states = (*all_hidden, out_BLD) if output_hidden_states else None
        return BaseModelOutputWithPast(last_hidden_state=out_BLD, past_key_values=cache, hidden_states=hidden_states)

    def _layout(
        self, embeds_BLD: Tensor, read_B: Tensor | None, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> Layout:
        shape, device = (embeds_BLD.shape[0], embeds_BLD.shape[1]), embeds_BLD.device
        segment_length, look_back = self.config.segment_length, self.config.look_back
        packed = None
        if attention_mask is None and position_ids is not None:
            packed = plan_documents(shape, segment_length, device, position_ids, look_back)
        return packed or plan(shape, segment_length, device, read_B, attention_mask, look_back)

    def _call(self, layout: Layout, h: Tensor, keep: bool) -> Call:
        needed = self.config._attn_implementation != "sdpa"
        masks = {window: layout.mask(window, h.dtype, needed) for window in self.windows}
        cut_RS = layout.cut_RS(self.config.bptt_segments) if torch.is_grad_enabled() else None
        rotary = self.rotary_emb(h, layout.position_ids)
        return Call(layout, rotary, self._border(), masks, cut_RS, keep)

    def _border(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles at position T: a pure turn, without the scale that some families add."""
        frequency = self.rotary_emb.inv_freq
        assert isinstance(frequency, Tensor)
        angle = self.config.segment_length * torch.cat([frequency, frequency]).float()
        return angle.cos(), angle.sin()

    def _blocks(
        self, h: Tensor, call: Call, cache: LM2Cache | None, record: bool
    ) -> tuple[Tensor, list[LayerState], list[Tensor]]:
        old: list[LayerState | None] = list(cache.states) if cache is not None else []
        old = old or [None] * len(self.layers)
        states, all_hidden = [], []
        for layer, state in zip(self.layers, old, strict=True):
            if record:
                all_hidden.append(call.layout.to(h.device).unlay(h))
            h, state = layer(h, state, call)
            states.append(state)
        return h, states, all_hidden


class LM2ForCausalLM(LM2PreTrainedModel, LM2GenerationMixin):
    """LM2 with a language-model head: training, scoring and `generate`."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012
    accepts_loss_kwargs = True

    def __init__(self, config: LM2Config):
        super().__init__(config)
        self.model = LM2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: LM2Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """`LM2Model.forward`, then logits and, with labels, the loss.

        Args:
            labels: (B, L), shifted once over the whole row; -100 is ignored, and so are pads: their labels, and what
                they would predict.
            logits_to_keep: 0 for all columns, n for the last n, or the columns' indices.
            num_items_in_batch: what the summed loss is divided by; None divides by the number of labelled tokens.

        Returns:
            loss, and logits (B, L, V). In training mode with labels the head runs on labelled positions only, in
            parts (`lm2.loss`), and logits is None: for long inputs they would be most of the memory.

        Raises:
            ValueError: as `LM2Model.forward`.
        """
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_attentions=output_attentions,
        )
        loss = logits = None
        if labels is not None:
            loss = self._loss(out.last_hidden_state, labels, attention_mask, num_items_in_batch)
        if labels is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(out.last_hidden_state[:, kept])
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=out.past_key_values, hidden_states=out.hidden_states
        )

    def _loss(self, h_BLD: Tensor, labels_BL: Tensor, mask_BL: Tensor | None, num_items: int | Tensor | None) -> Tensor:
        target_BL = labels_BL[:, 1:].to(h_BLD.device)
        labelled = target_BL != -100
        if mask_BL is not None:  # or the side on which rows are padded would count
            real_BL = mask_BL[:, -labels_BL.shape[1] :].to(h_BLD.device, torch.bool)
            labelled = labelled & real_BL[:, :-1] & real_BL[:, 1:]
        if isinstance(num_items, Tensor):
            num_items = num_items.to(h_BLD.device)
        total = summed_cross_entropy(self.lm_head, h_BLD[:, :-1][labelled], target_BL[labelled], self.vocab_size)
        return total / (labelled.sum().clamp_min(1) if num_items is None else num_items)
