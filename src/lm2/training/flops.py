"""The arithmetic of an LM2 model, counted from its shapes, and how much of the device's it is.

One multiply-add is two operations. The backward pass takes twice the forward's, and what activation checkpointing
computes again does not count: MFU is about the model, not about the way it is trained (Chowdhery et al. 2022, "PaLM",
appendix B).

Symbols: T segment length, P look-back, D width, N slots, S segments of a row.
"""

import torch
from torch import nn

from lm2.configuration import LM2Config
from lm2.memory import LM2Memory
from lm2.modeling import LM2DecoderLayer, LM2ForCausalLM

PEAKS = {"H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bfloat16 operations per second, from the vendors' data sheets, by a part of the device's name."""


def forward_flops(model: LM2ForCausalLM, segments: int) -> int:
    """Operations of one row of whole segments, with logits for every token."""
    config: LM2Config = model.config
    tokens = segments * config.segment_length
    layers = [layer for layer in model.model.layers if isinstance(layer, LM2DecoderLayer)]
    token_side = sum(_weights(layer.self_attn) + _weights(layer.mlp) for layer in layers)
    token_side += model.lm_head.weight.numel()
    head_dim = layers[0].self_attn.head_dim
    assert isinstance(head_dim, int)
    keys = config.segment_length + (config.look_back if segments > 1 else 0)
    attention = 4 * tokens * keys * config.num_attention_heads * head_dim * config.num_hidden_layers
    memories = [layer.memory for layer in layers if layer.memory is not None]
    return 2 * tokens * token_side + attention + sum(_memory_flops(memory, config, segments) for memory in memories)


def _memory_flops(memory: LM2Memory, config: LM2Config, segments: int) -> int:
    """Each segment reads; each but the last writes."""
    tokens, slots, width, writes = config.segment_length, memory.slots, memory.width, segments - 1
    token_side = sum(_weights(part) for part in (memory.q_proj, memory.u_proj, memory.write_gate, memory.output_gate))
    read = 2 * slots * (_weights(memory.k_proj) + _weights(memory.v_proj)) + 4 * tokens * slots * width
    gates = _weights(memory.input_gate) + _weights(memory.forget_gate)
    write = 2 * slots * (_weights(memory.k_proj) + gates) + 4 * tokens * slots * width
    return segments * (2 * tokens * token_side + read) + writes * write


def _weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def device_peak(bf16: bool) -> float | None:
    """Operations per second that the device is built for; None where it is not known."""
    if not bf16 or not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)
