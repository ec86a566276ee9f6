"""Documents from anywhere into a token store, in several processes; a run that was stopped goes on.

A part of a source becomes one or more shards, written in order. A shard's record is written after its data, so what has
a record is whole, and a stopped run goes on behind the last one of each part. What a shard holds depends on nothing but
the plan: an interrupted run ends in the same bytes as any other.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.encoding import DocumentEncoder
from lm2.data.sources import Part, Source
from lm2.data.store import PLAN_FILE, SCHEMA, STORE_FILE, Shard, Store, finish, read_json, write_shard
from lm2.files import write_json
from lm2.held import held
from lm2.progress import counted

SHARD_TOKENS = 1 << 27
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1000, 4_000_000
"""Documents that are encoded together."""

Report = Callable[[float], None]
"""Is told the share of a part that is done; may raise to stop it."""


@dataclass(frozen=True)
class Job:
    """What a process needs to turn one part into shards."""

    folder: Path
    stem: str
    part: Part
    encoder: DocumentEncoder
    shard_tokens: int
    limit: int | None


def prepare(
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    *,
    tokenizer_name: str = "",
    processes: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    limit: int | None = None,
) -> Store:
    """Make the token store `out`, or go on with it.

    Args:
        sources: documents, by name; all of them have a weight for training, or none has.
        tokenizer_name: what error messages call the tokenizer.
        processes: at most this many work at once; None for the number of processors.
        shard_tokens: a shard is closed by the document that reaches this many.
        limit: take about this many documents of each source, the first ones of each of its parts.

    Raises:
        ValueError: sources that cannot be read or are empty, or a folder that holds something else or in which another
            process works.
        OSError: the disk is full. Finished shards stay.
    """
    for name, value in (("processes", processes), ("shard_tokens", shard_tokens), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    _check_sources(sources)
    folder = Path(out)
    encoder = DocumentEncoder.of(tokenizer, tokenizer_name or tokenizer.name_or_path)
    saved = _saved_plan(folder)
    revisions = {source["name"]: source["revision"] for source in saved["sources"]} if saved else {}
    sources = [source.pinned(revisions.get(source.name)) for source in sources]
    parts = [source.parts() for source in sources]
    plan = _plan(sources, parts, encoder, shard_tokens, limit)
    if saved is None:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN_FILE, plan)
    else:
        _check_same_plan(folder, saved, plan)
    if (folder / STORE_FILE).is_file():
        return Store(folder)
    jobs = [
        [
            Job(folder, f"{s:02d}-{p:06d}", part, encoder, shard_tokens, limit and -(-limit // len(own)))
            for p, part in enumerate(own)
        ]
        for s, own in enumerate(parts)
    ]
    with held(folder):
        _work([job for own in jobs for job in own], min(processes or os.cpu_count() or 1, sum(map(len, jobs))))
        results = [_result(*pair) for pair in zip(sources, jobs, strict=True)]
        return finish(folder, encoder.facts, encoder.dtype, results)


def write_part(job: Job, report: Report) -> None:
    """Write the shards of a part that have no record yet."""
    done = finished_shards(job)
    if done and done[-1].last:
        return report(1.0)
    read = sum(shard.read for shard in done)
    documents = _encoded(islice(job.part.documents(), read, job.limit), job.encoder, report)
    for number in count(len(done)):
        stem = job.folder / "shards" / f"{job.stem}-{number:04d}"
        shard = write_shard(stem, documents, job.encoder.dtype, job.shard_tokens)
        write_json(stem.with_suffix(".json"), asdict(shard))
        if shard.last:
            return report(1.0)


def finished_shards(job: Job) -> list[Shard]:
    """The shards of a part that are whole, in order."""
    records = (job.folder / "shards" / f"{job.stem}-{number:04d}.json" for number in count())
    return [Shard(**read_json(path)) for path in takewhile(Path.is_file, records)]


def _encoded(
    texts: Iterator[tuple[str, float]], encoder: DocumentEncoder, report: Report
) -> Iterator[np.ndarray | None]:
    """Documents as ids, encoded many at a time."""
    batch: list[str] = []
    characters = 0
    for text, share in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield from encoder(batch)
            report(share)
            batch, characters = [], 0
    yield from encoder(batch)


def _check_sources(sources: Sequence[Source]) -> None:
    names = [source.name for source in sources]
    if not names:
        raise ValueError("there are 0 sources: name at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{names.count(twice[0])} sources are called {twice[0]!r}: name them apart with NAME=PLACE")
    weighted = [source.name for source in sources if source.weight is not None]
    if weighted and len(weighted) < len(names):
        raise ValueError(
            f"{len(weighted)} of {len(names)} sources have a weight ({', '.join(weighted)}): give every source one, "
            "or none"
        )


def _saved_plan(folder: Path) -> dict[str, Any] | None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose a folder for the token store")
    if (folder / PLAN_FILE).is_file():
        return read_json(folder / PLAN_FILE)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no token store: choose a new folder")
    return None


def _plan(
    sources: Sequence[Source], parts: list[list[Part]], encoder: DocumentEncoder, shard_tokens: int, limit: int | None
) -> dict[str, Any]:
    """Everything that the bytes of a store depend on."""
    described = [
        {**_description(source), "parts": [part.key for part in own]}
        for source, own in zip(sources, parts, strict=True)
    ]
    settings = {"shard_tokens": shard_tokens, "limit": limit}
    return {"schema": SCHEMA, "tokenizer": encoder.facts, **settings, "sources": described}


def _description(source: Source) -> dict[str, Any]:
    return {"name": source.name, "place": source.place, "revision": source.revision, "weight": source.weight}


def _check_same_plan(folder: Path, saved: dict[str, Any], plan: dict[str, Any]) -> None:
    """The tokenizer's name and the sources' places may differ: a folder may have moved."""
    changed = [
        f"{name}: {_short(before)} then, {_short(now)} now"
        for name in ("schema", "tokenizer", "shard_tokens", "limit", "sources")
        if (before := _compared(name, saved.get(name))) != (now := _compared(name, plan[name]))
    ]
    if changed:
        raise ValueError(
            f"{folder} was begun with other settings or files ({'; '.join(changed)}): give the same ones, or "
            "another folder"
        )


def _compared(name: str, value: Any) -> Any:
    if name == "tokenizer" and isinstance(value, dict):
        return value.get("fingerprint")
    if name == "sources" and isinstance(value, list):
        return [{key: item for key, item in source.items() if key != "place"} for source in value]
    return value


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(
            f"{s['name']} ({len(s['parts'])} parts with digest {_digest(s['parts'])}, weight {s['weight']})"
            for s in value
        )
    return str(value)[:12] if isinstance(value, str) else json.dumps(value)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _result(source: Source, jobs: list[Job]) -> dict[str, Any]:
    """What the store records of a source. Raises ValueError if it has no document."""
    shards = [shard for job in jobs for shard in finished_shards(job)]
    left_out = sum(shard.left_out for shard in shards)
    kept = [shard for shard in shards if shard.documents]
    if not kept:
        raise ValueError(
            f"the source {source.name} has 0 documents of two tokens or more ({left_out} are empty or shorter): "
            "check its files, or leave it out and choose another folder"
        )
    return {**_description(source), "left_out": left_out, "shards": kept}


def _work(jobs: list[Job], processes: int) -> None:
    total = sum(job.part.size for job in jobs)
    with counted("tokenizing", total, speed_estimate_period=600) as advance:
        progress = _Progress(advance, [job.part.size for job in jobs])
        if processes == 1:
            for number, job in enumerate(jobs):
                write_part(job, lambda share, number=number: progress.set(number, share))
        else:
            _work_together(jobs, processes, progress)


class _Progress:
    """Counts parts of different sizes."""

    def __init__(self, advance: Callable[[float], None], sizes: list[int]):
        self.advance, self.sizes, self.shares = advance, sizes, [0.0] * len(sizes)

    def set(self, number: int, share: float) -> None:
        self.advance((share - self.shares[number]) * self.sizes[number])
        self.shares[number] = share


def _work_together(jobs: list[Job], processes: int, progress: _Progress) -> None:
    """The first error stops all processes, and is raised."""
    context = _context()
    shares, stop = context.Array("d", len(jobs), lock=False), context.Event()
    with ProcessPoolExecutor(processes, context, _start, (shares, stop)) as pool:
        waiting: set[Future[None]] = {pool.submit(_write_one, number, job) for number, job in enumerate(jobs)}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                for number, share in enumerate(shares):
                    progress.set(number, share)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _context() -> Any:
    """How processes are started: from one that has imported this module and nothing else has happened in.

    A fork of this process would copy locks that threads of the tokenizer hold.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


_shares: Any = None
_stop: Any = None


def _start(shares: Any, stop: Any) -> None:
    """Set up a worker process."""
    global _shares, _stop
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _shares, _stop = shares, stop


def _write_one(number: int, job: Job) -> None:
    def report(share: float) -> None:
        _shares[number] = share
        parent = multiprocessing.parent_process()
        if _stop.is_set() or parent is None or not parent.is_alive():
            raise InterruptedError("another process has stopped the work")

    report(0.0)
    write_part(job, report)
