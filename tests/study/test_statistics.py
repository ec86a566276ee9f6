"""The hazard."""

import math

import pytest

from lm2.study.statistics import hazard


def test_hazard_of_a_geometric_loss():
    assert hazard(math.exp(-0.01 * 64), math.exp(-0.01 * 256), 192) == pytest.approx(0.01)
    assert hazard(0.84, 0.668, 192) == pytest.approx(1.2e-3, rel=0.01)
    assert hazard(0.5, 0.0, 192) is None
