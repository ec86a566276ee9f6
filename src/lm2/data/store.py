"""A token store: documents as token ids on disk, memory-mapped, in shards.

    store.json            schema version, tokenizer, sources, shards with their counts and digests
    plan.json             what the store is made from; see `lm2.data.prepare`
    shards/NAME.tokens    little-endian uint16 (vocabularies up to 65,536) or uint32, one document after the other
    shards/NAME.index     little-endian int64: where each document starts, and the end of the last
    windows-T/NAME.starts the packing for segments of T tokens; see `lm2.data.packing`

Files are written beside and renamed; nothing in a store changes once `store.json` is there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.encoding import fingerprint
from lm2.files import replacing, write_json

SCHEMA = 1
STORE_FILE, PLAN_FILE = "store.json", "plan.json"
OFFSET = "<i8"


@dataclass(frozen=True)
class Shard:
    """Counts of a shard. `read`: rows of the part read for it; `last`: the part has no more."""

    name: str
    documents: int
    tokens: int
    left_out: int
    read: int
    last: bool
    sha256: str


def write_shard(stem: Path, documents: Iterable[np.ndarray | None], dtype: str, limit: int) -> Shard:
    """Write documents (None: one that is left out) until `limit` tokens are reached or there are no more.

    Raises:
        OSError: the disk is full; no partial file stays.
    """
    digest, offsets, left_out, last = hashlib.sha256(), [0], 0, True
    with replacing(stem.with_suffix(".tokens")) as beside, open(beside, "wb") as file:
        for ids in documents:
            if ids is None:
                left_out += 1
                continue
            data = ids.astype(dtype, copy=False).tobytes()
            file.write(data)
            digest.update(data)
            offsets.append(offsets[-1] + len(ids))
            if offsets[-1] >= limit:
                last = False
                break
    index = np.array(offsets, OFFSET).tobytes()
    digest.update(index)
    with replacing(stem.with_suffix(".index")) as beside:
        beside.write_bytes(index)
    count = len(offsets) - 1
    return Shard(stem.name, count, offsets[-1], left_out, count + left_out, last, digest.hexdigest())


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError for a file that is no JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and prepare the data again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged (no JSON object): remove it and prepare the data again")
    return values


class Store:
    """A finished token store. Opening it looks at sizes only; `verify` reads everything.

    Raises:
        ValueError: no store, an unfinished one, one of another schema version, or a shard that is missing or cut short.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.facts = read_json(_finished(self.folder))
        if self.facts.get("schema") != SCHEMA:
            raise ValueError(
                f"{folder} has schema version {self.facts.get('schema')} and this version of lm2 reads {SCHEMA}: "
                "prepare the data again"
            )
        self.dtype = np.dtype(self.facts["dtype"])
        self.shards = {
            source["name"]: [Shard(**shard) for shard in source["shards"]] for source in self.facts["sources"]
        }
        for shard in self._all():
            self._check_size(shard)

    def __reduce__(self):
        return Store, (str(self.folder),)  # a worker maps the files itself instead of getting copies

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.shards)

    @property
    def n_documents(self) -> int:
        return sum(shard.documents for shard in self._all())

    @property
    def n_tokens(self) -> int:
        return sum(shard.tokens for shard in self._all())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tokenizer and every shard: the same data, wherever the folder lies."""
        shards = [[name, [shard.sha256 for shard in shards]] for name, shards in self.shards.items()]
        facts = [self.facts["tokenizer"]["fingerprint"], self.facts["dtype"], shards]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        """What fills columns that hold no token; any id does, since nobody looks at it."""
        return (*self.facts["tokenizer"]["closing"], 0)[0]

    def tokens(self, shard: Shard) -> np.ndarray:
        """All tokens of a shard, mapped."""
        return np.memmap(self.path(shard, ".tokens"), self.dtype, "r")

    def offsets(self, shard: Shard) -> np.ndarray:
        """(documents + 1,): where each document starts, and the end of the last, mapped."""
        return np.memmap(self.path(shard, ".index"), OFFSET, "r")

    def documents(self, source: str) -> Iterator[np.ndarray]:
        """The documents of a source, in order."""
        for shard in self.shards[source]:
            tokens, offsets = self.tokens(shard), self.offsets(shard)
            yield from (tokens[start:end] for start, end in pairwise(offsets))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ValueError if the store was made with another tokenizer."""
        made, now = self.facts["tokenizer"], fingerprint(tokenizer)
        if made["fingerprint"] != now:
            raise ValueError(
                f"{self.folder} was made with the tokenizer {made['name']} ({made['vocabulary']} ids, fingerprint "
                f"{made['fingerprint'][:12]}), not with this one ({len(tokenizer)} ids, {now[:12]}): use that "
                "tokenizer, or prepare the data again"
            )

    def verify(self) -> Iterator[Shard]:
        """Read every shard and compare its digest; yields each one that is sound.

        Raises:
            ValueError: a shard whose bytes have changed (named).
        """
        for shard in self._all():
            digest = hashlib.sha256()
            for suffix in (".tokens", ".index"):
                with open(self.path(shard, suffix), "rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
            if digest.hexdigest() != shard.sha256:
                raise ValueError(
                    f"{self.path(shard, '.tokens')} is corrupt (digest {digest.hexdigest()[:12]}, written as "
                    f"{shard.sha256[:12]}): copy it anew, or prepare the data again"
                )
            yield shard

    def path(self, shard: Shard, suffix: str) -> Path:
        return self.folder / "shards" / f"{shard.name}{suffix}"

    def _all(self) -> Iterator[Shard]:
        return (shard for shards in self.shards.values() for shard in shards)

    def _check_size(self, shard: Shard) -> None:
        sizes = {".tokens": shard.tokens * self.dtype.itemsize, ".index": (shard.documents + 1) * 8}
        for suffix, size in sizes.items():
            path = self.path(shard, suffix)
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                raise ValueError(
                    f"{path} has {found:,} bytes and must have {size:,}: it is cut short or missing; copy it anew, or "
                    "prepare the data again"
                )


def _finished(folder: Path) -> Path:
    """The path of `store.json`."""
    path = folder / STORE_FILE
    if path.is_file():
        return path
    if (folder / PLAN_FILE).is_file():
        raise ValueError(f"{folder} holds an unfinished token store: give its `lm2 data prepare` command again")
    raise ValueError(
        f"{folder} holds no token store: make one with `lm2 data prepare SOURCE --tokenizer T --out {folder}`"
    )


def finish(folder: Path, tokenizer: dict[str, Any], dtype: str, sources: list[dict[str, Any]]) -> Store:
    """Write `store.json`, which makes the store complete. Each source has its `shards`, empty ones already left out."""
    listed = [{**source, "shards": [asdict(shard) for shard in source["shards"]]} for source in sources]
    write_json(folder / STORE_FILE, {"schema": SCHEMA, "dtype": dtype, "tokenizer": tokenizer, "sources": listed})
    return Store(folder)
