"""What a look into a memory finds."""

from dataclasses import dataclass

import numpy as np

MARKED = 3


def most_read(read_P: np.ndarray, n: int) -> list[int]:
    """The places of which most was read, n of them, from the first on; fewer where of fewer anything was read."""
    return [place for place in np.argsort(-read_P, kind="stable")[:n].tolist() if read_P[place] > 0]


@dataclass(frozen=True)
class Place:
    """Tokens of the text that were written, `first` to `first + tokens`, from character `at` on, and what is before.

    What a place is about is mostly told before it: a fact is written when its last word has been read. before_tokens:
    how many tokens `before` shows. written: the greatest rho, over tokens, heads and memories. attended: whether
    self-attention still sees some of it at the end.
    """

    before: str
    text: str
    at: int
    first: int
    tokens: int
    before_tokens: int
    written: float
    attended: bool


@dataclass(frozen=True)
class Asked:
    """A token of a question: the norm of what it read, and the place that it read most of, with its share; None
    where it read of no place."""

    text: str
    size: float
    place: int | None
    share: float


@dataclass(frozen=True)
class Tried:
    """A place that was not written, and the probability of the answer then.

    control: it was tried because it is written and hardly read, so that the answer should stay.
    """

    place: int
    probability: float
    control: bool


@dataclass(frozen=True)
class Answer:
    """What was answered, with which probability, and where what was read came from.

    nothing_written: the probability of the same answer when no token of the text is written. together: without all
    places of `tried` but the control. read_P: the share of each place in what the question's tokens read; start: of
    what the banks began with. What is missing from 1 is of tokens that are no longer told apart, that are written below
    the floor, or together with the question: its own, and those of the text's last segment if it was open.
    """

    question: str
    text: str
    probability: float
    nothing_written: float
    together: float
    tried: list[Tried]
    read_P: np.ndarray
    start: float
    tokens: list[Asked]

    def most_read(self, n: int) -> list[int]:
        """The places that were read most, from the first on."""
        return most_read(self.read_P, n)


@dataclass(frozen=True)
class Look:
    """What a model's memories did with a text, and with questions after it.

    floor: tokens of complete segments with rho above it are in places. mass_BSN: for each memory, complete segment and
    slot how much was written, 0 to 1, the greatest over heads.
    """

    places: list[Place]
    tokens: int
    floor: float
    segment_length: int
    layers: list[int]
    mass_BSN: np.ndarray
    answers: list[Answer]

    def summary(self) -> str:
        """How much was read and written, in a line."""
        written = sum(place.tokens for place in self.places)
        return (
            f"{self.tokens:,} tokens in segments of {self.segment_length}; {written:,} of them were written "
            f"(rho above {self.floor:g}), in {len(self.places):,} places."
        )

    def read_most(self) -> set[int]:
        """The places that each question read most, MARKED of them, which pictures and pages mark."""
        return {place for answer in self.answers for place in answer.most_read(MARKED)}
