"""The pictures of a BABILong report: a heat map of tasks by lengths for each model, and curves over the length."""

from pathlib import Path
from typing import Any

from lm2.evaluation.canvas import heat_map, new_figure, save
from lm2.evaluation.controls import MAIN, QUESTION
from lm2.evaluation.report import CONSTANT, lengths_of, mean_rows, tasks_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that differ for every kind of colour vision (Okabe and Ito)."""
MARKERS = "osD^vPX*"
"""One more than the colours, so that the two together come again after 56 models only."""
LINES = {"plain": "-", "carried": "-", "reset": "--", "frozen": "-.", "exchanged": ":", QUESTION: (0, (1, 3))}


def draw_heat_map(report: dict[str, Any], path: Path) -> None:
    """Write the heat map: a panel for each model, its own way of working. Needs matplotlib (extra `plot`)."""
    tasks, lengths = tasks_of(report), lengths_of(report)
    names = list(report["models"])
    size = (1.8 + len(names) * (0.8 + 0.62 * len(lengths)), 1.7 + 0.42 * len(tasks))
    figure = new_figure(*size)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    image = None
    for panel, name in zip(panels, names, strict=True):
        cells = {(c["task"], c["length"]): c for c in report["cells"] if c["model"] == name and c["condition"] in MAIN}
        shares = [[cells.get((task, length), {}).get("accuracy") for length in lengths] for task in tasks]
        image = heat_map(panel, shares, lengths, tasks)
        panel.set_title(name, fontsize=9)
    assert image is not None
    figure.colorbar(image, ax=panels, label="right answers, %")
    figure.suptitle(f"BABILong, {report['rule']} rule", fontsize=9)
    save(figure, path)


def draw_curves(report: dict[str, Any], path: Path) -> None:
    """Write the curves: the mean over tasks by length, for each model and condition. Needs matplotlib.

    Rows of means that have a `low` and a `high`, too, are shaded between them.
    """
    lengths = lengths_of(report)
    figure = new_figure(8, 4.8)
    axes = figure.add_subplot()
    names = list(report["models"])
    for (model, condition), rows in mean_rows(report).items():
        at = [x for x, n in enumerate(lengths) if n in rows and rows[n]["mean"] is not None]
        if at:
            shown, look = [rows[lengths[x]] for x in at], _look(model, condition, names)
            axes.plot(at, [100 * row["mean"] for row in shown], **look)
            if all("low" in row for row in shown):
                low, high = ([100 * row[name] for row in shown] for name in ("low", "high"))
                axes.fill_between(at, low, high, color=look["color"], alpha=0.15, lw=0)
    axes.set_xticks(range(len(lengths)), lengths)
    axes.set_ylim(0, 103)
    axes.set_xlabel("length of the text, tokens")
    tasks = tasks_of(report)
    axes.set_ylabel(f"right answers, {tasks[0] if len(tasks) == 1 else 'mean over tasks'}, % ({report['rule']} rule)")
    axes.grid(axis="y", color="0.88", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def _look(model: str, condition: str, names: list[str]) -> dict[str, Any]:
    if model == CONSTANT:
        return {"color": "0.35", "ls": (0, (1, 1)), "lw": 1.2, "label": CONSTANT}
    at = names.index(model)
    main = condition in MAIN
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "ls": LINES[condition],
        "lw": 1.8 if main else 1.0,
        "ms": 5.5 if main else 3,
        "label": model if main else f"{model}, {condition}",
    }
