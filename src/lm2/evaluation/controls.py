"""Conditions under which the same samples are asked, to see what an answer comes from.

plain, carried   as the model works; `carried` is the name for models with a memory
reset            the start memory before each segment: what the last segments alone give
frozen           nothing is written after the first half of the text's segments
exchanged        the question is asked with the memory of another sample of the same cell
question         the question with an empty context: what the wording alone gives
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from lm2.evaluation.models import MemoryRunner, Runner

CONTROLS = ("reset", "frozen", "exchanged")
MAIN = ("plain", "carried")
QUESTION = "question"
MEANINGS = {
    "plain": "as the model works",
    "carried": "memory carried from segment to segment",
    "reset": "start memory before each segment",
    "frozen": "no write after the first half of the text",
    "exchanged": "asked with the memory of another sample",
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


def partner(index: int, indices: Iterable[int]) -> int | None:
    """Whose memory sample `index` gets: samples 2i and 2i + 1 swap, one without a neighbour takes the one before."""
    there = set(indices)
    return next((other for other in (index ^ 1, index - 1, index + 1) if other in there), None)


class Asker:
    """Asks one runner about the samples of one task.

    Readings of the two latest samples are kept, so that `carried` and `exchanged` read a text once.

    Args:
        before: the prompt before the context.
        after: the prompt after it, with a place {question}.
    """

    def __init__(self, runner: Runner, before: str, after: str, max_new_tokens: int):
        self.runner, self.before, self.after, self.max_new_tokens = runner, before, after, max_new_tokens
        self._readings: OrderedDict[Any, Any] = OrderedDict()
        self._without_text: dict[str, str] = {}

    def answer(self, sample: Question, condition: str, other: Question | None = None) -> str:
        """The answer to a sample; `other` is the one whose memory `exchanged` takes.

        Raises:
            TooLong: the model cannot take the whole prompt.
            ValueError: `exchanged` in a cell of one sample.
        """
        after = self.after.format(question=sample.question.rstrip())  # the official prompt is stripped
        if condition == QUESTION:
            return self._question_only(after)
        if condition == "plain":
            return self.runner.answer(self.before, sample.text(), after, self.max_new_tokens)
        runner = self.runner
        assert isinstance(runner, MemoryRunner)
        return runner.finish(self._read(runner, sample, condition, other), after, self.max_new_tokens)

    def _question_only(self, after: str) -> str:
        if after not in self._without_text:
            self._without_text[after] = self.runner.answer(self.before, (), after, self.max_new_tokens)
        return self._without_text[after]

    def _read(self, runner: MemoryRunner, sample: Question, condition: str, other: Question | None) -> Any:
        if condition == "carried":
            return self._carried(runner, sample)
        if condition == "exchanged":
            if other is None:
                raise ValueError("the control exchanged needs at least 2 samples in a cell, and there is 1: ask more")
            return runner.exchange(self._carried(runner, sample), self._carried(runner, other))
        if condition == "reset":
            return runner.read(self.before, sample.text(), runner.reset)
        assert condition == "frozen", condition
        half = runner.segments(self.before, sample.text()) // 2
        return runner.read(self.before, sample.text(), runner.frozen_after(half))

    def _carried(self, runner: MemoryRunner, sample: Question) -> Any:
        key = id(sample)
        if key not in self._readings:
            self._readings[key] = (sample, runner.read(self.before, sample.text()))
        self._readings.move_to_end(key)
        while len(self._readings) > 2:
            self._readings.popitem(last=False)
        return self._readings[key][1]
