"""Wilson's interval, the exact paired test, and the interval over seeds."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.evaluation.statistics import Z95, p_value, sign_flip, t_975, t_interval, wilson


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


@pytest.mark.parametrize(
    ("b", "c", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (2, 10, 0.03857421875)]
)
def test_known_values(b, c, p):
    assert sign_flip([1] * b + [-1] * c) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_a_question_a_cluster_it_is_mcnemars(b, c):
    n = b + c
    probability = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(b - c)) / 2**n
    assert sign_flip([1] * b + [-1] * c + [0]) == pytest.approx(probability, rel=1e-12)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_it_is_the_share_of_all_signs_that_are_as_far_out(differences):
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    far = sum(abs(found) >= abs(sum(differences)) for found in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(far, rel=1e-12)


def test_what_hangs_together_counts_once():
    assert sign_flip([4] * 5) == sign_flip([1] * 5) == 0.0625


def test_large_counts_do_not_overflow():
    assert 0.0048 < sign_flip([1] * 2400 + [-1] * 2600) < 0.0050
    assert sign_flip([1] * 5000) == 0.0
    assert [p_value(p) for p in (0.0, 1e-300, 0.01234, 1.0)] == ["< 1e-300", "1e-300", "0.012", "1"]


def test_t_interval_against_a_known_value():
    # mean 2, s = 1, n = 3: half width 4.303 / sqrt(3)
    assert t_interval([1, 2, 3]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert t_interval([0.5] * 4) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(10, 2.2281), (11, 2.2010), (14, 2.1448), (19, 2.0930), (60, 2.0003), (227, 1.9705)]
)
def test_quantiles_of_t_are_the_tables(freedom, quantile):
    assert t_975(freedom) == pytest.approx(quantile, abs=2e-4)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="there is 1"):
        t_interval([0.3])
