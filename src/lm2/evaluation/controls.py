"""Conditions under which the same samples are asked, to see what an answer comes from.

plain, carried   as the model works; `carried` is the name for models with a memory
reset            the start memory before each segment: what the last segments alone give
frozen           nothing is written after the first half of the text's segments
exchanged        the last segment and the question with the memory of another sample of the same cell, of another story
question         the question with an empty context: what the wording alone gives
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from lm2.evaluation.models import MemoryRunner, Runner

CONTROLS = ("reset", "frozen", "exchanged")
MAIN = ("plain", "carried")
QUESTION = "question"
WAYS = ("carried", "reset", "frozen")
"""How a text is read into a memory; `exchanged` takes readings that were carried."""
MEANINGS = {
    "plain": "as the model works",
    "carried": "memory carried from segment to segment",
    "reset": "start memory before each segment",
    "frozen": "no write after the first half of the text",
    "exchanged": "asked with the memory of another story",
    "question": "asked without the text",
}


class Question(Protocol):
    """What a condition needs of a sample."""

    @property
    def question(self) -> str: ...
    def text(self) -> Iterable[str]: ...


def main_condition(runner: Runner) -> str:
    """What the way a model works is called."""
    return "carried" if isinstance(runner, MemoryRunner) else "plain"


def conditions(runner: Runner, controls: Iterable[str]) -> tuple[str, ...]:
    """The conditions of a runner: its own way, the asked-for controls if it has a memory, and the question alone."""
    own = tuple(controls) if isinstance(runner, MemoryRunner) else ()
    return (main_condition(runner), *own, QUESTION)


def partner(number: int, stories: Sequence[str]) -> int | None:
    """Whose memory sample `number` gets: that of the last one before it whose story is another, or the first after it.

    Consecutive questions are mostly about one story, whose memory would know the answer. Where there is no other story
    it is the neighbour's.

    Args:
        stories: of the samples in order.
    """
    others = [*range(number - 1, -1, -1), *range(number + 1, len(stories))]
    different = (other for other in others if stories[other] != stories[number])
    return next(chain(different, others), None)


class Query(NamedTuple):
    """A question to a runner: the sample, the condition, and the sample whose memory `exchanged` takes."""

    sample: Question
    condition: str
    other: Question | None = None

    def texts(self) -> list[tuple[Question, str]]:
        """The texts that have to be read into a memory for it, each with the way it is read."""
        if self.condition != "exchanged":
            return [(self.sample, self.condition)] if self.condition in WAYS else []
        assert self.other is not None
        return [(self.sample, "carried"), (self.other, "carried")]


class Asker:
    """Asks one runner about the samples of one task.

    Args:
        before: the prompt before the context.
        after: the prompt after it, with a place {question}.
    """

    def __init__(self, runner: Runner, before: str, after: str, max_new_tokens: int):
        self.runner, self.before, self.after, self.max_new_tokens = runner, before, after, max_new_tokens
        self._readings: dict[tuple[int, str], tuple[Question, Any]] = {}
        self._without_text: dict[str, str] = {}

    def prepare(self, queries: Iterable[Query]) -> None:
        """Read the texts of questions that come next, side by side and each once; other texts are forgotten."""
        wanted = {(id(sample), way): sample for one in queries for sample, way in one.texts()}
        self._readings = {key: self._readings[key] for key in wanted if key in self._readings}
        for way in WAYS:
            self._read([sample for key, sample in wanted.items() if key[1] == way and key not in self._readings], way)

    def answer(self, sample: Question, condition: str, other: Question | None = None) -> str:
        """The answer to a sample; `other` is the one whose memory `exchanged` takes.

        Raises:
            TooLong: the model cannot take the whole prompt.
        """
        after = self.after.format(question=sample.question.rstrip())  # the official prompt is stripped
        if condition == QUESTION:
            return self._question_only(after)
        if condition == "plain":
            return self.runner.answer(self.before, sample.text(), after, self.max_new_tokens)
        return self._memory().finish(self._reading(Query(sample, condition, other)), after, self.max_new_tokens)

    def _question_only(self, after: str) -> str:
        if after not in self._without_text:
            self._without_text[after] = self.runner.answer(self.before, (), after, self.max_new_tokens)
        return self._without_text[after]

    def _reading(self, query: Query) -> Any:
        keys = [(id(sample), way) for sample, way in query.texts()]
        if not all(key in self._readings for key in keys):
            self.prepare([query])
        found = [self._readings[key][1] for key in keys]
        return self._memory().exchange(*found) if query.condition == "exchanged" else found[0]

    def _read(self, samples: Sequence[Question], way: str) -> None:
        """Texts that are to be frozen after different segments are read one group after the other."""
        if not samples:
            return
        runner, groups = self._memory(), dict[int, list[Question]]()
        for sample in samples:
            half = runner.segments(self.before, sample.text()) // 2 if way == "frozen" else 0
            groups.setdefault(half, []).append(sample)
        for half, group in groups.items():
            policy = {"carried": None, "reset": runner.reset, "frozen": runner.frozen_after(half)}[way]
            readings = runner.read_all(self.before, [sample.text() for sample in group], policy)
            pairs = zip(group, readings, strict=True)
            self._readings |= {(id(sample), way): (sample, reading) for sample, reading in pairs}

    def _memory(self) -> MemoryRunner:
        assert isinstance(self.runner, MemoryRunner)
        return self.runner
