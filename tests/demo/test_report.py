"""The numbers of the report: how an interval is shown, and the bins of the picture."""

import numpy as np
import pytest

from lm2.demo import figure
from lm2.demo.config import DemoConfig
from lm2.demo.figure import bins
from lm2.demo.material import EvaluationSet
from lm2.demo.page import accuracy_table
from lm2.evaluation.page import interval
from lm2.evaluation.statistics import wilson


def test_percent_shows_the_interval():
    low, high = wilson(39, 40)
    assert interval({"accuracy": 0.975, "low": low, "high": high}) == "97.5 (87-100)"


def test_the_best_of_a_length_are_bold():
    same = {"tokens": 64, "n": 40, "constant": 0.2, "low": 0.0, "high": 1.0}
    accuracies = {1: {"lm2": 0.75, "rmt": 0.5, "plain": 0.75}, 2: {"lm2": 0.25, "rmt": 0.5, "plain": 0.0}}
    rows = [
        {**same, "segments": segments, "model": name, "accuracy": accuracy}
        for segments, models in accuracies.items()
        for name, accuracy in models.items()
    ]
    *_, one, two = accuracy_table(rows).splitlines()
    assert one == "| 1 | 64 | 40 | **75.0 (0-100)** | 50.0 (0-100) | **75.0 (0-100)** | 20.0 |"
    assert two == "| 2 | 64 | 40 | 25.0 (0-100) | **50.0 (0-100)** | 0.0 (0-100) | 20.0 |"


def test_bins_double_and_keep_every_question_of_a_full_bin():
    distances = np.array([5] * 10 + [30] * 12 + [33] * 10 + [64] * 10 + [65] * 9)
    right = np.arange(len(distances)) % 2 == 0
    found = bins(distances, right, 32)
    assert [b.n for b in found] == [10, 12, 20]  # nine questions are too few for a point
    assert [b.correct for b in found] == [5, 6, 10]
    assert found[0].distance == pytest.approx(5)
    assert found[2].distance == pytest.approx((33 * 64) ** 0.5)


def test_questions_too_few_for_a_point_leave_a_picture_without_one(tmp_path, monkeypatch):
    """Of the smallest demo, which ended here after all of its training."""
    pytest.importorskip("matplotlib")
    options = DemoConfig(out=tmp_path, questions=4, segments=(1,))
    texts = np.array(["?"] * 4)
    asked = EvaluationSet(np.zeros((4, 32)), np.arange(4), np.array([5, 9, 20, 30]), texts, texts, texts)
    monkeypatch.setattr(figure, "load_set", lambda *column: asked)
    monkeypatch.setattr(figure, "answers_of", lambda options, name: {("own", 1): {"answers": [0, 0, 0, 0]}})
    figure.draw(options)
    assert (tmp_path / figure.FIGURE_FILE).read_bytes().startswith(b"\x89PNG")
