"""Intervals and the hazard."""

import math

import pytest

from lm2.study.statistics import hazard, t_interval


def test_t_interval_against_a_known_value():
    # mean 2, s = 1, n = 3: half width 4.303 / sqrt(3)
    assert t_interval([1, 2, 3]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert t_interval([0.5] * 4) == (0.5, 0.5)


def test_impossible_counts_are_named():
    with pytest.raises(ValueError, match="there is 1"):
        t_interval([0.3])


def test_hazard_of_a_geometric_loss():
    assert hazard(math.exp(-0.01 * 64), math.exp(-0.01 * 256), 192) == pytest.approx(0.01)
    assert hazard(0.84, 0.668, 192) == pytest.approx(1.2e-3, rel=0.01)
    assert hazard(0.5, 0.0, 192) is None
