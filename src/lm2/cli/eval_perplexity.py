"""`lm2 eval perplexity MODEL ... --text FILE`: what a memory saves, segment by segment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

EXAMPLES = (
    "lm2 eval perplexity smollm2-lm2 plain=SmolLM2-135M-Instruct.gguf --text books/test.jsonl.gz",
    "lm2 eval perplexity smollm2-lm2 --text novel.txt --segments 16 --out runs/novel",
)
STOPPED = "Finished documents are kept; the same command goes on with the others."


@dataclass(frozen=True)
class Options:
    """Perplexity by the number of the segment in its document, with the memory carried and reset.

    Writes OUT/perplexity.md, .json and .png. A plain model is one row, under full attention up to the length that it
    takes. Under torchrun or accelerate launch the documents are shared out among the processes.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")]
    """Models, each [NAME=]SOURCE: a folder, a GGUF file or a hub name."""
    text: Path
    """A .txt file (one document), a .jsonl or .jsonl.gz file (a document a line, in `text`), or a folder of them."""
    segments: int = 64
    """Segments of each document to measure, from its start."""
    segment_length: int | None = None
    """Tokens of a segment; that of the models with a memory when not given, or 512."""
    limit: int | None = None
    """Measure only the first so many documents."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto is float32 on a CPU and bfloat16 on a GPU."""
    device: str | None = None
    """Where to run, such as cuda:1; the GPU if there is one when not given."""
    out: Path = Path("runs/perplexity")
    """Folder of the results; a run that was stopped goes on from what is there."""


def run(options: Options) -> None:
    """Measure, and print the table."""
    from dataclasses import asdict

    from lm2.evaluation import perplexity

    perplexity.run(perplexity.PerplexityOptions(**asdict(options)))
