"""`lm2 eval ruler MODEL ...`: RULER's tasks through lm-evaluation-harness."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

EXAMPLES = (
    "lm2 eval ruler smollm2-lm2 --lengths 1024 --limit 20",
    "lm2 eval ruler smollm2-lm2 plain=./smollm2 --tasks niah_single_1 ruler_vt --lengths 4096 8192",
)
STOPPED = "Finished tasks are kept; the same command goes on with the others."


@dataclass(frozen=True)
class Options:
    """RULER's tasks that make their own texts, as lm-evaluation-harness runs them (extra: harness).

    Writes OUT/ruler.md and OUT/ruler.json. Under torchrun or accelerate launch the tasks are shared out among the
    processes.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Models, each [NAME=]SOURCE: a folder, a GGUF file or a hub name."""
    tasks: tuple[str, ...] | None = None
    """Tasks; the six that need no download when not given."""
    lengths: tuple[int, ...] = (4096,)
    """Lengths in the model's own tokens, its answer included."""
    limit: int | None = None
    """Only the first so many of the 500 samples of each task and length."""
    batch_size: int = 1
    """Samples that run at once."""
    seed: int = 0
    """Seed of the texts."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto is float32 on a CPU and bfloat16 on a GPU."""
    device: str | None = None
    """Where to run, such as cuda:1; the GPU if there is one when not given."""
    out: Path = Path("runs/ruler")
    """Folder of the results; a run that was stopped goes on from what is there."""


def run(options: Options) -> None:
    """Ask, and print the table."""
    from dataclasses import asdict

    from lm2.evaluation import ruler

    chosen = {name: value for name, value in asdict(options).items() if value is not None}
    ruler.run(ruler.RulerOptions(**chosen))
