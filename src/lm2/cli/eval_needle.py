"""`lm2 eval needle MODEL ...`: a pass key in a long text, by depth and length."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

EXAMPLES = (
    "lm2 eval needle smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --lengths 1024 4096",
    "lm2 eval needle smollm2-lm2 base=./smollm2@window:1024 --text books --samples 20 --out runs/books",
)
STOPPED = "Finished samples are kept; the same command goes on with the others."


@dataclass(frozen=True)
class Options:
    """Find a pass key in a long text, by the depth at which it lies and the length of the text.

    Writes OUT/needle.md, .json and a heat map. Under torchrun or accelerate launch the samples are shared out among the
    processes.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Models, each [NAME=]SOURCE[@KIND[:NUMBER]] as for lm2 eval babilong."""
    lengths: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Lengths of the whole prompt, in GPT-2 tokens."""
    depths: tuple[int, ...] = (0, 25, 50, 75, 100)
    """Per cent of the text before the key."""
    samples: int = 10
    """Samples of each length and depth."""
    text: Path | None = None
    """Books around the key (.txt, .jsonl, .jsonl.gz or a folder); five sentences over and over when not given."""
    seed: int = 0
    """Seed of the keys and of the text."""
    chat: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the prompt as a user's message, in the model's chat format."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto is float32 on a CPU and bfloat16 on a GPU."""
    device: str | None = None
    """Where to run, such as cuda:1; the GPU if there is one when not given."""
    out: Path = Path("runs/needle")
    """Folder of the results; a run that was stopped goes on from what is there."""


def run(options: Options) -> None:
    """Ask, and print the tables."""
    from dataclasses import asdict

    from lm2.evaluation import needle

    needle.run(needle.NeedleOptions(**asdict(options)))
