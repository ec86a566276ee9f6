"""Two BABILong reports side by side: is one model better on the same samples, or is it luck?

The test is exact and two-sided (`lm2.evaluation.statistics.sign_flip`). Questions about one story are answered together
or not, and the same ones are asked at several lengths: what is taken to be independent are the stories.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm2.evaluation.controls import MAIN
from lm2.evaluation.page import table
from lm2.evaluation.report import load, ordered
from lm2.evaluation.statistics import p_value, sign_flip

Cells = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """A cell, or all of them together: how many each has right, how many only one of them has, and p."""

    task: str
    length: str
    n: int
    first: int
    second: int
    only_first: int
    only_second: int
    p: float


def compare(
    first: Path, second: Path, model_first: str | None = None, model_second: str | None = None
) -> dict[str, Any]:
    """Compare a model of one report with a model of another (or of the same one).

    Args:
        model_first, model_second: names in the reports; None when a report has one model only.

    Returns:
        The names of both, the rule, a `Comparison` for each common cell and for all of them, and the cells left out
        because some text was too long for one of the two.

    Raises:
        ValueError: not a report, no such model, another rule, no common cell, or cells of different samples.
    """
    reports = [load(first), load(second)]
    names = [
        _model(report, path, name)
        for report, path, name in zip(reports, (first, second), (model_first, model_second), strict=True)
    ]
    if (rule := reports[0]["rule"]) != reports[1]["rule"]:
        raise ValueError(
            f"{first} was scored by the rule {rule} and {second} by {reports[1]['rule']}: run one of them again with "
            f"--rule {rule}, which asks nothing twice"
        )
    own, other = (_cells(report, name) for report, name in zip(reports, names, strict=True))
    both = [key for key in own if key in other]
    if not both:
        raise ValueError(f"{first} and {second} have no cell in common: {_list(own)} and {_list(other)}")
    common = [key for key in both if not (own[key]["too_long"] or other[key]["too_long"])]
    if not common:
        raise ValueError(
            f"{names[0]} and {names[1]} have no cell in common in which every text was short enough for both: of "
            f"{len(both)} none is left, so ask for shorter lengths"
        )
    for key in common:
        _check_same_samples(key, own[key], other[key], (first, second))
    stories = _stories(reports, own)
    pairs = {key: [*zip(own[key]["right"], other[key]["right"], stories[key], strict=True)] for key in common}
    rows = [_compare(*key, pairs[key]) for key in common]
    everything = _compare("all", "all", [pair for key in common for pair in pairs[key]])
    too_long = [list(key) for key in both if key not in common]
    return {"models": names, "rule": rule, "cells": [asdict(row) for row in [*rows, everything]], "too_long": too_long}


def _model(report: dict[str, Any], path: Path, name: str | None) -> str:
    names = list(report["models"])
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ValueError(f"{path} has {len(names)} models ({', '.join(names)}): say which one with --models")
    if name not in names:
        raise ValueError(f"{path} has no model {name!r}: it has {', '.join(names)}")
    return name


def _cells(report: dict[str, Any], model: str) -> Cells:
    return {
        (cell["task"], cell["length"]): cell
        for cell in report["cells"]
        if cell["model"] == model and cell["condition"] in MAIN
    }


def _check_same_samples(key: tuple[str, str], own: dict, other: dict, paths: tuple[Path, Path]) -> None:
    if own["n"] != other["n"] or own["samples"] != other["samples"]:
        raise ValueError(
            f"{paths[0]} and {paths[1]} have other samples in {' '.join(key)} ({own['n']} with digest "
            f"{own['samples']}, {other['n']} with digest {other['samples']}): a paired test needs the same ones, so "
            "run both with the same data, --seed, --sample-set and --samples"
        )


def _stories(reports: Iterable[dict[str, Any]], cells: Cells) -> dict[tuple[str, str], list[str]]:
    """Which story each sample of a cell is about; a report of before does not tell, and each has one of its own."""
    told = {(row["task"], row["length"]): row["of"].split() for report in reports for row in report.get("stories", ())}
    own = {key: [f"{' '.join(key)} {number}" for number in range(cell["n"])] for key, cell in cells.items()}
    return {key: told.get(key, own[key])[: cell["n"]] for key, cell in cells.items()}


def _compare(task: str, length: str, answers: list[tuple[str, str, str]]) -> Comparison:
    """Of answers, each with whether the first and the second have it right ("1" or "0"), and its story."""
    pairs, by_story = Counter((first, second) for first, second, _ in answers), Counter[str]()
    for first, second, story in answers:
        by_story[story] += int(first) - int(second)
    only_first, only_second, both = pairs["1", "0"], pairs["0", "1"], pairs["1", "1"]
    p = sign_flip([*by_story.values()])
    return Comparison(task, length, len(answers), only_first + both, only_second + both, only_first, only_second, p)


def _list(cells: Cells) -> str:
    return ", ".join(ordered(task for task, _ in cells)) + " at " + ", ".join(ordered(length for _, length in cells))


def markdown(found: dict[str, Any]) -> str:
    """The comparison as a table."""
    first, second = found["models"]
    if first == second:
        first, second = f"{first} (first)", f"{second} (second)"
    header = ["task", "length", "n", f"{first}, %", f"{second}, %", "only first", "only second", "p"]
    rows = [
        [
            *(row["task"], row["length"], f"{row['n']}"),
            *(f"{100 * row[name] / row['n']:.1f}" for name in ("first", "second")),
            *(f"{row['only_first']}", f"{row['only_second']}", p_value(row["p"])),
        ]
        for row in found["cells"]
    ]
    left_out = ", ".join(" ".join(key) for key in found["too_long"])
    rest = f" Left out, since some text was too long for one of the two: {left_out}." if left_out else ""
    test = "exact sign-flip test over the stories that the questions are about"
    return table(header, rows, 2) + f"\n\np: {test}, two-sided; {found['rule']} rule.{rest}"
