"""Perplexity by the number of the segment in its document, with the memory carried and reset.

A memory that helps makes later segments easier than they are alone: `carried` falls below `reset` from the second
segment on. Scored are the second to the last token of every complete segment, so that both conditions, and a plain
model under full attention, predict the same tokens; the first token of a segment would be predicted from the segment
before it.

Shape suffixes: S segments of a chunk, T tokens of a segment, V vocabulary.
"""

import hashlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from lm2.data.background import TEXT_SUFFIXES, read_texts
from lm2.evaluation import perplexity_report
from lm2.evaluation.codec import Codec, codec_of
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.mmlu import describe, identity
from lm2.evaluation.models import ModelSpec, RunnerOptions, load_model, parse_specs, segment_length_of
from lm2.evaluation.options import PerplexityOptions
from lm2.evaluation.records import Records, wait_for_all
from lm2.evaluation.runners.attention import check_parts, max_positions
from lm2.evaluation.runners.memory import has_memory
from lm2.processes import is_first, share
from lm2.progress import counted

PLAIN_LENGTH = 512
"""Tokens of a segment when no model has segments of its own."""
TOKENS_AT_ONCE = 2048
"""Tokens whose logits exist at the same time (or one segment, if that is longer)."""
PIECE = 16_384
"""Characters of a document that are encoded at once."""


def run(options: PerplexityOptions) -> None:
    """Measure what has not been measured yet, and write the report.

    Raises:
        ValueError: a model or the text cannot be read, models that cannot be compared, or no document of one segment.
    """
    text_files(options.text)  # what is wrong with it is found before a model is loaded
    specs = parse_specs(options.models)
    T = common_length(specs, options.segment_length)
    digests: dict[int, tuple[str, str]] = {}
    asked = [measure_model(spec, options, T, digests) for spec in specs]
    wait_for_all()
    if is_first():
        perplexity_report.write(options, T, [(facts, records.each()) for facts, records in asked])


def common_length(specs: list[ModelSpec], wanted: int | None) -> int:
    """The segment length of all models.

    Raises:
        ValueError: two memory models have different ones, or one differs from the wanted length.
    """
    lengths = {spec.name: length for spec in specs if (length := segment_length_of(spec.source)) is not None}
    if wanted is not None:
        lengths["--segment-length"] = wanted
    if len(set(lengths.values())) > 1:
        named = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"segments must have one length to be compared, and there are {named}: measure them apart")
    return next(iter(lengths.values()), PLAIN_LENGTH)


