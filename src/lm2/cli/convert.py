"""`lm2 convert BASE OUT`: a pretrained model with memory added."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lm2.progress import quiet

EXAMPLES = (
    "lm2 convert SmolLM2-135M-Instruct.gguf smollm2-lm2",
    "lm2 convert ./llama-3.2-1b ./llama-lm2 --memory-slots 256 --segment-length 512 --memory-layers 3 7 11",
)
STOPPED = "The new folder appears only when it is complete, so nothing was written."


@dataclass(frozen=True)
class Options:
    """Add memory to a pretrained model and save the result.

    Until it is trained, its outputs on texts of up to one segment are the base's.
    """

    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The base model: a folder, a hub name, or a GGUF file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to make."""
    memory_slots: int = 128
    """Slots of each bank."""
    segment_length: int = 512
    """Tokens of a segment: self-attention stays inside it, the memory is written at its end."""
    memory_layers: tuple[int, ...] | None = None
    """Indices of the blocks that get memory; all when not given, none for --memory-layers without a number."""
    memory_heads: int | None = None
    """Heads of the memory read; the base's attention heads when not given."""
    memory_key_value_heads: int | None = None
    """Key and value heads of the memory read, shared by groups of its heads; as many as heads when not given."""
    memory_topk: int | None = None
    """Slots that each token may read; all when not given."""
    look_back: int = 0
    """Tokens before a segment that its self-attention sees too."""
    bptt_segments: int | None = None
    """Segments that a gradient crosses in training, at least 2; all when not given."""


def run(options: Options) -> None:
    """Convert, and say what was made."""
    from dataclasses import asdict

    from lm2.folders import has_tokenizer
    from lm2.retrofit import convert

    quiet()
    settings = asdict(options)
    folder = convert(settings.pop("base"), settings.pop("out"), **settings)
    if not has_tokenizer(folder):
        print(f"{options.base} has no tokenizer, so {folder} has none either: save one there before it is used.")
    print(f"Saved {options.out}. Load it with: import lm2; AutoModelForCausalLM.from_pretrained('{options.out}')")
