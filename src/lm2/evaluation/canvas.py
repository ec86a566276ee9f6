"""Pictures that are written whole or not at all. Needs matplotlib (extra `plot`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm2.files import replacing


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches; no window is opened.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the pictures need matplotlib: pip install 'lm2[plot]'") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def heat_map(panel: Any, shares: Sequence[Sequence[float | None]], lengths: Sequence[str], rows: Sequence[str]) -> Any:
    """Draw shares by length, each with its number in per cent; the image, for a colour bar."""
    values = [[float("nan") if share is None else 100 * share for share in row] for row in shares]
    panel.set_facecolor("0.85")  # a cell without a number stays grey
    image = panel.imshow(values, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            panel.text(x, y, f"{value:.0f}" if value == value else "-", ha="center", va="center", fontsize=8)
    panel.set_xticks(range(len(lengths)), lengths)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel("length, tokens")
    return image


def save(figure: Any, path: Path) -> None:
    """Write a PNG file."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png")
