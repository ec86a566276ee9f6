"""Which row comes when, by arithmetic: nothing is stored, so any step of a run can be asked for at once."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

BLOCK = 1000
"""In this many consecutive rows every source has its share exactly."""
ROUNDS = 6
_64 = (1 << 64) - 1


def key_of(*parts: object) -> int:
    """64 bits that stand for the parts, the same in every process and version of Python."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def permuted(index: int, n: int, key: int) -> int:
    """Element `index` of a permutation of 0..n-1 chosen by `key`.

    A Feistel network permutes the smallest square of a power of two that holds n, again until the result is below n
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, their cycle walking).
    """
    if not 0 <= index < n:
        raise ValueError(f"index {index} is not below {n}")
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mixed(right + key + (turn + 1) * 0x9E3779B97F4A7C15) & mask)
        index = left << half | right
        if index < n:
            return index


def shares(names: Sequence[str], weights: Sequence[float]) -> list[int]:
    """Rows of each source in a block, by largest remainder.

    Raises:
        ValueError: a weight that is not above 0, or so small that it rounds to no row.
    """
    for name, weight in zip(names, weights, strict=True):
        if not 0 < weight < float("inf"):
            raise ValueError(
                f"the weight of {name} is {weight}: a weight must be above 0; leave the source out instead"
            )
    total = sum(weights)
    for name, weight in zip(names, weights, strict=True):
        if weight / total * BLOCK < 0.5:
            raise ValueError(
                f"the weight of {name} is {weight} of {total:g}, less than half a row in {BLOCK}: raise it, or leave "
                "the source out"
            )
    exact = [weight / total * BLOCK for weight in weights]
    counts = [max(1, int(share)) for share in exact]
    while sum(counts) != BLOCK:
        way = 1 if sum(counts) < BLOCK else -1
        most = max(range(len(exact)), key=lambda i: way * (exact[i] - counts[i]))
        counts[most] += way
    return counts


def drawn(index: int, counts: Sequence[int], key: int) -> tuple[int, int]:
    """The source of row `index` of a run, and how many of the source's rows come before it.

    Every block of rows has an order of its own.
    """
    block, place = divmod(index, sum(counts))
    source, before = _block(tuple(counts), key_of(key, block))[place]
    return source, block * counts[source] + before


@lru_cache(maxsize=16)
def _block(counts: tuple[int, ...], key: int) -> list[tuple[int, int]]:
    """For each place of a block its source, and the places before it of the same source."""
    sources = [source for source, count in enumerate(counts) for _ in range(count)]
    seen = [0] * len(counts)
    order = []
    for place in range(len(sources)):
        source = sources[permuted(place, len(sources), key)]
        order.append((source, seen[source]))
        seen[source] += 1
    return order


def _mixed(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit of the result depends on every bit of x."""
    x &= _64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _64
    return x ^ x >> 31
