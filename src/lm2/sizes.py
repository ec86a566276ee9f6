"""How big a model and its state are, counted on the meta device: nothing is allocated."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from lm2.baselines.segments import SegmentedConfig
from lm2.configuration import LM2Config
from lm2.modeling import LM2ForCausalLM


@dataclass(frozen=True)
class Size:
    """Parameters, and bytes of state for one row in the middle of a stream: the memory's and the open segment's."""

    base_parameters: int
    memory_parameters: int
    bank_bytes: int
    segment_bytes: int


def measure_baseline(config: SegmentedConfig) -> Size:
    """Build the model and the state of a row on the meta device and count."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        state = model.initial_state(1)
    memory = sum(p.numel() for name, p in model.named_parameters() if "memory" in name.split("."))
    carried = sum(part.nbytes for part in state.memory)
    return Size(
        base_parameters=sum(p.numel() for p in model.parameters()) - memory,
        memory_parameters=memory,
        bank_bytes=carried,
        segment_bytes=state.nbytes - carried,
    )


def measure(config: LM2Config) -> Size:
    """Build the model on the meta device and count.

    The state is what a float32 stream holds at the last token of a segment: the banks (N x d for each memory layer),
    and for the open segment the keys and values of every layer, those of the tokens that it looks back at included,
    and the inputs (T x d) of each memory layer.
    """
    with torch.device("meta"):
        model = LM2ForCausalLM(config)
    memory = sum(p.numel() for name, p in model.named_parameters() if ".memory." in name)
    layers = len(config.memory_indices)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads * head_width
    return Size(
        base_parameters=sum(p.numel() for p in model.parameters()) - memory,
        memory_parameters=memory,
        bank_bytes=4 * layers * config.memory_slots * config.hidden_size,
        segment_bytes=4
        * (
            (config.segment_length + config.look_back) * keys_and_values
            + config.segment_length * layers * config.hidden_size
        ),
    )
