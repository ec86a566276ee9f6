"""Training rows of the demo: facts about who is where, questions about them, and background, in four kinds.

    pair        two facts about two people, one question
    repeated    two facts, told again and again up to the last segment; then both questions
    dense       a few facts, a few questions, and so on, with a little background
    scattered   facts and questions at uniformly drawn places of background text, as in evaluation

Labels are the ids of the answers, -100 elsewhere, not shifted (the model shifts them). Rows are right-padded, behind
everything that counts, so they need no mask. Each begins with the tokenizer's start token.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm2.data.babi import ACTORS, PLACES, Question, Story
from lm2.data.rows import IGNORED, TRIES, Encoder, Item
from lm2.data.world import MOVE
from lm2.demo.recipe import Phase, kind_at
from lm2.training import BatchRequest, Stage

PAD = 0
FACTS = (2, 3, 4, 6, 8, 10)
QUESTIONS = (1, 2, 4, 8)
"""What the numbers of facts and questions of a scattered row are drawn from, as far as the row has room."""
TOKENS_PER_ITEM = 16
LONGEST_PIECE = 12
"""Tokens of the background between the items of a dense row, at most."""


class Move(NamedTuple):
    """A fact: who went where, and its sentence."""

    actor: str
    place: str
    text: str


class Row:
    """A row being written: its ids and labels."""

    def __init__(self, opening: Sequence[int]):
        self.ids: list[int] = []
        self.labels: list[int] = []
        self.add(opening)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[int], labels: Sequence[int] | None = None) -> None:
        self.ids += ids
        self.labels += [IGNORED] * len(ids) if labels is None else labels

    def fitted(self, width: int) -> tuple[list[int], list[int]]:
        """(ids, labels) cut or padded to `width`."""
        missing = max(0, width - len(self))
        return (self.ids + [PAD] * missing)[:width], (self.labels + [IGNORED] * missing)[:width]


class RowMaker(Protocol):
    """Makes rows of the kinds that the phases of a recipe name."""

    def width(self, kind: str, segments: int) -> int: ...
    def row(self, kind: str, segments: int, rng: random.Random) -> tuple[list[int], list[int]]: ...


class Rows:
    """Makes rows.

    Args:
        tokenizer: one in which the words of bAbI are single tokens.
        background: sentences as token ids.
        segment_length: T.
        stories: real stories; scattered rows tell these, the other kinds always simulated moves.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        background: Sequence[list[int]],
        segment_length: int,
        stories: Sequence[Story] | None = None,
    ):
        self.encode, self.background, self.T = Encoder(tokenizer), background, segment_length
        self.stories = [[parse_move(fact) for fact in story.facts] for story in stories or ()]
        self.asked = len(self.encode.item(Question(f"Where is {ACTORS[0]}?", PLACES[0], ()))[0])
        self.told = max(len(self.encode(f" {ACTORS[0]} {verb} the {PLACES[0]}.")) for verb in MOVE)

    def width(self, kind: str, segments: int) -> int:
        """Tokens of every row of a kind."""
        if kind == "pair":
            return len(self.encode.opening) + 2 * self.told + self.asked
        if kind == "repeated":
            return (segments - 1) * self.T + 2 * self.asked + 4
        return segments * self.T

    def row(self, kind: str, segments: int, rng: random.Random) -> tuple[list[int], list[int]]:
        """(ids, labels) of one row, with at least one answer in it.

        Raises:
            ValueError: no answer fits.
        """
        make = {"pair": self._pair, "repeated": self._repeated, "dense": self._dense, "scattered": self._scattered}
        width = self.width(kind, segments)
        for _ in range(TRIES):
            ids, labels = make[kind](width, rng).fitted(width)
            if any(label != IGNORED for label in labels):
                return ids, labels
        raise ValueError(f"No question fits into a {kind} row of {width} tokens: use longer segments.")

    def _new(self) -> Row:
        return Row(self.encode.opening)

    def _pair(self, width: int, rng: random.Random) -> Row:
        row, moves = self._new(), _two_moves(rng)
        for move in moves:
            row.add(*self._fact(move))
        row.add(*self._question(rng.choice(moves)))
        return row

    def _repeated(self, width: int, rng: random.Random) -> Row:
        row, moves = self._new(), _two_moves(rng)
        border = width - 2 * self.asked - 4
        while len(row) < border:
            for move in rng.sample(moves, 2):
                row.add(*self._fact(move))
        row.ids, row.labels = row.fitted(border)
        row.add(rng.choice(self.background)[: rng.randint(0, 4)])
        for move in rng.sample(moves, 2):
            row.add(*self._question(move))
        return row

    def _dense(self, width: int, rng: random.Random) -> Row:
        row, latest = self._new(), {}
        filler = rng.choice((0.0, 0.3) if width == self.T else (0.0, 0.3, 0.6))
        while len(row) < width:
            for move in simulate_moves(rng, rng.randint(1 if latest else 2, 4), latest):
                self._pieces(row, filler, rng)
                row.add(*self._fact(move))
            self._pieces(row, filler, rng)
            for actor in rng.sample(sorted(latest), min(len(latest), rng.randint(1, 3))):
                row.add(*self._question(latest[actor]))
                self._pieces(row, filler / 2, rng)
        return row

    def _pieces(self, row: Row, chance: float, rng: random.Random) -> None:
        while rng.random() < chance:
            row.add(rng.choice(self.background)[: rng.randint(1, LONGEST_PIECE)])

    def _scattered(self, width: int, rng: random.Random) -> Row:
        """An empty row when what was drawn does not fit."""
        moves = self._moves(rng, min(rng.choice(FACTS), width // TOKENS_PER_ITEM + 1))
        n_questions = min(rng.choice(QUESTIONS), width // TOKENS_PER_ITEM)
        # facts are done before the end of the text, questions begin after its start
        order = [(rng.random() * 0.85, True) for _ in moves]
        order += [(0.1 + rng.random() * 0.9, False) for _ in range(n_questions)]
        items: list[Item] = []
        latest: dict[str, Move] = {}
        told = iter(moves)
        for _, is_fact in sorted(order):
            if is_fact:
                move = next(told)
                latest[move.actor] = move
                items.append(self._fact(move))
            elif latest:
                items.append(self._question(latest[rng.choice(sorted(latest))]))
        return self._scatter(items, width, rng)

    def _scatter(self, items: list[Item], width: int, rng: random.Random) -> Row:
        """Items in order between the sentences of background that fills the row; the gaps are drawn uniformly."""
        row = self._new()
        room = width - len(row) - sum(len(ids) for ids, _ in items)
        if room < 0:
            return row
        sentences: list[list[int]] = []
        at = rng.randrange(len(self.background))
        while room > 0:
            sentences.append(self.background[at][:room])
            room -= len(sentences[-1])
            at = (at + 1) % len(self.background)
        gaps = sorted(rng.randint(0, len(sentences)) for _ in items)
        placed = 0
        for gap in range(len(sentences) + 1):
            while placed < len(items) and gaps[placed] == gap:
                row.add(*items[placed])
                placed += 1
            if gap < len(sentences):
                row.add(sentences[gap])
        return row

    def _moves(self, rng: random.Random, n: int) -> list[Move]:
        return rng.choice(self.stories)[:n] if self.stories else simulate_moves(rng, n, {})

    def _fact(self, move: Move) -> Item:
        return self.encode.item(move.text)

    def _question(self, move: Move) -> Item:
        return self.encode.item(Question(f"Where is {move.actor}?", move.place, ()))


def simulate_moves(rng: random.Random, n: int, latest: dict[str, Move]) -> list[Move]:
    """`n` moves of people to places where they are not; `latest` has each person's last move and is kept up to date."""
    moves = []
    for _ in range(n):
        actor = rng.choice(ACTORS)
        place = rng.choice([p for p in PLACES if actor not in latest or p != latest[actor].place])
        latest[actor] = Move(actor, place, f"{actor} {rng.choice(MOVE)} the {place}.")
        moves.append(latest[actor])
    return moves


def parse_move(fact: str) -> Move:
    """Who went where in a fact of qa1.

    Raises:
        ValueError: the fact is of another task.

    >>> parse_move("Mary went back to the garden.").place
    'garden'
    """
    words = fact.rstrip(".").split()
    if words[0] not in ACTORS or words[-1] not in PLACES or " ".join(words[1:-2]) not in MOVE:
        raise ValueError(f"A fact of qa1 says who went where, and {fact!r} does not: use the files of qa1.")
    return Move(words[0], words[-1], fact)


def _two_moves(rng: random.Random) -> list[Move]:
    """Two people go to two places."""
    people, places = rng.sample(ACTORS, 2), rng.sample(PLACES, 2)
    return [Move(a, p, f"{a} {rng.choice(MOVE)} the {p}.") for a, p in zip(people, places, strict=True)]


def make_batch(
    rows: RowMaker, phases: tuple[Phase, ...], plan: tuple[Stage, ...], request: BatchRequest
) -> dict[str, Tensor]:
    """The rows of a step. A row of S segments stands for S rows of one, so every step has about as many tokens."""
    kind = kind_at(phases, plan, request.seed, request.step, request.segments)
    chosen = [index for index in request.rows if index % request.segments == 0]
    made = [rows.row(kind, request.segments, random.Random(f"{request.seed}/{request.step}/{i}")) for i in chosen]
    ids, labels = zip(*made, strict=True)
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
