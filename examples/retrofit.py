"""Give a pretrained model a memory in a third of its blocks, check that it still is the same model, and save it.

    python examples/retrofit.py BASE OUT

BASE is a folder saved with `save_pretrained`, a GGUF file or a Hugging Face hub name; OUT is the folder to make.
"""

import sys

import torch
from transformers import AutoModelForCausalLM

import lm2
from lm2.gguf import load_base
from lm2.retrofit import convert


def main(base_place: str, out: str) -> None:
    # docs: start-add-memory
    base, _ = load_base(base_place)
    blocks = range(0, base.config.num_hidden_layers, 3)
    model = lm2.add_memory(base, memory_slots=32, segment_length=64, memory_layers=blocks)
    # docs: end-add-memory

    # docs: start-same-logits
    token_ids = torch.arange(1, 17)[None]  # any input of at most one segment
    with torch.no_grad():
        difference = (model(token_ids).logits - base(token_ids).logits).abs().max()
    print(f"largest difference of a logit to the base: {difference:.1e}")
    # docs: end-same-logits

    # docs: start-convert
    folder = convert(base_place, out, memory_slots=32, segment_length=64, memory_layers=blocks)
    model = AutoModelForCausalLM.from_pretrained(folder)  # `import lm2` has registered the class
    # docs: end-convert
    memory = sum(parameter.numel() for name, parameter in model.named_parameters() if ".memory." in name)
    print(f"{folder}: {model.num_parameters():,} parameters, {memory:,} of them in {len(blocks)} banks' projections")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
