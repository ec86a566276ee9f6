"""The numbers of the report: Wilson's interval, the bins of the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.demo.figure import bins
from lm2.demo.report import percent
from lm2.evaluation.statistics import Z95, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (400, 400, 0.9905, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_gives_the_known_intervals(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_of_an_interval_solve_wilsons_equation(counts):
    """(share - p)^2 = z^2 p (1 - p) / n at both ends."""
    correct, n = counts
    share = correct / n
    low, high = wilson(correct, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end) / n, abs=1e-9)
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_shares_that_are_none(correct, n):
    with pytest.raises(ValueError, match=f"they are {correct} and {n}"):
        wilson(correct, n)


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
