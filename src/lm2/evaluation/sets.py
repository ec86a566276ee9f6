"""Which questions of bAbI's test files the released sets have.

Released samples are counted by row. A row is a question of the test file in order, after those with too many facts for
the length are left out. The 1,000-sample sets have all rows, save that the released generator lost the last one of
most tasks; the 100-sample sets have the rows listed in published_indices.json for qa1 to qa5, and the first 100 for the
other tasks, whose rows were not published.
"""

import json
from functools import cache
from pathlib import Path

from lm2.evaluation.tokens import RESERVED, n_tokens

SIZES = (100, 1000)
TASKS = tuple(f"qa{number}" for number in range(1, 21))

_COMPLETE = ("qa1", "qa6", "qa7", "qa8", "qa9", "qa10")
"""Tasks whose released 1,000-sample sets kept their last row (qa2 did too, at 1k only)."""


def check_task(task: str) -> None:
    """Raises:
    ValueError: not one of qa1 to qa20.
    """
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}: the bAbI tasks are qa1 to qa20.")


def max_facts(length: str) -> int | None:
    """The most facts that a sample of this length may have; None at 0k, which takes all.

    A row may have (L - 300) // 8 lines, the question among them.
    """
    tokens = n_tokens(length)
    return (tokens - RESERVED) // 8 - 1 if tokens else None


def released_rows(task: str, length: str, size: int, n_rows: int) -> list[int]:
    """The rows of a released set, in its order, where the cell has `n_rows` rows (999 or 1,000 for most test files).

    Raises:
        ValueError: unknown task or size.
    """
    check_task(task)
    if size not in SIZES:
        raise ValueError(f"There are sets of 100 and of 1,000 samples a cell, not of {size}: choose one and limit it.")
    if size == 100:
        return [row for row in _hundred(task, length) if row < n_rows]
    lost = task not in _COMPLETE and (task, length) != ("qa2", "1k")
    return list(range(n_rows - lost))


def _hundred(task: str, length: str) -> list[int]:
    published = _published_indices()
    if n_tokens(length) and task in published["longer"]:
        return published["longer"][task]
    return published["0k"].get(task, list(range(100)))


@cache
def _published_indices() -> dict:
    return json.loads(Path(__file__).with_name("published_indices.json").read_text(encoding="utf-8"))
