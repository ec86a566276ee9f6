"""BABILong samples: bAbI facts hidden in books, made here, exactly as the released sets were made.

A sample knows where its facts stand and which stretches of which books lie between them; its text is put together only
when it is read, piece by piece, so a sample of 10 million tokens is never one string. Each sample has a random
generator of its own, seeded by (seed, task, length, question), so it is the same whichever samples are made before it
and on whichever process.

Composition (Kuratov et al. 2024, arXiv:2406.10149, and the released generator): background of L - 300 - (tokens of the
facts) tokens, its last sentence cut; for each fact one gap between sentences, uniform with replacement, then sorted; a
space before every fact and sentence; stripped. At 0k there is no background.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Protocol

import numpy as np

from lm2.data import babi
from lm2.data.world import simulate
from lm2.evaluation.sentences import Background, Stretch
from lm2.evaluation.sets import TASKS, check_task, max_facts, released_rows
from lm2.evaluation.tokens import RESERVED, n_tokens

PIECE_CHARS = 2000
SIMULATED_QUESTIONS = 1000

_NO_SPACE = ("qa4", "qa15", "qa16", "qa17", "qa18", "qa19", "qa20")
"""Tasks whose questions do not end with a space, as those of the other files do."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact, whether it supports the answer, and how far it is from the question.

    `distance` counts tokens of the length tokenizer from the fact's end to the context's end; None if unknown.
    """

    text: str
    supporting: bool
    distance: int | None


class Content(Protocol):
    """Something that a context can be read from."""

    def pieces(self) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and its context. `index` is the row in its released set, counted from 0."""

    task: str
    length: str
    index: int
    question: str
    target: str
    facts: tuple[Fact, ...]
    content: Content = field(repr=False, compare=False)

    @property
    def story(self) -> str:
        """A short hash of how the story begins, the same for all questions about it; of unknown facts, of the row."""
        begins = [fact.text for fact in self.facts[:2]] or [str(self.index)]
        return hashlib.sha256("\n".join([self.task, *begins]).encode()).hexdigest()[:8]

    def text(self) -> Iterator[str]:
        """The context in order, in pieces of a few sentences that begin with their space (all but the first)."""
        return grouped(stripped(self.content.pieces()))

    def context(self) -> str:
        """The whole context; for lengths that fit into memory."""
        return "".join(self.text())


class SampleSource(Protocol):
    """Where samples come from: made here, read from a file, or downloaded."""

    @property
    def description(self) -> dict:
        """What a report says of the samples."""
        ...

    def samples(self, task: str, length: str) -> Iterator[Sample]:
        """The samples of a cell, in the order of its set. Raises ValueError for an unknown task or length."""
        ...


@dataclass(frozen=True)
class LocalBabilong:
    """Samples made from the bAbI test files and a background.

    Args:
        babi: the folder or zip with the bAbI files; None for questions of the simulator, which has qa1 to qa10.
        background: what lies between the facts; its tokenizer counts the length.
        size: rows as in the released sets of 100 or 1,000 samples a cell.
        seed: another seed gives other places and other background for the same questions.
        depth: only gaps in this part of the text, such as (0.4, 0.6), hold facts; None is the whole text.
    """

    babi: Path | None
    background: Background
    size: int = 100
    seed: int = 0
    depth: tuple[float, float] | None = None

    @property
    def description(self) -> dict:
        """What a report says about the samples."""
        return {
            "samples": "made here",
            "set": self.size,
            "questions": "simulated" if self.babi is None else f"bAbI test files, {Path(self.babi).name}",
            "background": self.background.name,
            "length_tokenizer": self.background.tokenizer.name,
            "seed": self.seed,
            "depth": list(self.depth) if self.depth else None,
        }

    def samples(self, task: str, length: str) -> Iterator[Sample]:
        """The samples of a cell.

        Raises:
            ValueError: unknown task, length or set; no file of the task; a corrupt bAbI line; no gap within `depth`.
        """
        check_task(task)
        most = max_facts(length)
        rows = [(number, q) for number, q in enumerate(self._questions(task)) if most is None or len(q.facts) <= most]
        # which rows were released says nothing about simulated questions
        kept = (
            range(min(self.size, len(rows))) if self.babi is None else released_rows(task, length, self.size, len(rows))
        )
        for index, row in enumerate(kept):
            number, question = rows[row]
            rng = np.random.default_rng([self.seed, TASKS.index(task) + 1, n_tokens(length), number])
            yield compose(question, length, index, self.background, rng, self.depth)

    def _questions(self, task: str) -> Sequence[babi.Sample]:
        return _simulated(task, self.seed) if self.babi is None else _read(Path(self.babi), task)


