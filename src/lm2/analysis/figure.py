"""The picture of a look: how much each segment wrote to each slot of each memory."""

from pathlib import Path

import numpy as np

from lm2.analysis.results import Look
from lm2.evaluation.canvas import new_figure, save

COLUMNS = 400
"""Segments side by side; of longer texts the greatest of several is shown."""


def shrink(mass_BSN: np.ndarray) -> np.ndarray:
    """At most COLUMNS columns of segments, each the greatest of as many segments: (memories, columns, N)."""
    segments = mass_BSN.shape[1]
    if segments == 0:
        return mass_BSN
    width = -(-segments // COLUMNS)
    return np.maximum.reduceat(mass_BSN, np.arange(0, segments, width), axis=1)


def draw(found: Look, path: Path) -> None:
    """Write the picture: a panel for each memory, its slots by the text's segments. Needs matplotlib (extra `plot`)."""
    columns_BCN = shrink(found.mass_BSN)
    banks, _, slots = columns_BCN.shape
    at = [found.places[place].first for place in sorted(found.read_most())]
    end = max(1, found.mass_BSN.shape[1]) * found.segment_length
    figure = new_figure(8, 0.9 + banks * min(2.6, 0.9 + 0.04 * slots))
    panels = figure.subplots(banks, 1, squeeze=False, sharex=True)[:, 0]
    image = None
    for panel, columns_CN, layer in zip(panels, columns_BCN, found.layers, strict=True):
        values_NC = columns_CN.T if columns_CN.size else np.zeros((slots, 1))
        extent = (0, end, slots - 0.5, -0.5)
        image = panel.imshow(
            values_NC, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="none", extent=extent
        )
        if at:  # the bounds of no points are infinite, and no panel would have room beside them
            panel.plot(at, [-0.5] * len(at), "v", color="#D55E00", markersize=5, clip_on=False)
        panel.set_ylabel(f"slots, block {layer}", fontsize=8)
    panels[-1].set_xlabel("token of the text" + ("; orange: read most by the questions" if at else ""))
    figure.colorbar(image, ax=panels, label="written")
    save(figure, path)
