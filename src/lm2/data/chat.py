"""Conversations as training rows: each as the model's chat format writes it, and only the assistant's words labelled.

A row is S segments. A conversation longer than a segment takes whole segments, short ones share one, and none goes on
in the next row: what is asked at the end of a long document is asked with the document before it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm2.data.order import key_of, permuted
from lm2.data.packing import IGNORED, lay_out, window_starts
from lm2.data.sources import checked, damage_named
from lm2.progress import TimeLeft

if TYPE_CHECKING:
    from lm2.training import BatchRequest


def conversations(path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Place and messages of each line of a JSONL file: `messages`, and a `document` that goes before the first.

    Raises:
        ValueError: a line that is no conversation (named), none at all, or a file that is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a JSONL file with a conversation in `messages` on each line")
    count = 0
    with damage_named(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                count += 1
                yield f"{path}:{number}", _messages(line, f"{path}:{number}")
    if not count:
        raise ValueError(f"{path} holds 0 conversations: give a file with one on each line")


def _messages(line: str, where: str) -> list[dict[str, str]]:
    try:
        row = json.loads(line)
        messages = [{"role": str(m["role"]), "content": m["content"]} for m in row["messages"]]
        sound = all(isinstance(m["content"], str) for m in messages)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ValueError(
            f"{where}: expected a JSON object whose `messages` have a role and a content, found {line[:60]!r}: repair "
            "the line or remove it"
        )
    if not any(m["role"] == "assistant" for m in messages):
        raise ValueError(f"{where} has {len(messages)} messages and 0 of the assistant: there is nothing to learn")
    document = row.get("document")
    if document is not None and not isinstance(document, str):
        raise ValueError(f"{where}: `document` holds {type(document).__name__}, not text: repair the line or remove it")
    if document is not None:
        first = next(m for m in messages if m["role"] != "system")
        first["content"] = f"{document}\n\n{first['content']}"
    for message in messages:
        checked("".join(message.values()), where)
    return messages


def encode(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[Any, Any]:
    """(ids, labels) of a conversation, with labels on what the assistant says and on the mark that ends it.

    Raises:
        ValueError: the chat format refuses it, or writes the beginning of a conversation in another way than the whole.
    """

    def written(n: int, prompt: bool) -> list[int]:
        try:
            ids = tokenizer.apply_chat_template(messages[:n], add_generation_prompt=prompt, return_dict=False)
        except TemplateError as error:
            raise ValueError(
                f"{where}: the chat format refuses the conversation ({error}): change it, or leave it out"
            ) from error
        return cast("list[int]", ids)

    ids = written(len(messages), False)
    labels = [IGNORED] * len(ids)
    for n, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(written(n, True)), len(written(n + 1, False))
            if ids[:end] != written(n + 1, False) or ids[:start] != written(n, True):
                raise ValueError(
                    f"{where}: the chat format writes message {n + 1} of {len(messages)} in another way when more "
                    "follow: use a tokenizer whose chat template only appends"
                )
            labels[start:end] = ids[start:end]
    return np.array(ids, np.int64), np.array(labels, np.int64)


@dataclass(frozen=True, kw_only=True)
class ChatRows:
    """Makes the batches of a run: input_ids, labels and position_ids, each (rows, segments T).

    Args:
        path: of the JSONL file.
        tokenizer: of the model; it needs a chat template.

    Raises:
        ValueError: a line that is no conversation, no chat template, or no conversation that fits into a row.
    """

    path: InitVar[Path]
    tokenizer: InitVar[PreTrainedTokenizerBase]
    segment_length: int
    """T of the model"""
    segments: int
    """S, segments of a row"""
    rows_per_step: int
    data: str = field(init=False)
    """Digest of all tokens and labels: other data is another run"""
    left_out: int = field(init=False, compare=False)
    """Conversations that are longer than a row"""

    def __post_init__(self, path: Path, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.chat_template is None:
            raise ValueError(
                "the tokenizer has no chat template: set tokenizer.chat_template and save it into the model's folder, "
                "or give a model that was trained to chat"
            )
        with TimeLeft(transient=True) as progress:
            found = progress.track(conversations(path), description="reading conversations")
            encoded = [encode(messages, tokenizer, where) for where, messages in found]
        longest = self.segments * self.segment_length
        kept = [pair for pair in encoded if len(pair[0]) <= longest]
        if not kept:
            raise ValueError(
                f"{path}: the shortest of {len(encoded)} conversations has {min(len(ids) for ids, _ in encoded):,} "
                f"tokens, and a row of {self.segments} segments has {longest:,}: use more segments"
            )
        ids, labels = (np.concatenate(part) for part in zip(*kept, strict=True))
        offsets = np.cumsum([0, *(len(one) for one, _ in kept)])
        starts = window_starts(offsets, self.segment_length)
        vars(self).update(_ids=ids, _labels=labels, _offsets=offsets, _starts=starts, left_out=len(encoded) - len(kept))
        vars(self)["data"] = hashlib.sha256(ids.tobytes() + labels.tobytes() + offsets.tobytes()).hexdigest()
        vars(self).update(_rows=_grouped(starts, offsets, self.segments), _pad=tokenizer.eos_token_id or 0)

    def __len__(self) -> int:
        """Rows of one pass over the data."""
        return len(vars(self)["_rows"])

    def __call__(self, request: "BatchRequest") -> dict[str, Tensor]:
        rows = [self._row(request.seed, request.step * self.rows_per_step + row) for row in request.rows]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def _row(self, seed: int, count: int) -> dict[str, np.ndarray]:
        """Row `count` of the run: every pass has an order of its own."""
        own, n = vars(self), len(self)
        first, last = own["_rows"][permuted(count % n, n, key_of("chat", seed, count // n))]
        starts, offsets = own["_starts"][first : last + 1], own["_offsets"]
        inside = offsets[np.searchsorted(offsets, starts[0], "right") : np.searchsorted(offsets, starts[-1])]
        place = (starts - starts[0], inside - starts[0], self.segments * self.segment_length, self.segment_length)
        text = lay_out(own["_ids"][starts[0] : starts[-1]], *place, own["_pad"])
        labels = lay_out(own["_labels"][starts[0] : starts[-1]], *place, IGNORED).labels
        return {"input_ids": text.input_ids, "labels": labels, "position_ids": text.position_ids}


def _grouped(starts: np.ndarray, offsets: np.ndarray, segments: int) -> list[tuple[int, int]]:
    """Rows as (first window, one after the last): as many windows as fit, without cutting a conversation."""
    borders = np.flatnonzero(np.isin(starts, offsets)).tolist()
    rows, first = [], 0
    for here, after in pairwise(borders):
        if after - first > segments:
            rows.append((first, here))
            first = here
    return [*rows, (first, borders[-1])]
