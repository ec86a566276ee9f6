"""What an evaluation keeps while it runs: finished pieces of work, one JSON line each, in a folder.

A record is appended and flushed as soon as its piece is finished, so a killed run loses at most the piece it was in,
and the same command goes on with the others. Under `torchrun` or `accelerate launch` each process writes a file of its
own and takes every `world`-th piece; afterwards the first one reads them all, so the result is that of one process.
"""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from lm2.files import append_line
from lm2.processes import share

SCHEMA = 1
"""Version of the record and report files; a file of another version is refused."""
Piece = TypeVar("Piece")


def mine(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of work that this process takes: number i goes to process i mod world."""
    rank, world = share()
    return list(pieces[rank::world])


def wait_for_all() -> None:
    """Return when every process has come here; at once when there is only one."""
    if share()[1] == 1:
        return
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()


class Records:
    """The finished pieces of one evaluation.

    Args:
        folder: made if it is missing.
        settings: what the numbers depend on; kept in the first line of each file.

    Raises:
        ValueError: the folder holds records of other settings or of another version, or a damaged line.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, json.loads(json.dumps(settings))
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"records.{share()[0]}.jsonl"
        self.done = self._by_key()

    def __contains__(self, key: Sequence[Any]) -> bool:
        return tuple(key) in self.done

    def read(self) -> list[dict[str, Any]]:
        """All records of the folder, those of other processes too."""
        return [record for path in sorted(self.folder.glob("records.*.jsonl")) for record in self._read_file(path)]

    def each(self) -> list[dict[str, Any]]:
        """One record of each piece: two commands that run at a time in one folder may both have written it."""
        return list(self._by_key().values())

    def _by_key(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {tuple(record["key"]): record for record in self.read()}

    def add(self, key: Sequence[Any], record: dict[str, Any]) -> None:
        """Write a finished piece; `key` says which one it is."""
        _drop_unfinished_line(self.path)
        if not self.path.exists() or not self.path.stat().st_size:
            append_line(self.path, {"schema": SCHEMA, "settings": self.settings})
        record = {"key": list(key), **record}
        append_line(self.path, record)
        self.done[tuple(key)] = record

    def _read_file(self, path: Path) -> Iterator[dict[str, Any]]:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")  # what follows the last line end was never finished
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                assert isinstance(value, dict)
            except (ValueError, AssertionError):
                raise ValueError(
                    f"{path}:{number} is damaged ({line[:40]!r}): remove the file, and its part is run again"
                ) from None
            if number == 1:
                self._check_header(path, value)
            else:
                yield value

    def _check_header(self, path: Path, header: dict[str, Any]) -> None:
        if header.get("schema") != SCHEMA:
            raise ValueError(
                f"{path} is of version {header.get('schema')}, this program writes version {SCHEMA}: "
                "choose another --out folder"
            )
        then = header.get("settings", {})
        names = sorted({*then, *self.settings})
        changed = [
            f"{name}: {then.get(name)} then, {self.settings.get(name)} now"
            for name in names
            if then.get(name) != self.settings.get(name)
        ]
        if changed:
            raise ValueError(f"{path} is of other settings ({'; '.join(changed)}): choose another --out folder")


def _drop_unfinished_line(path: Path) -> None:
    """Cut off what a killed process wrote of its last line."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":  # hence the whole file is read once, and not for every piece
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
