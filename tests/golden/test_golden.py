"""The losses of a tiny run: the stored ones to 1e-5, and bit for bit from one run to the next."""

import pytest

from tests.golden.training import losses, stored


def test_losses_are_the_stored_ones():
    values = losses()
    assert values == pytest.approx(stored(), abs=1e-5), "see the numerics rule in CONTRIBUTING.md"
    assert values[-1] < values[0] - 0.1


def test_two_runs_are_equal_bit_for_bit():
    assert losses() == losses()
