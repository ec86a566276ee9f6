"""Rows of all tasks together: bAbI facts and questions in background text, closed by a question as evaluation asks it.

    pair        a short story without background and its last question: what binds names to places and things
    repeated    a short story told again and again up to the last segment; then its question
    dense       a story with as many facts and questions as the row has room for
    scattered   a story of any length, few questions, background in between: as in evaluation

The task of a row is drawn among all. A question within a row is plain text (" Where is Mary? garden."); the one that
closes it stands in BABILong's frame, and the answer ends with the end token:

    <context> ... Mary went to the garden. ... </context> Question: Where is Mary? garden<eos>

The things of a list are a token each: " apple", ",milk". Labels are the ids of the answers (and of the end token),
-100 elsewhere, not shifted. Rows are right-padded.
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.babi import Question, Story
from lm2.data.babilong import background_text, compose, take_background
from lm2.data.pool import Passages
from lm2.data.rows import IGNORED, TRIES, Encoder, Item, chosen, events
from lm2.data.world import MOST_FACTS, simulate_dense

BEFORE, AFTER = "<context>", "</context> Question:"
"""What BABILong's template puts before the text and before the question, white space aside."""
SHORT = {
    **{"qa1": (2, 2), "qa2": (3, 6), "qa3": (4, 7), "qa4": (2, 2), "qa5": (3, 6)},
    **{"qa6": (2, 4), "qa7": (2, 6), "qa8": (2, 6), "qa9": (2, 4), "qa10": (2, 4)},
}
"""Fewest and most facts of a short story."""
MOST = {
    **{"qa1": 10, "qa2": 40, "qa3": 80, "qa4": 2, "qa5": 40},
    **{"qa6": 20, "qa7": 30, "qa8": 30, "qa9": 10, "qa10": 10},
}
"""Most facts of a story; real ones have 2 to 10, 88, 228, 2, 94, 26, 52, 58, 10 and 10."""
FACT_TOKENS, QUESTION_TOKENS = 7, 16
"""Room for a fact, and for a question with what lies around it, about."""
QUESTIONS = (1, 2, 4, 8)
REAL = 0.5
"""Share of real stories among the longer ones where there are any."""


