"""From answers to numbers: accuracies with intervals under every rule, means, baselines, and accuracy by distance.

The report is one JSON file; the Markdown page and the pictures show what is in it. All shares are between 0 and 1.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lm2.environment import environment
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.controls import MAIN, MEANINGS, QUESTION
from lm2.evaluation.engine import Asked
from lm2.evaluation.scoring import RULES, is_right
from lm2.evaluation.statistics import wilson
from lm2.evaluation.tokens import n_tokens
from lm2.files import by_rows, write_text

KIND = "lm2 eval babilong"
SCHEMA = 1
REPORT_FILE = "report.json"
CONSTANT = "constant answer"
DISTANCE_BASE = 128
"""Tokens of the first distance bin; each next one is twice as wide."""

Rows = list[dict[str, Any]]


def collect(config: BabilongConfig, samples: dict[str, Any], asked: Sequence[Asked]) -> dict[str, Any]:
    """The report of a finished run. `samples` is the description of their source."""
    cells = [cell for model in asked for cell in cells_of(model, config.rule)]
    mains = {tuple(r["key"][:3]): r for model in asked for r in model.records if r["key"][3] in MAIN}
    report = {
        "kind": KIND,
        "schema": SCHEMA,
        "rule": config.rule,
        "samples": {**samples, "asked_per_cell": list(config.samples or ()) or "all"},
        "prompt": config.prompt_settings(),
        "conditions": MEANINGS,
        "environment": environment(),
        "models": {model.name: {**model.description, "seconds": _seconds(model.records)} for model in asked},
        "cells": cells,
        "constant": constants(list(mains.values()), config.rule),
        "stories": stories(list(mains.values())),
        "distance": [row for model in asked for row in by_distance(model, config.rule)],
    }
    return {**report, "means": means(report)}


def _seconds(records: Rows) -> float:
    return round(sum(record["seconds"] for record in records), 1)


def grouped(records: Rows, *names: int) -> dict[tuple, Rows]:
    """Records by parts of their key (0 task, 1 length, 2 index, 3 condition), in order of appearance."""
    found: dict[tuple, Rows] = defaultdict(list)
    for record in records:
        found[tuple(record["key"][name] for name in names)].append(record)
    return found


def cells_of(model: Asked, rule: str) -> Rows:
    """One row per condition, task and length."""
    cells = grouped(model.records, 3, 0, 1)
    return [{"model": model.name, **_cell(*key, records, rule)} for key, records in cells.items()]


def _cell(condition: str, task: str, length: str, records: Rows, rule: str) -> dict[str, Any]:
    too_long = sum(record["output"] is None for record in records)
    right = {name: "".join("01"[verdict(name, record)] for record in records) for name in RULES}
    cell = {
        "condition": condition,
        "task": task,
        "length": length,
        "n": len(records),
        "too_long": too_long,
        "correct": {name: bits.count("1") for name, bits in right.items()},
        "right": right[rule],
        "samples": sample_digest(records),
        "seconds": _seconds(records),
    }
    return {**cell, **_share(cell["correct"][rule], len(records), too_long)}


def _share(correct: int, n: int, too_long: int = 0) -> dict[str, Any]:
    """Accuracy and its interval; None where samples were too long, for those that fit are not a fair choice."""
    if too_long:
        return {"accuracy": None, "low": None, "high": None}
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "low": low, "high": high}


def verdict(rule: str, record: dict[str, Any], output: str | None = None) -> bool:
    """Whether a record's output, or the one given, is right; a sample that was too long is not."""
    output = record["output"] if output is None else output
    return output is not None and is_right(rule, record["key"][0], record["question"], record["target"], output)


def sample_digest(records: Rows) -> str:
    """A short hash of the samples of a cell, in order."""
    return hashlib.sha256(" ".join(record["sample"] for record in records).encode()).hexdigest()[:16]


def stories(records: Rows) -> Rows:
    """Per task and length which story each sample is about: samples of one story are no independent ones."""
    cells = grouped(records, 0, 1).items()
    return [{"task": task, "length": length, "of": " ".join(map(_story, found))} for (task, length), found in cells]


