"""Pictures of a report say what they show."""

import pytest

from lm2.evaluation import figure


@pytest.mark.parametrize(("tasks", "shown"), [(("qa1",), "qa1"), (("qa1", "qa2"), "mean over tasks")])
def test_curves_of_one_task_are_named_after_it(monkeypatch, tmp_path, tasks, shown):
    drawn = []
    monkeypatch.setattr(figure, "save", lambda picture, path: drawn.append(picture))
    report = {
        "rule": "official",
        "models": {"one": {}},
        "cells": [{"task": task, "length": "1k"} for task in tasks],
        "means": [{"model": "one", "condition": "plain", "length": "1k", "mean": 0.5}],
    }
    figure.draw_curves(report, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == f"right answers, {shown}, % (official rule)"


def test_fifty_six_models_look_different():
    names = [f"model {number}" for number in range(56)]
    looks = [figure._look(name, "plain", names) for name in names]
    assert len({(look["color"], look["marker"]) for look in looks}) == 56