class JointRows:
    """Makes rows, each of one of the tasks.

    Args:
        tokenizer: one in which every answer, and every thing of a list, is a single token.
        pool: background.
        segment_length: T.
        stories: for each task its real stories, none for simulated ones only.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pool: Passages,
        segment_length: int,
        stories: Mapping[str, Sequence[Story]],
    ):
        self.encode, self.pool, self.T, self.stories = Encoder(tokenizer), pool, segment_length, stories
        self.tasks = tuple(stories)
        self.opening = [*self.encode.opening, *self.encode(BEFORE)]
        self.pad, self.end = tokenizer.pad_token_id, tokenizer.eos_token_id

    def width(self, kind: str, segments: int) -> int:
        """Tokens of every row of a kind."""
        return segments * self.T - (self.T // 2 if kind == "repeated" else 0)

    def row(self, kind: str, segments: int, rng: random.Random) -> tuple[list[int], list[int]]:
        """(ids, labels) of one row, with at least one answer in it.

        Raises:
            ValueError: nothing fits.
        """
        make = {"pair": self._pair, "repeated": self._repeated, "dense": self._dense, "scattered": self.scattered}
        width, draw = self.width(kind, segments), np.random.default_rng(rng.getrandbits(64))
        task = self.tasks[int(draw.integers(len(self.tasks)))]
        for _ in range(TRIES):
            made = make[kind](task, width, draw)
            if made is not None:
                ids, labels = made
                missing = width - len(ids)
                return ids + [self.pad] * missing, labels + [IGNORED] * missing
        raise ValueError(f"No question of {task} fits into a {kind} row of {width} tokens: use longer segments.")

    def quiet(self, segments: int, rng: random.Random) -> list[int]:
        """Text of so many segments that is background alone."""
        draw = np.random.default_rng(rng.getrandbits(64))
        return background_text(self.opening, self.pool.sentences(draw), segments * self.T)

    def _pair(self, task: str, width: int, draw: np.random.Generator) -> Item | None:
        story = short_story(task, draw)
        ids = [*self.opening, *(i for fact in story.facts for i in self.encode(f" {fact}"))]
        return self._closed(ids, [IGNORED] * len(ids), story.questions[-1][1], width)

    def _repeated(self, task: str, width: int, draw: np.random.Generator) -> Item | None:
        """Whole tellings only: part of one would tell another story."""
        story, border = short_story(task, draw), width - self.T // 2
        telling = [i for fact in story.facts for i in self.encode(f" {fact}")]
        times = (border - len(self.opening)) // len(telling)
        room = border - len(self.opening) - times * len(telling)
        filler, _ = take_background(self.pool.sentences(draw), room)
        ids = [*self.opening, *telling * times, *filler.tolist()]
        return self._closed(ids, [IGNORED] * len(ids), story.questions[-1][1], width) if times else None

    def _dense(self, task: str, width: int, draw: np.random.Generator) -> Item | None:
        most = max(SHORT[task][0], min(width // FACT_TOKENS, MOST_FACTS.get(task, width)))
        story = simulate_dense(task, draw, most)
        return self._written(story, 1 + width // QUESTION_TOKENS, width, draw)

    def scattered(self, task: str, width: int, draw: np.random.Generator) -> Item | None:
        """The row of a kind that has exactly `width` tokens and ends with the answer and the end token."""
        n_facts = 1 + int(draw.integers(min(MOST[task], width // FACT_TOKENS)))
        n_questions = min(QUESTIONS[int(draw.integers(len(QUESTIONS)))], 1 + width // QUESTION_TOKENS)
        return self._written(self._story(task, n_facts, draw), n_questions, width, draw)

    def _story(self, task: str, n_facts: int, draw: np.random.Generator) -> Story:
        real = self.stories[task]
        if not real or draw.random() >= REAL:
            return simulate_dense(task, draw, n_facts)
        story = real[int(draw.integers(len(real)))]
        facts = story.facts[: max(n_facts, story.questions[0][0])]
        return Story(facts, tuple((at, question) for at, question in story.questions if at <= len(facts)))

    def _written(self, story: Story, n_questions: int, width: int, draw: np.random.Generator) -> Item | None:
        """As much of a story as fits, up to one of its questions, with background that fills the row."""
        room = width - len(self.opening)
        items: list[Item] = []
        held, closing = 0, None
        for event in events(story, chosen(story, n_questions, draw)):
            if isinstance(event, Question) and held + len(self._closing(event)[0]) <= room:
                closing = len(items), event
            items.append(self.encode.item(event))
            held += len(items[-1][0])
            if held > room:
                break
        if closing is None:
            return None
        last, question = closing
        body = room - len(self._closing(question)[0])
        text, offsets = compose([ids for ids, _ in items[:last]], self.pool.sentences(draw), body, draw)
        labels = np.full(body, IGNORED)
        for (_, own), offset in zip(items[:last], offsets, strict=True):
            labels[offset : offset + len(own)] = own
        ids = [*self.opening, *text.tolist()]
        return self._closed(ids, [IGNORED] * len(self.opening) + labels.tolist(), question, width)

    def _closed(self, ids: list[int], labels: list[int], question: Question, width: int) -> Item | None:
        """The row with its last question; None when that does not fit."""
        closing_ids, closing_labels = self._closing(question)
        if len(ids) + len(closing_ids) > width:
            return None
        return ids + closing_ids, labels + closing_labels

    def _closing(self, question: Question) -> Item:
        asked, answer = self.encode(f" {AFTER} {question.text}"), [*self.encode(f" {question.answer}"), self.end]
        return asked + answer, [IGNORED] * len(asked) + answer


def short_story(task: str, draw: np.random.Generator) -> Story:
    """A story of a few facts with a question at its end; two facts of qa1 are of two people.

    Without rows of exactly two people training stays on the plateau of naming some place of the text.
    """
    fewest, most = SHORT[task]
    while True:
        story = simulate_dense(task, draw, int(draw.integers(fewest, most + 1)))
        asked_at_end = bool(story.questions) and story.questions[-1][0] == len(story.facts)
        if asked_at_end and (task != "qa1" or len({fact.split()[0] for fact in story.facts}) == 2):
            return story
