"""Training rows and evaluation samples: bAbI facts and questions in background text, as token ids.

Everything is plain text, each sentence with a space before it, behind the tokenizer's start token if it has one:

    training     ... Mary went to the garden. <text> Where is Mary? garden. <text> ... Where is Mary? office.
    evaluation   ... Mary went to the garden. <text> ... Where is Mary?     (the answer is to be predicted)

Questions stand all along a training row, each after facts that decide it, and the last one closes the row, where
evaluation asks. Labels are the ids of the answers, -100 elsewhere, not shifted (the model shifts them).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm2.data.babi import Question, Sample, Story, samples
from lm2.data.babilong import compose, draw_offsets, merge, take_background
from lm2.data.packing import IGNORED
from lm2.data.pool import TokenPool
from lm2.data.tokenizer import opening
from lm2.data.world import MOST_FACTS, simulate, simulate_dense

TRIES = 1000
"""Stories drawn for one row or sample before the request is called impossible."""

Where = Literal["any", "earlier", "own"]
Item = tuple[list[int], list[int]]
"""Token ids and labels of a fact, or of a question with its answer."""


class Encoder:
    """Token ids of sentences, remembered: bAbI has few different ones."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.opening = opening(tokenizer)
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self._known[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def item(self, event: str | Question) -> Item:
        """A fact; or question, answer and full stop, with only the answer labelled."""
        if isinstance(event, str):
            ids = self(f" {event}")
            return ids, [IGNORED] * len(ids)
        asked, answer, stop = self(f" {event.text}"), self(f" {event.answer}"), self(".")
        return asked + answer + stop, [IGNORED] * len(asked) + answer + [IGNORED] * len(stop)


def check_amounts(max_facts: int, questions: int, fact_density: float) -> None:
    """Raises ValueError if `TrainingRows` cannot have these."""
    if max_facts < 1 or questions < 1:
        raise ValueError(f"max_facts ({max_facts}) and questions ({questions}) must be at least 1.")
    if not 0 < fact_density <= 1:
        raise ValueError(f"fact_density is a share of the row, above 0 and at most 1, not {fact_density}.")


class TrainingRows:
    """Rows of one task for training.

    Args:
        task: one of qa1 to qa10; any task when `stories` are given.
        tokenizer: any Hugging Face tokenizer.
        background: text between the facts; None fills rows with facts and questions alone, as one long story.
        max_facts: a row's story has 1 to this many facts (qa4: to two), drawn uniformly (not used without background).
        questions: at most this many questions in a row (without background: one after every
            `max_facts / questions` facts on average).
        fact_density: largest share of a row's tokens that facts and questions may take; the story is cut to it.
        stories: real stories to draw from instead of simulated ones.
        question_first: whether a row with background begins with the question that closes it, which then tells what to
            look for.
    """

    def __init__(
        self,
        task: str,
        tokenizer: PreTrainedTokenizerBase,
        background: TokenPool | None,
        max_facts: int = 10,
        questions: int = 5,
        fact_density: float = 0.5,
        stories: Sequence[Story] | None = None,
        question_first: bool = False,
    ):
        check_amounts(max_facts, questions, fact_density)
        if background is None and stories is not None:
            raise ValueError("Real stories are shorter than a row: give background text, or leave stories out.")
        if background is None and task in MOST_FACTS:
            most = MOST_FACTS[task]
            raise ValueError(f"A story of {task} has {most} facts, too few for a row: give background text.")
        self.task, self.background, self.stories = task, background, stories
        self.max_facts, self.questions, self.fact_density = max_facts, questions, fact_density
        self.question_first = question_first
        self._encode = Encoder(tokenizer)

    def row(self, n_tokens: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(input_ids, labels) of exactly `n_tokens` each, with at least one answer.

        Raises:
            ValueError: no question fits into the row.
        """
        for _ in range(TRIES):
            row = self._scattered(n_tokens, rng, self.background) if self.background else self._filled(n_tokens, rng)
            if row is not None:
                return row
        raise ValueError(
            f"No question of {self.task} fits into {n_tokens} tokens at a fact_density of "
            f"{1 if self.background is None else self.fact_density} with {self.max_facts} facts: "
            "use longer rows, a higher density or more facts."
        )

    def batch(self, n_rows: int, n_tokens: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`n_rows` rows: (input_ids, labels), each (n_rows, n_tokens)."""
        ids, labels = zip(*(self.row(n_tokens, rng) for _ in range(n_rows)), strict=True)
        return np.stack(ids), np.stack(labels)

    def _scattered(
        self, n_tokens: int, rng: np.random.Generator, background: TokenPool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """A row with background; None when no question of the story drawn fits."""
        story = self._story(rng)
        budget, last = int(self.fact_density * (n_tokens - len(self._encode.opening))), 0
        items, opening = [], self._encode.opening
        for event in events(story, chosen(story, self.questions, rng)):
            items.append(self._encode.item(event))
            budget -= len(items[-1][0])
            if budget < 0:
                break
            if isinstance(event, Question):
                last = len(items)
                opening = self._opening(event)
        if last == 0 or len(opening) + sum(len(ids) for ids, _ in items[:last]) > n_tokens:
            return None
        (*ids, closing_ids), (*labels, closing_labels) = zip(*items[:last], strict=True)
        start = len(opening)
        body = n_tokens - start - len(closing_ids)
        text, offsets = compose(ids, background.sentences(rng), body, rng)
        target = np.full(n_tokens, IGNORED)
        for label, offset in zip([*labels, closing_labels], [*offsets, body], strict=True):
            target[start + offset : start + offset + len(label)] = label
        return np.concatenate([opening, text, closing_ids]).astype(np.int64), target

    def _opening(self, closing: Question) -> list[int]:
        """What stands before the text of a row that ends in this question."""
        return self._encode.opening + (self._encode(f" {closing.text}") if self.question_first else [])

    def _story(self, rng: np.random.Generator) -> Story:
        if self.stories is None:
            most = min(self.max_facts, MOST_FACTS.get(self.task, self.max_facts))
            return simulate_dense(self.task, rng, n_facts=int(rng.integers(1, most + 1)))
        story = self.stories[int(rng.integers(len(self.stories)))]
        facts = story.facts[: self.max_facts]
        return Story(facts, tuple((at, question) for at, question in story.questions if at <= len(facts)))

    def _filled(self, n_tokens: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """A row of facts and questions alone, cut at its end; None when that leaves no question."""
        n_facts = n_tokens // 4 + 1  # no fact has fewer than four words
        story = simulate_dense(self.task, rng, n_facts)
        asked = chosen(story, max(1, n_facts * self.questions // self.max_facts), rng)
        first = self._encode.opening
        items = [(first, [IGNORED] * len(first)), *(self._encode.item(event) for event in events(story, asked))]
        ids, target = (np.concatenate(part)[:n_tokens].astype(np.int64) for part in zip(*items, strict=True))
        return (ids, target) if (target != IGNORED).any() else None


@dataclass(frozen=True)
class EvaluationSample:
    """A text that ends in a question; the answer is to be predicted at its last token."""

    ids: np.ndarray
    """Token ids, (n_tokens,)."""
    answer_ids: tuple[int, ...]
    """Token ids of the answer with a space before it."""
    fact_offsets: tuple[int, ...]
    """Token offset of each fact."""
    question_offset: int
    sample: Sample

    @property
    def answer_id(self) -> int:
        """First token of the answer."""
        return self.answer_ids[0]

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    @property
    def fact_offset(self) -> int:
        """Token offset of the decisive fact: the latest supporting one."""
        return self.fact_offsets[max(self.sample.support)]

    @property
    def distance(self) -> int:
        """Tokens from the start of the decisive fact to the start of the question."""
        return self.question_offset - self.fact_offset


def evaluation_samples(
    task: str,
    n: int,
    n_tokens: int | None,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    background: TokenPool | None = None,
    where: Where = "any",
    segment_length: int | None = None,
    real: Sequence[Sample] | None = None,
) -> list[EvaluationSample]:
    """`n` samples of exactly `n_tokens` tokens, the question included (None: facts and question alone).

    A sample does not depend on `n`: more samples begin with the same ones. Samples that do not fit into
    `n_tokens`, or whose decisive fact did not fall `where` it should, are passed over.

    Args:
        where: "own": the decisive (latest supporting) fact lies wholly in the last segment, with the question's end;
            "earlier": wholly before it; "any". The first two need `segment_length`.
        real: samples to use in order instead of simulated ones.

    Raises:
        ValueError: arguments that contradict each other, or too few samples that fit.
    """
    border = _check_evaluation(n_tokens, background, where, segment_length)
    encode = Encoder(tokenizer)
    found: list[EvaluationSample] = []
    passed = 0
    for sample, rng in _candidates(task, seed, real):
        if len(found) == n:
            return found
        placed = _place(sample, n_tokens, rng, encode, background, where, border)
        if placed is not None:
            found.append(placed)
        passed = passed + 1 if placed is None else 0
        if passed == TRIES and real is None:
            break
    if len(found) == n:
        return found
    raise ValueError(
        f"Only {len(found)} of {n} samples of {task} fit into {n_tokens} tokens with where={where!r} and "
        f"segment_length={segment_length}: use a longer text, fewer samples or where='any'."
    )


def _check_evaluation(
    n_tokens: int | None, background: TokenPool | None, where: str, segment_length: int | None
) -> int:
    """Checks the arguments; returns where the last segment starts (0 when that does not matter)."""
    if where not in ("any", "earlier", "own"):
        raise ValueError(f"where is 'any', 'earlier' or 'own', not {where!r}.")
    if n_tokens is not None and background is None:
        raise ValueError(f"A text of exactly {n_tokens} tokens needs background text; n_tokens=None goes without.")
    if where == "any":
        return 0
    if segment_length is None or n_tokens is None:
        raise ValueError(
            f"where={where!r} needs segment_length and n_tokens, they are {segment_length} and {n_tokens}."
        )
    if where == "earlier" and n_tokens <= segment_length:
        raise ValueError(f"{n_tokens} tokens in segments of {segment_length} are one segment: nothing is earlier.")
    return (n_tokens - 1) // segment_length * segment_length


def _candidates(task: str, seed: int, real: Sequence[Sample] | None) -> Iterator[tuple[Sample, np.random.Generator]]:
    """Samples, each with a generator of its own."""
    at = 0
    while real is None or at < len(real):
        rng = np.random.default_rng([seed, at])
        if real is None:
            options = list(samples(task, [simulate(task, rng)]))
            yield options[rng.integers(len(options))], rng
        else:
            yield real[at], rng
        at += 1


def _place(
    sample: Sample,
    n_tokens: int | None,
    rng: np.random.Generator,
    encode: Encoder,
    background: TokenPool | None,
    where: Where,
    border: int,
) -> EvaluationSample | None:
    """The sample in its text; None when it does not fit or the decisive fact does not fall `where` it should."""
    facts = [encode(f" {fact}") for fact in sample.facts]
    question, start = encode(f" {sample.question}"), len(encode.opening)
    lengths = np.array([len(fact) for fact in facts])
    body = int(lengths.sum()) if n_tokens is None else n_tokens - start - len(question)
    if lengths.sum() > body:
        return None
    sentences = iter(()) if background is None else background.sentences(rng)
    filler, gaps = take_background(sentences, body - int(lengths.sum()))
    offsets = _draw_where(gaps, lengths, max(sample.support), where, border - start, rng)
    if offsets is None:
        return None
    ids = np.concatenate([encode.opening, merge(filler, facts, offsets), question]).astype(np.int64)
    answer = tuple(encode(f" {sample.answer}"))
    return EvaluationSample(ids, answer, tuple((start + offsets).tolist()), start + body, sample)


def _draw_where(
    gaps: np.ndarray, lengths: np.ndarray, decisive: int, where: Where, border: int, rng: np.random.Generator
) -> np.ndarray | None:
    """The first draw in which the decisive fact lies on the wanted side of `border`; None if many draws have none."""
    if where == "any":
        return draw_offsets(gaps, lengths, rng)[0]
    for _ in range(20):
        offsets = draw_offsets(gaps, lengths, rng, draws=500)
        at = offsets[:, decisive]
        good = at >= border if where == "own" else at + lengths[decisive] <= border
        if good.any():
            return offsets[good.argmax()]
    return None


def chosen(story: Story, n: int, rng: np.random.Generator) -> list[tuple[int, Question]]:
    """At most `n` questions of the story, in order, its last one always among them."""
    if len(story.questions) <= n:
        return list(story.questions)
    kept = np.sort(rng.choice(len(story.questions) - 1, n - 1, replace=False))
    return [*(story.questions[i] for i in kept), story.questions[-1]]


def events(story: Story, asked: list[tuple[int, Question]]) -> Iterator[str | Question]:
    """Facts and the given questions in order."""
    at = 0
    for position, question in asked:
        yield from story.facts[at:position]
        yield question
        at = position
    yield from story.facts[at:]
