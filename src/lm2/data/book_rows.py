"""Rows of book text, plain or with facts about people and questions about them, for the trainings of a model of books.

    text        book text alone; every token has a loss
    echo        the same told of two to four people, then names, each followed at once by what was told of it, again and
                again to the end ("Konrad Vienna Alma Rome Konrad Vienna"): what binds names to what is told of them
    pair        two such facts and one question, in half a segment
    repeated    two such facts told again and again, then questions about both in the last segment
    dense       facts and questions with little text between
    scattered   facts and questions at uniformly drawn places of the text, as in evaluation

In all but the first only the answers have a loss, and in the last two what ends one of them, a full stop and the end.
Without echoes, where a name stands right before its answer and a row has more than ten of them, no backbone tried
learned to tell two people apart (docs/log.md, 2026-11-29). Labels are not shifted (the model shifts them).
"""

import random
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.babi import Question
from lm2.data.babilong import background_text, take_background
from lm2.data.background import TEXT_SUFFIXES, BookSentences
from lm2.data.encoding import fingerprint
from lm2.data.people import MOST, Stories, tell_alike
from lm2.data.pool import TokenPool
from lm2.data.rows import IGNORED, Encoder, Item, TrainingRows
from lm2.files import name_and_digest

Row = tuple[list[int], list[int]]
"""Token ids and labels."""
ECHOED = 4
"""People of a row of echoes, at most."""


@dataclass(frozen=True, kw_only=True)
class BookRows:
    """Makes rows of the kinds above for `lm2.demo.rows.make_batch`.

    Args:
        tokenizer: any; in those of small models names and values are single tokens.
        books: a file or a folder.

    Raises:
        ValueError, FileNotFoundError: the books cannot be read.
    """

    tokenizer: InitVar[PreTrainedTokenizerBase]
    books: InitVar[Path]
    segment_length: int
    """T of the model; two facts and a question must fit into about half of it"""
    pool_tokens: int = 3_000_000
    """Tokens of the books' sentences that rows are made of"""
    texts: str = field(init=False)
    """What books and tokenizer are: others are another run"""

    def __post_init__(self, tokenizer: PreTrainedTokenizerBase, books: Path):
        vars(self)["texts"] = f"books {name_and_digest(books, TEXT_SUFFIXES)}, tokenizer {fingerprint(tokenizer)[:12]}"
        vars(self)["_tokenizer"], vars(self)["_books"] = tokenizer, BookSentences(books)

    @cached_property
    def pool(self) -> TokenPool:
        """The books as token ids."""
        return TokenPool(vars(self)["_books"], vars(self)["_tokenizer"], seed=1, n_tokens=self.pool_tokens)

    @cached_property
    def encode(self) -> Encoder:
        return Encoder(vars(self)["_tokenizer"])

    @cached_property
    def _told(self) -> dict[str, TrainingRows]:
        def rows(seed: int, questions: int, density: float, pairs: bool = False) -> TrainingRows:
            stories = Stories(seed, pairs=pairs)
            return TrainingRows("facts", vars(self)["_tokenizer"], self.pool, MOST, questions, density, stories)

        return {"pair": rows(0, 1, 1.0, pairs=True), "dense": rows(1, 10, 1.0), "scattered": rows(2, 5, 0.5)}

    def width(self, kind: str, segments: int) -> int:
        """Tokens of every row of a kind."""
        return self.segment_length // 2 + 4 if kind == "pair" else segments * self.segment_length

    def quiet(self, segments: int, rng: random.Random) -> list[int]:
        """Text of so many segments in which nothing is told of the people."""
        return self.row("text", segments, rng)[0]

    def row(self, kind: str, segments: int, rng: random.Random) -> Row:
        """(ids, labels) of one row.

        Raises:
            ValueError: nothing fits.
        """
        draw = np.random.default_rng(rng.getrandbits(64))
        width = self.width(kind, segments)
        own = {"text": self._text, "echo": self._echo, "repeated": self._repeated}
        if kind in own:
            return own[kind](width, draw)
        ids, labels = self._told[kind].row(width, draw)
        if kind != "pair":
            self._end_one(ids, labels, draw)
        return ids.tolist(), labels.tolist()

    def _end_one(self, ids: np.ndarray, labels: np.ndarray, draw: np.random.Generator) -> None:
        """Label what ends one of the answers: its full stop, and then the end, which the row does not have.

        One, for labels that are easy take weight from the others.
        """
        stops = np.flatnonzero((labels[:-2] != IGNORED) & (ids[1:-1] == self.encode(".")[0])) + 1
        end = vars(self)["_tokenizer"].eos_token_id
        if len(stops) and end is not None:
            at = int(draw.choice(stops))
            labels[at : at + 2] = ids[at], end

    def _text(self, width: int, draw: np.random.Generator) -> Row:
        text = background_text(self.encode.opening, self.pool.sentences(draw), width)
        return text, text

    def _echo(self, width: int, draw: np.random.Generator) -> Row:
        story = tell_alike(int(draw.integers(2, 1 + ECHOED)), draw)
        about = {question.support[0]: question for _, question in story.questions}
        told, echoes = list(self.encode.opening), []
        for number, fact in enumerate(story.facts):
            if len(echoes) >= 2 and len(told) + len(self.encode(f" {fact}")) > width // 2:
                break
            told += self.encode(f" {fact}")
            echoes.append(self._named(fact, about[number]))
        room, echoed = width - len(told), []
        while len((one := echoes[int(draw.integers(len(echoes)))])[0]) <= room:
            echoed.append(one)
            room -= len(one[0])
        if not echoed:
            raise ValueError(f"{width} tokens hold no echo after two facts: use longer segments.")
        filler = take_background(self.pool.sentences(draw), room)[0].tolist()
        start = told + filler
        ids, labels = ([i for own in part for i in own] for part in zip(*echoed, strict=True))
        return start + ids, [IGNORED] * len(start) + labels

    def _named(self, fact: str, question: Question) -> Item:
        """The name that a fact begins with, and the question's answer."""
        name, answer = self.encode(f" {fact.split()[0]}"), self.encode(f" {question.answer}")
        return name + answer, [IGNORED] * len(name) + answer

    def _repeated(self, width: int, draw: np.random.Generator) -> Row:
        story = tell_alike(2, draw)
        asked = [self.encode.item(question) for _, question in story.questions]
        room = width - len(self.encode.opening) - self.segment_length
        telling = [i for fact in story.facts for i in self.encode(f" {fact}")]
        questions = sum(len(ids) for ids, _ in asked)
        if len(telling) > room or questions > self.segment_length:
            raise ValueError(
                f"two facts have {len(telling)} tokens and the questions about them {questions}, which must fit into "
                f"{room} and into a segment of {self.segment_length}: use longer segments."
            )
        told = (telling * (1 + room // len(telling)))[: room // len(telling) * len(telling)]
        gap = room - len(told) + self.segment_length - questions
        filler = take_background(self.pool.sentences(draw), gap)[0].tolist()
        ids = [*self.encode.opening, *told, *filler]
        labels = [IGNORED] * len(ids)
        for own, answers in asked:
            ids, labels = ids + own, labels + answers
        return ids, labels
