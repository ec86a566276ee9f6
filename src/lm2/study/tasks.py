"""What the bake-off's models learn and are asked: rows of whole segments by arithmetic, and fixed sets of questions.

* once: keys with values told in the first segment, then noise. A question is "? key", and its answer is the label of
  the next position while the text goes on with noise, so that no question tells the answer again.
* qa1, qa2: simulated bAbI stories in generated background text.

Batches are numpy-seeded by (seed, step, row). A request's rows count blocks of 16 segments, so that a step has the same
number of tokens at each length.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lm2.data.babi import Question
from lm2.data.babilong import take_background
from lm2.data.background import GeneratedSentences
from lm2.data.pool import TokenPool
from lm2.data.rows import IGNORED, Encoder, TrainingRows, evaluation_samples
from lm2.data.tokenizer import train_tokenizer
from lm2.data.world import Dice, World
from lm2.demo.recipe import LONGEST
from lm2.demo.rows import Rows
from lm2.training import BatchRequest

BLOCK = 16
"""Segments of a block, the longest training row."""
TEST_SEED = 1_000_003
"""Seed of the questions, the same for all seeds of a study."""
NOISE_SEED = 1_000_033

Row = tuple[np.ndarray, np.ndarray]
"""Token ids and labels."""


@dataclass(frozen=True)
class Questions:
    """Texts (n, L) that end in a question each, and the tokens (n,) that answer them."""

    ids: Tensor
    answers: Tensor

    @property
    def constant(self) -> float:
        """Accuracy of the best constant answer."""
        return self.answers.bincount().max().item() / len(self.answers)


class Task:
    """A source of rows and questions; a subclass makes single rows."""

    name: str
    segment_length: int
    layers: int
    vocab_size: int
    lengths: tuple[int, ...]
    """Numbers of segments in the evaluation."""
    look_back: int = 0
    """LM2's look-back; no fact of `once` is cut by a border."""

    def base_row(self, rng: np.random.Generator, opening: bool) -> Row:
        """A row of at most one segment, for the backbone; `opening`: the simplest kind, which comes first."""
        raise NotImplementedError

    def row(self, rng: np.random.Generator, segments: int, opening: bool) -> Row:
        """A row of `segments` segments."""
        raise NotImplementedError

    def questions(self, segments: int, n: int) -> Questions:
        """The fixed questions at a length, each about a fact told in an earlier segment than the last."""
        raise NotImplementedError

    def noise(self, rows: int, segments: int, rng: np.random.Generator) -> Tensor:
        """Rows without any fact: (rows, segments T)."""
        raise NotImplementedError


