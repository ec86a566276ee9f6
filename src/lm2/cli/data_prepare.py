"""`lm2 data prepare SOURCE ... --tokenizer T --out DIR`: documents into a token store for training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

EXAMPLES = (
    "lm2 data prepare books=books/train.jsonl.gz --tokenizer SmolLM2-135M-Instruct.gguf --out data/books",
    "lm2 data prepare web=pages/@3 code=code.parquet@1 --tokenizer ./tokenizer --out data/mix --processes 8",
    "lm2 data prepare hub:HuggingFaceFW/fineweb-edu/sample-10BT --tokenizer HuggingFaceTB/SmolLM2-135M --out data/web",
    "lm2 data prepare smollm-corpus --tokenizer meta-llama/Llama-3.2-1B --out data/smollm --segment-length 2048",
)
STOPPED = "Finished shards are kept; the same command goes on behind them."


@dataclass(frozen=True)
class Options:
    """Tokenize documents into a memory-mapped store that training reads by arithmetic.

    Each document gets the tokenizer's start token if it puts one before a text, and its end token if it has one. Empty
    documents, and those with nothing to predict, are counted and left out. Prints a table of what the store holds.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE ...")]
    """Each [NAME=]PLACE[@WEIGHT]: a .jsonl, .jsonl.gz, .parquet or .txt file, a folder of them, a data set of the hub
    as hub:OWNER/NAME[/CONFIG[/SPLIT]], or the name of a corpus (smollm-corpus). Weights are shares of the rows when
    training; without them a source has its share of the tokens."""
    tokenizer: str
    """A folder with a tokenizer, a GGUF file or a hub name."""
    out: Path
    """Folder of the store; a run that was stopped goes on from what is there."""
    column: str = "text"
    """Where rows of JSONL, Parquet and the hub have their text."""
    segment_length: int = 512
    """Tokens of a segment (the model's own) that documents are packed for; others can be asked for when training."""
    limit: int | None = None
    """Take about so many documents of each source, to try things out."""
    processes: int | None = None
    """How many work at once; as many as there are processors when not given."""
    shard_tokens: int = 1 << 27
    """Tokens of a shard."""


def run(options: Options) -> None:
    """Make the store, and print what it holds."""
    from lm2.data import report
    from lm2.data.corpora import CORPORA
    from lm2.data.encoding import load_tokenizer
    from lm2.data.prepare import prepare
    from lm2.data.sources import Source, parse_source
    from lm2.progress import quiet

    if options.segment_length < 2:
        raise ValueError(f"--segment-length is {options.segment_length}: it must be at least 2")
    quiet()
    sources: list[Source] = []
    for text in options.sources:
        sources += CORPORA[text]() if text in CORPORA else [parse_source(text, options.column)]
    store = prepare(
        sources,
        load_tokenizer(options.tokenizer),
        options.out,
        tokenizer_name=options.tokenizer,
        processes=options.processes,
        shard_tokens=options.shard_tokens,
        limit=options.limit,
    )
    print(f"{options.out}: {store.n_documents:,} documents, {store.n_tokens:,} tokens\n")
    print(report.table(store, options.segment_length))
