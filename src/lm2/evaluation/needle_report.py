"""The report of needles: needle.json, needle.md and needle.png from the answers of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm2.environment import environment, in_words
from lm2.evaluation.canvas import heat_map, new_figure, save
from lm2.evaluation.output import write_report
from lm2.evaluation.page import interval, table
from lm2.evaluation.records import SCHEMA
from lm2.evaluation.statistics import wilson

if TYPE_CHECKING:
    from lm2.evaluation.needle import NeedleOptions

TITLES = {"passkey": "Pass key by depth and length", "people": "Facts about people by depth and length"}
RULES = {
    "passkey": "the first number of the answer is the key",
    "people": "the first word of the answer is the one that was told",
}

Asked = tuple[dict[str, Any], list[dict[str, Any]]]


def write(options: "NeedleOptions", asked: Sequence[Asked]) -> None:
    """Write the three files, each whole or not at all, and print the table."""
    report = {
        "schema": SCHEMA,
        **options.settings(),
        "samples_per_cell": options.samples,
        "rule": RULES[options.needle],
        "length": "GPT-2 tokens of the whole prompt",
        "environment": environment(),
        "models": [_results(facts, records, options) for facts, records in asked],
    }
    page = markdown(report)
    write_report(options.out, "needle", report, page)
    draw(report, options.out / "needle.png")
    print(page)


def _results(facts: dict[str, Any], records: Sequence[dict[str, Any]], options: "NeedleOptions") -> dict[str, Any]:
    wanted = [record for record in records if record["key"][2] < options.samples]
    cells = []
    for length in options.lengths:
        for depth in options.depths:
            own = [record for record in wanted if record["key"][:2] == [length, depth]]
            cells.append({"length": length, "depth": depth, **cell(own)})
    return {**facts, "seconds": round(sum(record["seconds"] for record in wanted), 1), "cells": cells}


def cell(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with Wilson's interval; None where the model could not take every text whole."""
    n, right = len(records), sum(record["right"] for record in records)
    too_long = sum(record["output"] is None for record in records)
    if too_long:
        return {"n": n, "too_long": too_long, "right": right, "accuracy": None}
    low, high = wilson(right, n)
    return {"n": n, "too_long": 0, "right": right, "accuracy": right / n, "low": low, "high": high}


def markdown(report: dict[str, Any]) -> str:
    """The page: for each model a table of depths by lengths."""
    parts = [
        f"# {TITLES[report['needle']]}",
        f"Right answers in %, with 95 % intervals (Wilson); {report['samples_per_cell']} samples a cell, the same for "
        f"every model, seed {report['seed']}. Rule: {report['rule']}. Length: {report['length']}. Text around "
        f"it: {report['text']}. Depth: per cent of the text before what is asked.",
    ]
    for model in report["models"]:
        parts += [f"## {model['name']}", _table(model["cells"])]
    lines = [f"* {model['name']}: {_facts(model)}" for model in report["models"]]
    lines.append(f"* {in_words(report['environment'])}")
    return "\n\n".join([*parts, "## How", "\n".join(lines)]) + "\n"


def _table(cells: Sequence[dict[str, Any]]) -> str:
    found = {(one["depth"], one["length"]): one for one in cells}
    lengths = list(dict.fromkeys(one["length"] for one in cells))
    depths = list(dict.fromkeys(one["depth"] for one in cells))
    rows = [[f"{depth} %", *(interval(found[depth, length]) for length in lengths)] for depth in depths]
    return table(["depth", *(f"{length:,}" for length in lengths)], rows)


def _facts(model: dict[str, Any]) -> str:
    shown = {name: value for name, value in model.items() if name not in ("name", "cells") and value is not None}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the heat map: a panel for each model, depths by lengths. Needs matplotlib (extra `plot`)."""
    models = report["models"]
    lengths = list(dict.fromkeys(one["length"] for one in models[0]["cells"]))
    depths = list(dict.fromkeys(one["depth"] for one in models[0]["cells"]))
    figure = new_figure(1.8 + len(models) * (1 + 0.7 * len(lengths)), 1.7 + 0.42 * len(depths))
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        found = {(one["depth"], one["length"]): one["accuracy"] for one in model["cells"]}
        shares = [[found[depth, length] for length in lengths] for depth in depths]
        image = heat_map(panel, shares, [f"{length:,}" for length in lengths], [f"{depth} %" for depth in depths])
        panel.set_title(model["name"], fontsize=9)
    panels[0].set_ylabel("depth of what is asked")
    figure.colorbar(image, ax=panels, label="right answers, %")
    save(figure, path)
