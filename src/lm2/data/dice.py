"""Cheap random draws for the simulators."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Cheap single draws: uniforms are taken from the generator in blocks."""

    def __init__(self, rng: np.random.Generator):
        self._rng, self._block = rng, []

    def uniform(self) -> float:
        if not self._block:
            self._block = self._rng.random(64).tolist()
        return self._block.pop()

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.uniform() * len(options))]