def _story(record: dict[str, Any]) -> str:
    """Answers of before do not tell, and each row has a story of its own."""
    return record.get("story") or "{0}/{2}".format(*record["key"])


def constants(records: Rows, rule: str) -> Rows:
    """Per task and length the best answer that is always the same, chosen knowing the samples."""
    return [_constant(*key, found, rule) for key, found in grouped(records, 0, 1).items()]


def _constant(task: str, length: str, records: Rows, rule: str) -> dict[str, Any]:
    targets = sorted({record["target"] for record in records})
    correct = {target: sum(verdict(rule, record, target) for record in records) for target in targets}
    best = max(targets, key=lambda target: correct[target])
    cell = {"task": task, "length": length, "answer": best, "n": len(records), "correct": correct[best]}
    return {**cell, **_share(correct[best], len(records))}


def by_distance(model: Asked, rule: str) -> Rows:
    """Accuracy by tokens between the farthest needed fact and the question, in doubling bins, all cells together."""
    found: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for record in model.records:
        if record["distance"] is not None and record["output"] is not None and record["key"][3] != QUESTION:
            found[record["key"][3], distance_bin(record["distance"])].append(verdict(rule, record))
    return [
        {
            "model": model.name,
            "condition": condition,
            "from": DISTANCE_BASE * 2 ** (number - 1) if number else 0,
            "below": DISTANCE_BASE * 2**number,
            "n": len(right),
            "correct": sum(right),
            **_share(sum(right), len(right)),
        }
        for (condition, number), right in sorted(found.items())
    ]


def distance_bin(tokens: int) -> int:
    """0 below 128 tokens, 1 below 256, 2 below 512 ..."""
    return (tokens // DISTANCE_BASE).bit_length()


def means(report: dict[str, Any]) -> Rows:
    """Plain means over tasks per model, condition and length: with qa7, and without it where the rule breaks it."""
    rows = report["cells"] + [{"model": CONSTANT, "condition": "plain", **cell} for cell in report["constant"]]
    found: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for row in rows:
        found[row["model"], row["condition"], row["length"]].append(row)
    return [
        {
            "model": model,
            "condition": condition,
            "length": length,
            "tasks": len(cells),
            "mean": _mean(cells),
            "mean_without_qa7": _mean([cell for cell in cells if cell["task"] != "qa7"]),
        }
        for (model, condition, length), cells in found.items()
    ]


def _mean(cells: Rows) -> float | None:
    shares = [cell["accuracy"] for cell in cells]
    return None if not shares or None in shares else sum(shares) / len(shares)


def ordered(values: Iterable[str]) -> list[str]:
    """Tasks or lengths, each once, in their natural order."""
    return sorted(set(values), key=lambda value: int(value[2:]) if value.startswith("qa") else n_tokens(value))


def tasks_of(report: dict[str, Any]) -> list[str]:
    """The tasks of a report."""
    return ordered(cell["task"] for cell in report["cells"])


def lengths_of(report: dict[str, Any]) -> list[str]:
    """The lengths of a report."""
    return ordered(cell["length"] for cell in report["cells"])


def mean_rows(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """The means of a report by model and condition, and then by length."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in report["means"]:
        found.setdefault((row["model"], row["condition"]), {})[row["length"]] = row
    return found


def save(report: dict[str, Any], path: Path) -> None:
    """Write the JSON file, one cell a line."""
    write_text(path, by_rows(report) + "\n")


def load(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        ValueError: not a report, damaged, or of another schema version.
        FileNotFoundError: no such file.
    """
    path = path / REPORT_FILE if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        kind, schema = report["kind"], report["schema"]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a report of `lm2 eval babilong`, or is damaged ({error}): make it again"
        ) from None
    if kind != KIND:
        raise ValueError(f"{path} is a report of {kind!r}, not of {KIND!r}: give the {REPORT_FILE} of a BABILong run")
    if schema != SCHEMA:
        raise ValueError(
            f"{path} has report version {schema}, and this program reads version {SCHEMA}: run `{KIND}` again with the "
            "same --out, which asks nothing twice"
        )
    return report
