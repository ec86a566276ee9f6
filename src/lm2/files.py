"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """A path beside `path` to write to: renamed to `path` when the block ends well, removed when it does not.

    Raises:
        OSError: the folder is missing or the disk is full; no partial file stays.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Write JSON values, indented by two and with a line's end, as `replacing` does.

    Raises:
        OSError: the folder is missing or the disk is full; what was there stays.
    """
    with replacing(path) as beside:
        beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
