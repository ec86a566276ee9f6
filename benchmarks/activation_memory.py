"""The activation memory of a training step: 8 segments as they are, and 64 with activation checkpointing.

    PYTHONPATH=src python benchmarks/activation_memory.py

Nothing is computed: the tensors of a step in the shape of SmolLM2-135M are made on the meta device, and their bytes are
counted as they come and go, above weights and gradients (`lm2.training.footprint`). Attention is counted as the kernel
that CPUs and GPUs use, which keeps no table of scores; rows are float32.
"""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from lm2 import LM2Config, LM2ForCausalLM
from lm2.loss import summed_cross_entropy
from lm2.training.footprint import peak_bytes

SEGMENT_LENGTH = 256


def flash_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """The fused kernel's shapes: an output, and one number per query for its backward pass."""
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, dropout_p, is_causal)[0]


def peak(segments: int, checkpointing: bool) -> int:
    """Bytes of one row's step."""
    config = LM2Config.preset("lm2-135m", segment_length=SEGMENT_LENGTH, bptt_segments=None)
    with torch.device("meta"):
        model = LM2ForCausalLM(config).train()
        ids = torch.zeros(1, segments * SEGMENT_LENGTH, dtype=torch.long)
    if checkpointing:
        model.activation_checkpointing_enable()

    def step() -> Tensor:
        h_ND = model.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
        return summed_cross_entropy(model.lm_head, h_ND, ids[:, 1:].flatten(), config.vocab_size)

    return peak_bytes(step, model.parameters())


def main() -> None:
    F.scaled_dot_product_attention = flash_attention  # the meta device would choose the one with a table of scores
    torch.autocast = lambda *arguments, **settings: nullcontext()  # not there for the meta device, and off anyway
    for segments, checkpointing in ((8, False), (8, True), (64, True)):
        name = "with checkpointing" if checkpointing else "without"
        print(f"{segments:3} segments of {SEGMENT_LENGTH}, {name}: {peak(segments, checkpointing) / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
