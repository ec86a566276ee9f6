"""The picture: accuracy against the distance between fact and question, all evaluation sets together."""

from typing import Any, NamedTuple

import numpy as np

from lm2.demo.config import DemoConfig
from lm2.demo.contender import answers_of
from lm2.demo.material import load_set
from lm2.demo.recipe import CONTENDERS, NAMES, recipe_of
from lm2.evaluation.canvas import new_figure, save
from lm2.evaluation.statistics import wilson

FIGURE_FILE = "accuracy.png"
FEWEST = 10
"""A bin with fewer questions is not drawn."""
LOOKS = {"lm2": ("#0072B2", "o", "-"), "rmt": ("#D55E00", "s", "--"), "plain": ("#009E73", "^", ":")}
"""Colours that differ for every kind of colour vision, and markers and lines that differ in print."""


class Bin(NamedTuple):
    """Questions whose distances are alike: their mean distance in tokens, how many are right, and how many."""

    distance: float
    correct: int
    n: int


def bins(distances: np.ndarray, right: np.ndarray, segment_length: int) -> list[Bin]:
    """The questions by distance in doubling bins: up to half a segment, up to a segment, up to two, up to four ..."""
    number = np.maximum(np.ceil(np.log2(np.maximum(distances, 1) / segment_length)), -1)
    return [
        Bin(float(np.exp(np.log(distances[at]).mean())), int(right[at].sum()), int(at.sum()))
        for at in (number == value for value in np.unique(number))
        if at.sum() >= FEWEST
    ]


def draw(options: DemoConfig) -> None:
    """Write accuracy.png. Needs matplotlib (extra `plot`)."""
    recipe = recipe_of(options)
    T, trained = recipe.segment_length, max(n for phase in recipe.phases for n in phase.segments)
    sets = [load_set(options.out, *column) for column in options.columns()]
    distances = np.concatenate([asked.distances for asked in sets])
    figure = new_figure(8, 4.8)
    axes = figure.add_subplot()
    axes.axvspan(T, T * trained, color="0.93", lw=0)
    for name in CONTENDERS:
        answers = answers_of(options, name)
        right = np.concatenate(
            [np.array(answers[c]["answers"]) == asked.answers for c, asked in zip(options.columns(), sets, strict=True)]
        )
        _curve(axes, name, bins(distances, right, T))
    constant = np.average([asked.constant for asked in sets], weights=[len(asked) for asked in sets])
    axes.axhline(100 * constant, color="0.35", lw=1.2, ls=(0, (1, 1)), label="best constant answer")
    _axes(axes, T, distances.max(), trained)
    save(figure, options.out / FIGURE_FILE)


def _curve(axes: Any, name: str, found: list[Bin]) -> None:
    colour, marker, line = LOOKS[name]
    x = [b.distance for b in found]
    low, high = 100 * np.array([wilson(b.correct, b.n) for b in found]).reshape(-1, 2).T  # of no bin, too
    axes.plot(x, [100 * b.correct / b.n for b in found], line, marker=marker, color=colour, ms=5.5, label=NAMES[name])
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def _axes(axes: Any, T: int, farthest: float, trained: int) -> None:
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 103)
    axes.set_xlabel("distance between fact and question, in tokens")
    axes.set_ylabel("right answers, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    above = axes.secondary_xaxis("top", functions=(lambda tokens: tokens / T, lambda segments: segments * T))
    above.set_xscale("log", base=2)
    above.set_xlabel("in segments")
    above.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if farthest > T:
        axes.text(T * 1.08, 3, f"trained on texts of up to {trained} segments", color="0.35", fontsize=8)
    axes.grid(axis="y", color="0.88", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0.01, 0.42))
    axes.spines["right"].set_visible(False)
