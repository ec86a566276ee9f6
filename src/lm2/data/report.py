"""What a token store holds, for a reader: counts, lengths of documents in segments, and the share of pads."""

import numpy as np

from lm2.data.packing import Windows
from lm2.data.store import Store

REACHES = (1, 2, 4, 16, 64)
"""Segments: how much of the text lies in documents of so many segments or more."""


def table(store: Store, T: int) -> str:
    """Markdown, a line for each source.

    The columns after the pads say which share of the tokens lies in documents longer than so many segments of T tokens:
    a memory can only learn from documents of more than one.
    """
    head = ["source", "documents", "left out", "tokens", "median length", "pads", *(f"> {n} segments" for n in REACHES)]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for source in store.facts["sources"]:
        lines.append([source["name"], f"{sum(s['documents'] for s in source['shards']):,}", f"{source['left_out']:,}"])
        lines[-1] += _measured(store, source["name"], T)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured(store: Store, source: str, T: int) -> list[str]:
    lengths = np.concatenate([np.diff(store.offsets(shard)) for shard in store.shards[source]])
    tokens = int(lengths.sum())
    beyond = [f"{lengths[lengths > n * T].sum() / tokens:.1%}" for n in REACHES]
    return [f"{tokens:,}", f"{int(np.median(lengths)):,}", f"{Windows(store, source, T).pad_share:.1%}", *beyond]
