"""`lm2 export CHECKPOINT OUT`: a model folder from a training checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lm2.progress import quiet

EXAMPLES = (
    "lm2 export runs/one/checkpoint-1000 my-lm2",
    "lm2 export runs/one/shards-1000 my-lm2 --tokenizer SmolLM2-135M-Instruct",
)
STOPPED = "The new folder appears only when it is complete, so nothing was written."


@dataclass(frozen=True)
class Options:
    """Write the model of a checkpoint, whole or in shards, as one folder of safetensors, and compare each weight."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """The checkpoint's folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to make."""
    tokenizer: str | None = None
    """Folder or hub name whose tokenizer goes along; the checkpoint's own when not given."""


def run(options: Options) -> None:
    """Export, and say what was made."""
    from lm2.training.export import export

    quiet()
    export(options.checkpoint, options.out, options.tokenizer)
    print(f"Saved {options.out}; each weight was read back and is the checkpoint's.")
