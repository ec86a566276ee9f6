"""Data sets of the Hugging Face hub, read as streams: nothing is downloaded whole.

A part is one of the stream's own shards (its files). The revision is fixed to a commit when a run begins, so that going
on later reads the same rows. HF_HOME, HF_ENDPOINT and HF_TOKEN work as always.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lm2.data.sources import Part, text_of
from lm2.errors import in_a_line

UNKNOWN_SIZE = 256 << 20
"""Bytes that the progress bar takes a part for when the hub does not say."""


@dataclass(frozen=True)
class HubPart:
    """One shard of a stream."""

    source: "HubSource"
    index: int
    count: int
    expected: float | None
    """Rows, as far as the data set's card tells."""
    size: int

    @property
    def key(self) -> str:
        return json.dumps([self.source.column, self.index, self.count])

    def documents(self) -> Iterator[tuple[str, float]]:
        stream = self.source.stream().shard(num_shards=self.count, index=self.index)
        where = f"{self.source.place} (part {self.index + 1} of {self.count})"
        try:
            for read, row in enumerate(stream, 1):
                share = 0.0 if self.expected is None else min(1.0, read / self.expected)
                yield text_of(row, self.source.column, f"{where}, row {read}"), share
        except ValueError:
            raise
        except Exception as error:  # what the network, the file system and the file formats raise differs by version
            raise ValueError(
                f"{where} stopped ({in_a_line(error)[:200]}): give the same command again to go on"
            ) from error


@dataclass(frozen=True)
class HubSource:
    """A split of a data set on the hub; needs the package datasets (extra `data`).

    Args:
        repository: OWNER/NAME, or a local folder laid out like a data set.
        config: the subset; None for the only one.
        revision: a commit, branch or tag; None for the newest.
    """

    name: str
    repository: str
    config: str | None = None
    split: str = "train"
    column: str = "text"
    weight: float | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, place: str, name: str | None, column: str, weight: float | None) -> "HubSource":
        """From hub:OWNER/NAME[/CONFIG[/SPLIT]]. Raises ValueError for anything else."""
        words = place.removeprefix("hub:").split("/")
        if not 2 <= len(words) <= 4 or not all(words):
            raise ValueError(
                f"{place!r} names no data set of the hub: write hub:OWNER/NAME, hub:OWNER/NAME/CONFIG or "
                "hub:OWNER/NAME/CONFIG/SPLIT"
            )
        config, split = (*words[2:], None, None)[:2]
        return cls(name or config or words[1], "/".join(words[:2]), config, split or "train", column, weight)

    @property
    def place(self) -> str:
        return "/".join((f"hub:{self.repository}", self.config or "default", self.split))

    def pinned(self, revision: str | None) -> Self:
        if Path(self.repository).is_dir():
            return self
        return replace(self, revision=revision or self._newest())

    def parts(self) -> list[Part]:
        """Raises ValueError if the data set cannot be opened or lacks the column."""
        stream = self.stream()
        if stream.column_names is not None:
            text_of(dict.fromkeys(stream.column_names, ""), self.column, self.place)
        count = stream.num_shards
        split = (stream.info.splits or {}).get(self.split)
        rows = getattr(split, "num_examples", None)
        size = (getattr(split, "num_bytes", None) or 0) // count or UNKNOWN_SIZE
        return [HubPart(self, index, count, rows and rows / count, size) for index in range(count)]

    def stream(self) -> Any:
        """The split as an iterable data set."""
        try:
            from datasets import load_dataset
        except ImportError:
            raise ValueError("reading the hub needs the package datasets: pip install 'lm2[data]'") from None
        try:
            return load_dataset(self.repository, self.config, split=self.split, streaming=True, revision=self.revision)
        except Exception as error:  # as in HubPart.documents
            raise self._unreachable(error) from error

    def _newest(self) -> str:
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(self.repository, revision=self.revision).sha
        except Exception as error:  # the library behind the hub's client, and so its errors, differ by version
            raise self._unreachable(error) from error
        assert commit is not None
        return commit

    def _unreachable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.place} could not be opened ({in_a_line(error)[:200]}): check its name, subset, split and the "
            "network, or give a folder with its files"
        )
