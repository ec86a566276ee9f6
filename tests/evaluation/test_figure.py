"""Pictures of a report say what they show."""

import pytest

from lm2.evaluation import figure


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that would have been written."""
    figures: list = []
    monkeypatch.setattr(figure, "save", lambda picture, path: figures.append(picture))
    return figures


def report(tasks=("qa1",), **spread) -> dict:
    return {
        "rule": "official",
        "models": {"one": {}},
        "cells": [{"task": task, "length": length} for task in tasks for length in ("1k", "2k")],
        "means": [
            {"model": "one", "condition": "plain", "length": length, "mean": mean, **spread}
            for length, mean in (("1k", 0.5), ("2k", 0.4))
        ],
    }


@pytest.mark.parametrize(("tasks", "shown"), [(("qa1",), "qa1"), (("qa1", "qa2"), "mean over tasks")])
def test_curves_of_one_task_are_named_after_it(drawn, tmp_path, tasks, shown):
    figure.draw_curves(report(tasks), tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == f"right answers, {shown}, % (official rule)"


def test_means_with_a_low_and_a_high_are_shaded_between(drawn, tmp_path):
    figure.draw_curves(report(), tmp_path / "curves.png")
    figure.draw_curves(report(low=0.3, high=0.7), tmp_path / "curves.png")
    plain, shaded = (picture.axes[0] for picture in drawn)
    assert not plain.collections
    (shade,) = shaded.collections
    corners = shade.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((30, 70))
    assert [list(line.get_ydata()) for axes in (plain, shaded) for line in axes.lines] == [[50, 40], [50, 40]]


def test_fifty_six_models_look_different():
    names = [f"model {number}" for number in range(56)]
    looks = [figure._look(name, "plain", names) for name in names]
    assert len({(look["color"], look["marker"]) for look in looks}) == 56
