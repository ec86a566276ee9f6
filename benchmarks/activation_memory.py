"""The activation memory of a training step: 8 segments as they are, and 64 with activation checkpointing.

    PYTHONPATH=src python benchmarks/activation_memory.py

Nothing is computed: the tensors of a step in the shape of SmolLM2-135M are made on the meta device, and their bytes are
counted as they come and go, above weights and gradients (`lm2.training.footprint`). Attention is counted as the kernel
that CPUs and GPUs use, which keeps no table of scores; rows are float32.
"""

import torch

from lm2 import LM2Config, LM2ForCausalLM
from lm2.training.footprint import row_bytes

SEGMENT_LENGTH = 256


def peak(segments: int, checkpointing: bool) -> int:
    """Bytes of one row's step."""
    config = LM2Config.preset("lm2-135m", segment_length=SEGMENT_LENGTH, bptt_segments=None)
    with torch.device("meta"):
        model = LM2ForCausalLM(config).train()
    return row_bytes(model, segments, checkpointing)


def main() -> None:
    for segments, checkpointing in ((8, False), (8, True), (64, True)):
        name = "with checkpointing" if checkpointing else "without"
        print(f"{segments:3} segments of {SEGMENT_LENGTH}, {name}: {peak(segments, checkpointing) / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
