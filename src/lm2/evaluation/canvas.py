"""Pictures that are written whole or not at all. Needs matplotlib (extra `plot`)."""

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


def save(figure: Any, path: Path) -> None:
    """Write a PNG file."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png")
