"""`lm2 eval mmlu MODEL ...`: MMLU through lm-evaluation-harness, from the hub or from CSV files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

EXAMPLES = (
    "lm2 eval mmlu smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --data mmlu.zip",
    "lm2 eval mmlu smollm2-lm2 --data mmlu.zip --limit 10 --subjects anatomy virology --out runs/quick",
    "lm2 eval mmlu HuggingFaceTB/SmolLM2-135M --batch-size 8 --anchors",
)
STOPPED = "Finished subjects are kept; the same command goes on with the others."


@dataclass(frozen=True)
class Options:
    """Five-shot MMLU by log-likelihood, as lm-evaluation-harness does it (extra: harness).

    Prints and writes the harness's groups and average, and the eight rows of the LM2 paper, to OUT/mmlu.md and
    OUT/mmlu.json. Under torchrun or accelerate launch the subjects are shared out among the processes.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Models, each [NAME=]SOURCE: a folder, a GGUF file or a hub name."""
    data: Path | None = None
    """Folder or zip with dev/ and test/ CSV files; the hub's data when not given."""
    subjects: tuple[str, ...] | None = None
    """Subjects to ask; all 57 when not given."""
    general: tuple[str, ...] | None = None
    """Subjects of the paper's row "general knowledge"; those without a difficulty in their name when not given."""
    shots: int = 5
    """Worked examples before each question, 0 to 5."""
    limit: int | None = None
    """Ask only the first so many questions of each subject."""
    batch_size: int = 1
    """Questions that run at once."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto is float32 on a CPU and bfloat16 on a GPU."""
    device: str | None = None
    """Where to run, such as cuda:1; the GPU if there is one when not given."""
    out: Path = Path("runs/mmlu")
    """Folder of the results; a run that was stopped goes on from what is there."""
    anchors: bool = False
    """Show the paper's numbers beside ours."""


def run(options: Options) -> None:
    """Evaluate, and print the tables."""
    from dataclasses import asdict

    from lm2.evaluation import mmlu

    chosen = {name: value for name, value in asdict(options).items() if value is not None}
    mmlu.run(mmlu.MmluOptions(**chosen))
