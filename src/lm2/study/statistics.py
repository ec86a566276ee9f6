"""The hazard per segment."""

import math


def hazard(near: float, far: float, segments: int) -> float | None:
    """h, the loss per segment, if accuracy falls like exp(-h n): ln(near / far) / segments. None if undefined."""
    if near <= 0 or far <= 0:
        return None
    return math.log(near / far) / segments
