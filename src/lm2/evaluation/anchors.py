"""Published numbers to print beside ours: the LM2 paper's tables and the BABILong leaderboard.

They are data (anchors.json, each table with its source). None of them was measured here. The paper does not say which
scoring rule it used; its qa7 column is impossible under the official rule (at most 53.2) and is what the substring rule
gives to a model that mostly answers "none".
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAPER, LEADERBOARD = "paper", "leaderboard"


@dataclass(frozen=True, slots=True)
class Anchor:
    """One published cell. `task` is qa1 to qa10 or "avg" as printed; `length` may be ">=8k" in the paper."""

    table: str
    model: str
    task: str
    length: str
    percent: float


def anchors(task: str | None = None, length: str | None = None, table: str | None = None) -> list[Anchor]:
    """The published cells of BABILong, those of one task, length or table ("paper", "leaderboard") if given."""
    return [
        anchor
        for anchor in _all()
        if task in (None, anchor.task) and length in (None, anchor.length) and table in (None, anchor.table)
    ]


def source(table: str) -> str:
    """Where the numbers of a table are from, and how they were made: "paper", "leaderboard" or "paper_mmlu"."""
    return _tables()[table]["source"]


def paper_mmlu() -> list[dict]:
    """The paper's MMLU table: rows with `grouping`, `category` and `percent` by model."""
    return _tables()["paper_mmlu"]["rows"]


@cache
def _all() -> tuple[Anchor, ...]:
    return tuple(
        Anchor(table, row["model"], task, row["length"], percent)
        for table in (PAPER, LEADERBOARD)
        for row in _tables()[table]["rows"]
        for task, percent in row["percent"].items()
    )


@cache
def _tables() -> dict:
    return json.loads(Path(__file__).with_name("anchors.json").read_text(encoding="utf-8"))
