"""`lm2 data check DIR`: read a whole token store and compare every shard with its digest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

EXAMPLES = ("lm2 data check data/books", "lm2 data check data/smollm --segment-length 2048")
STOPPED = "Nothing was changed."


@dataclass(frozen=True)
class Options:
    """Read every shard of a token store, name the first that is corrupt, and print what the store holds."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that `lm2 data prepare` has made."""
    segment_length: int = 512
    """Tokens of a segment that the share of pads is counted for."""


def run(options: Options) -> None:
    """Check, and print the table."""
    from lm2.data import report
    from lm2.data.store import Store
    from lm2.progress import TimeLeft

    if options.segment_length < 2:
        raise ValueError(f"--segment-length is {options.segment_length}: it must be at least 2")
    store = Store(options.store)
    shards = sum(map(len, store.shards.values()))
    with TimeLeft() as progress:
        for _ in progress.track(store.verify(), shards, description="reading"):
            pass
    print(f"{options.store}: {shards} shards are sound; fingerprint {store.fingerprint[:16]}\n")
    print(report.table(store, options.segment_length))
