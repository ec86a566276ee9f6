"""Intervals over questions and over seeds, and the hazard per segment."""

import math
from collections.abc import Sequence

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
Z_975 = 1.960


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of two or more values (Student's t), not cut to possible values."""
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least 2 values, and there is {n}: use wilson for one")
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = T_975[n - 2] if n - 2 < len(T_975) else Z_975 * (1 + 1 / (n - 1))
    half = quantile * deviation / math.sqrt(n)
    return mean - half, mean + half


def hazard(near: float, far: float, segments: int) -> float | None:
    """h, the loss per segment, if accuracy falls like exp(-h n): ln(near / far) / segments. None if undefined."""
    if near <= 0 or far <= 0:
        return None
    return math.log(near / far) / segments
