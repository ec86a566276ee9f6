"""Statistics: the interval of a share and of a mean over seeds, and the exact paired test of two models with its p."""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959964
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


def t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: from the table, beyond it by Fisher's expansion in 1 / freedom.

        t = z + (z^3 + z) / 4f + (5z^5 + 16z^3 + 3z) / 96f^2 + (3z^7 + 19z^5 + 17z^3 - 15z) / 384f^3

    Source: Abramowitz and Stegun, 26.7.5.
    """
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = Z95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `correct` in `n`.

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)          p = correct/n, z = 1.96

    Raises:
        ValueError: `n` below 1, or `correct` outside 0 .. n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"an interval needs 0 <= correct <= n and n >= 1, they are {correct} and {n}")
    share, z2 = correct / n, Z95**2 / n
    middle = share + z2 / 2
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values (Student's t), not cut to possible values.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least 2 values, and there is {n}: use wilson for one")
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_975(n - 1) * deviation / math.sqrt(n)
    return mean - half, mean + half


def sign_flip(differences: Sequence[int]) -> float:
    """Two-sided exact p that two models answer the same questions equally well.

    Each difference is of one cluster of questions that hang together, such as those about one story: how many the first
    has right more than the second. If neither is better, each is as likely of the other sign, independently:
    p = P(|sum of +-d| >= |sum of d|). 1 when all are 0. With a question a cluster it is McNemar's exact test.

    Source: Fisher 1935, "The Design of Experiments", section 21; McNemar 1947, "Note on the sampling error of the
    difference between correlated proportions".
    """
    chance = np.ones(1)  # of the sums, in order, from -total to total
    for size in (abs(difference) for difference in differences if difference):
        chance = (np.pad(chance, (0, 2 * size)) + np.pad(chance, (2 * size, 0))) / 2
    total = len(chance) // 2
    beyond = total - abs(sum(differences)) + 1
    return min(1.0, float(2 * chance[:beyond].sum()))


def p_value(p: float) -> str:
    """With two digits; what is too small for a floating-point number is so."""
    return f"{p:.2g}" if p else "< 1e-300"
