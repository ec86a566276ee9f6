"""Orders by arithmetic: permutations, shares of sources, and that both depend on their arguments alone."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.order import BLOCK, drawn, key_of, permuted, shares

KEYS = st.integers(0, 2**64 - 1)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 700), key=KEYS)
def test_a_permutation_takes_every_value_once(n, key):
    assert sorted(permuted(i, n, key) for i in range(n)) == list(range(n))


@given(n=st.integers(1 << 30, 1 << 45), key=KEYS, data=st.data())
def test_a_large_permutation_stays_in_range_and_keeps_values_apart(n, key, data):
    indices = data.draw(st.sets(st.integers(0, n - 1), min_size=2, max_size=20))
    values = {permuted(i, n, key) for i in indices}
    assert len(values) == len(indices)
    assert 0 <= min(values) <= max(values) < n


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_an_index_out_of_range_is_an_error(index):
    with pytest.raises(ValueError, match=rf"{index} is not below 5"):
        permuted(index, 5, 0)


@pytest.mark.parametrize("n", [7, 100])
def test_every_place_is_equally_likely(n):
    """Chi-square over 3,000 keys, for the first and the last index; 0.1 % limit by Wilson and Hilferty."""
    limit = (n - 1) * (1 - 2 / (9 * (n - 1)) + 3.09 * (2 / (9 * (n - 1))) ** 0.5) ** 3
    for index in (0, n - 1):
        counts = [0] * n
        for trial in range(3000):
            counts[permuted(index, n, key_of("trial", trial))] += 1
        expected = 3000 / n
        assert sum((count - expected) ** 2 / expected for count in counts) < limit


def test_neighbours_do_not_stay_neighbours():
    values = [permuted(i, 10_000, key_of(1)) for i in range(10_000)]
    close = sum(abs(a - b) <= 10 for a, b in pairwise(values))
    assert close < 60  # 20 expected


def test_keys_are_the_same_in_every_process():
    assert key_of("rows", 1, "web") == 5862435075284700288
    assert key_of("rows", 1) != key_of("rows", "1")


@given(weights=st.lists(st.floats(0.05, 20), min_size=1, max_size=6))
def test_shares_are_within_a_row_of_the_weights(weights):
    counts = shares([str(i) for i in range(len(weights))], weights)
    assert sum(counts) == BLOCK
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - weight / sum(weights) * BLOCK) < 1.01


def test_the_proportions_of_the_paper():
    assert shares(["cosmopedia-v2", "fineweb-edu-dedup"], [28, 220]) == [113, 887]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_must_be_above_zero(weight):
    with pytest.raises(ValueError, match=rf"weight of b is {weight}"):
        shares(["a", "b"], [1.0, weight])


def test_a_weight_that_rounds_to_no_row_is_an_error():
    with pytest.raises(ValueError, match=r"weight of b is 1 of 5001, less than half a row in 1000"):
        shares(["a", "b"], [5000, 1])


@settings(max_examples=10, deadline=None)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=4), key=KEYS)
def test_each_source_counts_its_rows_in_order_and_has_its_share_of_each_block(weights, key):
    counts = shares([str(i) for i in range(len(weights))], weights)
    seen = [0] * len(weights)
    for index in range(2 * BLOCK):
        source, number = drawn(index, counts, key)
        assert number == seen[source]
        seen[source] += 1
        if (index + 1) % BLOCK == 0:
            assert seen == [count * (index + 1) // BLOCK for count in counts]


def test_each_block_has_an_order_of_its_own():
    orders = [[drawn(BLOCK * block + i, (500, 500), 7)[0] for i in range(BLOCK)] for block in range(2)]
    assert orders[0] != orders[1]
