"""Small token stores made from lists of ids, without a tokenizer."""

from pathlib import Path

import numpy as np

from lm2.data.store import Shard, Store, finish, write_shard

TOKENIZER = {"name": "tiny", "fingerprint": "f" * 64, "vocabulary": 61, "opening": [], "closing": [1]}


def documents_of(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 61, length) for length in lengths]


def make_store(folder: Path, sources: dict[str, list[np.ndarray]], shard_tokens: int = 10**9, weights=None) -> Store:
    (folder / "shards").mkdir(parents=True)
    listed = []
    for number, (name, documents) in enumerate(sources.items()):
        shards: list[Shard] = []
        rest = iter(documents)
        while not shards or not shards[-1].last:
            stem = folder / "shards" / f"{number:02d}-000000-{len(shards):04d}"
            shards.append(write_shard(stem, rest, "<u2", shard_tokens))
        kept = [shard for shard in shards if shard.documents]
        weight = weights[name] if weights else None
        listed.append({"name": name, "place": name, "revision": None, "weight": weight, "left_out": 0, "shards": kept})
    return finish(folder, TOKENIZER, "<u2", listed)