class OnceTask(Task):
    """Keys and values, told once; noise symbols elsewhere. Token 0 asks."""

    name, segment_length, layers = "once", 16, 2
    lengths = (1, 4, 16, 64, 256, 1024)
    """Segments of noise between the fact's and the question's."""
    keys, noises, facts = 8, 15, 3
    vocab_size = 1 + 2 * keys + noises

    def base_row(self, rng: np.random.Generator, opening: bool) -> Row:
        return self.row(rng, 1, opening)

    def row(self, rng: np.random.Generator, segments: int, opening: bool) -> Row:
        T, cells = self.segment_length, self.segment_length // 2
        ids = self._noise(rng, segments * T)
        labels = np.full(segments * T, IGNORED)
        keys, values = self._told(rng)
        told = cells // 2 if segments == 1 else cells
        for cell, key, value in zip(self._cells(rng, told), keys, values, strict=True):
            ids[2 * cell : 2 * cell + 2] = key, value
        asked_in = [0] if segments == 1 else [s for s in range(1, segments) if s == segments - 1 or rng.random() < 0.5]
        for s in asked_in:
            first = told if segments == 1 else 0
            order = rng.permutation(self.facts)
            for cell, fact in zip(first + self._cells(rng, cells - first - 1), order, strict=True):
                at = s * T + 2 * cell
                ids[at : at + 2] = 0, keys[fact]
                labels[at + 2] = values[fact]
        return ids, labels

    def questions(self, segments: int, n: int) -> Questions:
        rng = np.random.default_rng([TEST_SEED, segments])
        T = self.segment_length
        ids = self._noise(rng, (n, (segments + 2) * T))
        answers = np.zeros(n, dtype=np.int64)
        for i in range(n):
            keys, values = self._told(rng)
            for cell, key, value in zip(self._cells(rng, T // 2), keys, values, strict=True):
                ids[i, 2 * cell : 2 * cell + 2] = key, value
            fact = rng.integers(self.facts)
            ids[i, -2:], answers[i] = (0, keys[fact]), values[fact]
        return Questions(torch.from_numpy(ids), torch.from_numpy(answers))

    def noise(self, rows: int, segments: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(self._noise(rng, (rows, segments * self.segment_length)))

    def _noise(self, rng: np.random.Generator, shape: int | tuple[int, int]) -> np.ndarray:
        return rng.integers(1 + 2 * self.keys, self.vocab_size, shape)

    def _told(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        keys = rng.choice(self.keys, self.facts, replace=False)
        return 1 + keys, 1 + self.keys + rng.integers(self.keys, size=self.facts)

    def _cells(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        return np.sort(rng.choice(cells, self.facts, replace=False))


class StoryTask(Task):
    """Simulated bAbI in generated text."""

    segment_length, look_back = 32, 8
    lengths = (2, 4, 16, 64, 256)
    """Segments of the text, the last one with the question, an earlier one with the decisive fact."""
    vocab_size = 1024

    @cached_property
    def tokenizer(self):
        texts = GeneratedSentences().sentences(np.random.default_rng(0))
        return train_tokenizer((next(texts) for _ in range(3000)), self.vocab_size)

    @cached_property
    def pool(self) -> TokenPool:
        return TokenPool(GeneratedSentences(), self.tokenizer, seed=0, n_tokens=300_000)

    @cached_property
    def test_pool(self) -> TokenPool:
        return TokenPool(GeneratedSentences(), self.tokenizer, seed=1, n_tokens=200_000)

    @cached_property
    def moves(self) -> Rows:
        """The demo's rows: who is where."""
        background = [self.pool.ids[i:j].tolist() for i, j in pairwise(self.pool.starts)]
        return Rows(self.tokenizer, background, self.segment_length)

    def questions(self, segments: int, n: int) -> Questions:
        T = self.segment_length
        found = evaluation_samples(self.name, n, segments * T, TEST_SEED, self.tokenizer, self.test_pool, "earlier", T)
        ids = torch.from_numpy(np.stack([sample.ids for sample in found]))
        return Questions(ids, torch.tensor([sample.answer_id for sample in found]))

    def noise(self, rows: int, segments: int, rng: np.random.Generator) -> Tensor:
        length = segments * self.segment_length
        return torch.from_numpy(np.stack([take_background(self.pool.sentences(rng), length)[0] for _ in range(rows)]))

    def _move_row(self, kind: str, segments: int, rng: np.random.Generator) -> Row:
        ids, labels = self.moves.row(kind, segments, random.Random(int(rng.integers(2**63))))
        return _padded(ids, labels, segments * self.segment_length)


class WhereIsWho(StoryTask):
    """qa1, with the demo's kinds of rows."""

    name, layers = "qa1", 2

    def base_row(self, rng: np.random.Generator, opening: bool) -> Row:
        return self._move_row("pair" if opening else rng.choice(["pair", "dense", "dense", "scattered"]), 1, rng)

    def row(self, rng: np.random.Generator, segments: int, opening: bool) -> Row:
        special = [kind for kind in ("repeated", "dense") if 1 < segments <= LONGEST[kind] or kind == "dense"]
        kind = "scattered" if rng.random() < 0.67 else rng.choice(special)
        return self._move_row("repeated" if opening else kind, segments, rng)


class WhereIsWhat(StoryTask):
    """qa2: the backbone first learns who is where, then what was taken there."""

    name, layers = "qa2", 3
    segment_length, look_back = 48, 12

    @cached_property
    def encode(self) -> Encoder:
        return Encoder(self.tokenizer)

    @cached_property
    def _dense(self) -> TrainingRows:
        return TrainingRows(self.name, self.tokenizer, None, max_facts=3, questions=2)

    @cached_property
    def _short(self) -> TrainingRows:
        return TrainingRows(self.name, self.tokenizer, self.pool, max_facts=6, questions=3, fact_density=1.0)

    @cached_property
    def _scattered(self) -> TrainingRows:
        return TrainingRows(self.name, self.tokenizer, self.pool, max_facts=30, questions=10)

    def base_row(self, rng: np.random.Generator, opening: bool) -> Row:
        kind = 0 if opening else rng.integers(6)
        if kind == 0:
            return self._move_row("pair", 1, rng)
        if kind <= 2:
            facts, asked = _story(self.name, rng, int(rng.integers(2, 5)))
            return self._joined(facts, asked, self.segment_length)
        return (self._dense if kind <= 4 else self._short).row(self.segment_length, rng)

    def row(self, rng: np.random.Generator, segments: int, opening: bool) -> Row:
        kind = rng.integers(4)
        if opening or (segments == 2 and kind == 0):
            return self._repeated(rng)
        if segments == 1:
            return self._short.row(self.segment_length, rng)
        dense = kind == 0 and segments <= LONGEST["dense"]
        return (self._dense if dense else self._scattered).row(segments * self.segment_length, rng)

    def _repeated(self, rng: np.random.Generator) -> Row:
        """A short story told over and over in one segment, and questions about its end in the next."""
        T = self.segment_length
        facts, asked = _story(self.name, rng, int(rng.integers(2, 4)))
        told = np.concatenate([self.encode(f" {fact}") for fact in facts])
        first = np.tile(told, -(-T // len(told)))[-T:]
        ids, labels = self._joined((), asked, T)
        return np.concatenate([first, ids]), np.concatenate([np.full(T, IGNORED), labels])

    def _joined(self, facts: Sequence[str], asked: Sequence[Question], length: int) -> Row:
        items = [self.encode.item(event) for event in (*facts, *asked)]
        ids, labels = (np.concatenate(part) for part in zip(*items, strict=True))
        return _padded(ids, labels, length)


def _padded(ids: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray, length: int) -> Row:
    """Cut or padded at the right: behind every label, so no mask is needed."""
    room = max(0, length - len(ids))
    padded = np.pad(np.asarray(ids), (0, room)), np.pad(np.asarray(labels), (0, room), constant_values=IGNORED)
    return padded[0][:length], padded[1][:length]


def _story(task: str, rng: np.random.Generator, n_facts: int) -> tuple[list[str], list[Question]]:
    """A story of `n_facts` facts and every question that a few draws find at its end."""
    dice = Dice(rng)
    while True:
        world = World(task, dice)
        for _ in range(n_facts):
            world.step()
        drawn = [question for _ in range(4) if (question := world.question()) is not None]
        if drawn:
            return world.facts, list({question.text: question for question in drawn}.values())


@cache
def load_task(name: str) -> Task:
    """The task of that name."""
    return {"once": OnceTask(), "qa1": WhereIsWho(), "qa2": WhereIsWhat()}[name]


def base_batch(request: BatchRequest, task: str, opening_steps: int) -> dict[str, Tensor]:
    """Rows of one segment."""
    source = load_task(task)
    return _batch([source.base_row(rng, request.step < opening_steps) for rng in _generators(request)])


def batch(request: BatchRequest, task: str, opening_steps: int) -> dict[str, Tensor]:
    """Rows of `request.segments` segments."""
    source, opening = load_task(task), request.step < opening_steps
    return _batch([source.row(rng, request.segments, opening) for rng in _generators(request)])


def _generators(request: BatchRequest) -> list[np.random.Generator]:
    rows = BLOCK // request.segments
    numbers = [block * BLOCK + i for block in request.rows for i in range(rows)]
    return [np.random.default_rng([request.seed, request.step, number]) for number in numbers]


def _batch(rows: list[Row]) -> dict[str, Tensor]:
    ids, labels = zip(*rows, strict=True)
    return {"input_ids": torch.from_numpy(np.stack(ids)), "labels": torch.from_numpy(np.stack(labels))}