def compose(
    question: babi.Sample,
    length: str,
    index: int,
    background: Background,
    rng: np.random.Generator,
    depth: tuple[float, float] | None = None,
) -> Sample:
    """One sample: background drawn, facts placed. Nothing of the context is kept as text but the facts.

    Raises:
        ValueError: no gap lies within `depth`.
    """
    facts = np.array(background.tokenizer.count([f" {fact}" for fact in question.facts]), dtype=np.int64)
    size = n_tokens(length) - RESERVED
    room = max(0, size - int(facts.sum()))
    longest = int((depth[1] - depth[0]) * size / 2) if depth else None
    stretches, counts = background.draw(rng, room, longest)
    starts = np.concatenate([[0], np.cumsum(counts)])  # of each gap, in tokens of the background
    starts[-1] = room
    allowed = np.arange(len(starts)) if depth is None else _gaps_within(depth, starts, size, int(facts.sum()))
    gaps = np.sort(rng.choice(allowed, len(facts)))
    after = facts.sum() - np.cumsum(facts)
    distances = room - starts[gaps] + after
    last = int(room - starts[-2]) if room else 0
    content = Composition(background, tuple(stretches), longest, last, question.facts, gaps)
    return Sample(
        question.task,
        length,
        index,
        question.question.rstrip() + ("" if question.task in _NO_SPACE else " "),
        question.answer,
        tuple(
            Fact(text, number in question.support, int(distance))
            for number, (text, distance) in enumerate(zip(question.facts, distances, strict=True))
        ),
        content,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """Facts in their gaps; `last_tokens` of the last background sentence are used."""

    background: Background
    stretches: tuple[Stretch, ...]
    longest: int | None
    last_tokens: int
    facts: tuple[str, ...]
    gaps: np.ndarray

    def pieces(self) -> Iterator[str]:
        """Facts and sentences in order, each with a space before it."""
        facts = iter([*zip(self.gaps.tolist(), self.facts, strict=True)])
        gap, fact = next(facts, (None, ""))
        number = -1
        for number, sentence in enumerate(self._sentences()):
            while gap == number:
                yield f" {fact}"
                gap, fact = next(facts, (None, ""))
            yield sentence
        while gap is not None:
            assert gap == number + 1, "a gap lies behind the last sentence"
            yield f" {fact}"
            gap, fact = next(facts, (None, ""))

    def _sentences(self) -> Iterator[str]:
        held = None
        for sentence in self.background.sentences(self.stretches, self.longest):
            if held is not None:
                yield held
            held = sentence
        if held is not None:
            yield self.background.tokenizer.cut(held, self.last_tokens)


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of the stripped text: no white space before the first word and after the last."""
    held = ""
    started = False
    for piece in pieces:
        held += piece
        kept = held.rstrip() if started else held.strip()
        if kept:
            yield kept
            started, held = True, held[len(held.rstrip()) :]


def grouped(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of about 2,000 characters."""
    group: list[str] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > PIECE_CHARS and group:
            yield "".join(group)
            group, size = [], 0
        group.append(piece)
        size += len(piece)
    if group:
        yield "".join(group)


def _gaps_within(depth: tuple[float, float], starts: np.ndarray, size: int, facts: int) -> np.ndarray:
    """The gaps from which the facts still end within the range: start <= gap < end - facts, in tokens."""
    first, last = int(depth[0] * size), int(depth[1] * size) - facts
    allowed = np.flatnonzero((starts[:-1] >= first) & (starts[:-1] < last))
    if not len(allowed):
        raise ValueError(
            f"No gap between sentences lies within {depth[0]} to {depth[1]} of {size} tokens when the facts need "
            f"{facts}: choose a wider part or a longer text."
        )
    return allowed


@cache
def _read(path: Path, task: str) -> Sequence[babi.Sample]:
    return tuple(babi.samples(task, babi.read_stories(path, task, "test")))


@cache
def _simulated(task: str, seed: int) -> Sequence[babi.Sample]:
    if task not in TASKS[:10]:
        raise ValueError(f"The simulator has qa1 to qa10, not {task}: give the folder with the bAbI files.")
    rng = np.random.default_rng([seed, TASKS.index(task) + 1])
    stories = (simulate(task, rng) for _ in count())
    return tuple(islice(babi.samples(task, stories), SIMULATED_QUESTIONS))
