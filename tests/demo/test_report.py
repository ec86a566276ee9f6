"""The numbers of the report: how an interval is shown, and the bins of the picture."""

import numpy as np
import pytest

from lm2.demo.figure import bins
from lm2.demo.report import percent
from lm2.evaluation.statistics import wilson


def test_percent_shows_the_interval():
    low, high = wilson(39, 40)
    assert percent({"accuracy": 0.975, "low": low, "high": high}) == "97.5 (87-100)"


def test_bins_double_and_keep_every_question_of_a_full_bin():
    distances = np.array([5] * 10 + [30] * 12 + [33] * 10 + [64] * 10 + [65] * 9)
    right = np.arange(len(distances)) % 2 == 0
    found = bins(distances, right, 32)
    assert [b.n for b in found] == [10, 12, 20]  # nine questions are too few for a point
    assert [b.correct for b in found] == [5, 6, 10]
    assert found[0].distance == pytest.approx(5)
    assert found[2].distance == pytest.approx((33 * 64) ** 0.5)