def measure_model(
    spec: ModelSpec, options: PerplexityOptions, T: int, digests: dict[int, tuple[str, str]]
) -> tuple[dict[str, Any], Records]:
    """Measure this process's share of the documents; the model's description, and the finished documents.

    Args:
        digests: document -> (model, digest of its tokens), of the models before this one and filled by it.
    """
    if spec.kind not in (None, "full"):
        raise ValueError(f"perplexity is measured under full attention or with a memory: leave out @{spec.kind}")
    model, tokenizer = load_model(spec.source, RunnerOptions(dtype=options.dtype, device=options.device))
    codec, facts = codec_of(model, tokenizer, chat=False), describe(spec, model)
    check_parts(spec.name, model)
    if (limit := max_positions(model)) is not None and limit < T:
        raise ValueError(f"{spec.name} takes {limit:,} tokens, less than a segment of {T:,}: use a shorter one")
    records = Records(answers_folder(options.out, spec.name), {**options.settings(T), **identity(facts)})
    rank, world = share()
    with counted(spec.name, _expected(options, world)) as advance:
        for number, (name, text) in enumerate(documents(options.text, options.limit)):
            if number % world != rank:
                continue
            ids = list(islice(tokens(codec, text), options.segments * T))
            _check_same_tokens(spec.name, number, ids, digests)
            if (number,) not in records and len(ids) >= T:
                began = time.perf_counter()
                losses = score(model, torch.tensor(ids[: len(ids) // T * T]).view(-1, T))
                seconds = round(time.perf_counter() - began, 2)
                records.add((number,), {"document": name, "nll": losses, "seconds": seconds})
            advance(min(len(ids) // T, options.segments))
    return facts, records


def _expected(options: PerplexityOptions, world: int) -> int | None:
    """Segments that this process will measure, for the time left; an upper bound when documents are short."""
    count = sum(1 for _ in documents(options.text, options.limit))
    return -(-count // world) * options.segments


def _check_same_tokens(model: str, number: int, ids: list[int], digests: dict[int, tuple[str, str]]) -> None:
    digest = hashlib.sha256(str(ids).encode()).hexdigest()[:16]
    other, known = digests.setdefault(number, (model, digest))
    if known != digest:
        raise ValueError(
            f"{model} and {other} cut document {number + 1} into different tokens ({digest} and {known}), and "
            "perplexities per token cannot be compared then: measure them apart"
        )


def text_files(path: Path) -> list[Path]:
    """The file, or those of the folder.

    Raises:
        ValueError: nothing there.
    """
    if not path.exists():
        raise ValueError(f"there is no {path}: give a file ending in {', '.join(TEXT_SUFFIXES)}, or a folder of them")
    files = sorted(p for p in path.iterdir() if p.name.endswith(TEXT_SUFFIXES)) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds 0 files ending in {', '.join(TEXT_SUFFIXES)}: give a folder that has some")
    return files


def documents(path: Path, limit: int | None) -> Iterator[tuple[str, str]]:
    """Names and texts: a .txt file is a document, and so is each line of a .jsonl or .jsonl.gz file with a `text`.

    Blank ones are none.

    Raises:
        ValueError: nothing there, or a damaged file or line (which is named).
    """
    found = ((f"{file.name}:{n}", text) for file in text_files(path) for n, text in enumerate(read_texts(file), 1))
    yield from islice(found, limit)


def tokens(codec: Codec, text: str) -> Iterator[int]:
    """The tokens of a document, encoded as far as they are asked for."""
    yield from codec.start
    stream = codec.stream()
    for start in range(0, len(text), PIECE):
        stream, ids = stream.push(text[start : start + PIECE])
        yield from ids
    yield from stream.end()[1]


def score(model: PreTrainedModel, ids_ST: Tensor) -> dict[str, list[float]]:
    """The loss (mean of nats per scored token) of each segment of a document, by condition.

    `carried` and `reset` for a model with a memory; `full` for another one, up to the length that it takes.
    """
    ids_ST = ids_ST.to(model.device)
    if has_memory(model):
        return {"carried": _carried(model, ids_ST), "reset": _reset(model, ids_ST)}
    limit = max_positions(model)
    return {"full": _full(model, ids_ST if limit is None else ids_ST[: limit // ids_ST.shape[1]])}


def _chunks(ids_ST: Tensor) -> tuple[Tensor, ...]:
    return ids_ST.split(max(1, TOKENS_AT_ONCE // ids_ST.shape[1]))


def _losses(logits: Tensor, ids_ST: Tensor) -> list[float]:
    """L_s = -1/(T-1) sum_{t=2..T} log p(x_st | what came before)."""
    logits_STV = logits.reshape(*ids_ST.shape, -1)[:, :-1].float()
    losses_ST = F.cross_entropy(logits_STV.flatten(0, 1), ids_ST[:, 1:].flatten(), reduction="none")
    return losses_ST.view(len(ids_ST), -1).mean(1).tolist()


@torch.no_grad()
def _carried(model: PreTrainedModel, ids_ST: Tensor) -> list[float]:
    state, found = None, []
    for ids in _chunks(ids_ST):
        output = model(ids.reshape(1, -1), past_key_values=state, use_cache=True)
        state = output.past_key_values
        found += _losses(output.logits, ids)
    return found


@torch.no_grad()
def _reset(model: PreTrainedModel, ids_ST: Tensor) -> list[float]:
    return [loss for ids in _chunks(ids_ST) for loss in _losses(model(ids).logits, ids)]


@torch.no_grad()
def _full(model: PreTrainedModel, ids_ST: Tensor) -> list[float]:
    cache, found = DynamicCache(config=model.config), []
    for ids in _chunks(ids_ST):
        found += _losses(model(ids.reshape(1, -1), past_key_values=cache, use_cache=True).logits, ids)
    return found
