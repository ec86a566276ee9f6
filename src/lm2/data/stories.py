"""Batches of bAbI stories in background text for `RunConfig.make_batch`: a function of (seed, step, row, segments)."""

import random
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm2.data.babi import BABI_SUFFIXES, Story, read_stories
from lm2.data.babilong import background_text, take_background
from lm2.data.background import TEXT_SUFFIXES, BookSentences, GeneratedSentences, Sentences
from lm2.data.encoding import fingerprint
from lm2.data.pool import TokenPool
from lm2.data.rows import TrainingRows, check_amounts
from lm2.data.tokenizer import opening
from lm2.data.world import TASKS
from lm2.files import name_and_digest

if TYPE_CHECKING:
    from lm2.training import BatchRequest


def check_stories(tasks: Sequence[str], simulated: bool, max_facts: int, questions: int, fact_density: float) -> None:
    """Raises ValueError if there can be no such `StoryRows`, whatever the files."""
    if not tasks:
        raise ValueError("tasks names 0 tasks: give at least one of qa1 to qa10")
    unknown = [task for task in tasks if simulated and task not in TASKS]
    if unknown:
        raise ValueError(f"stories of {', '.join(unknown)} cannot be simulated: choose among {', '.join(TASKS)}")
    check_amounts(max_facts, questions, fact_density)


@dataclass(frozen=True, kw_only=True)
class StoryRows:
    """Makes input_ids and labels, each (rows, segments T); each row is of one of the tasks, drawn uniformly.

    Args:
        tokenizer: of the model.
        babi: folder or zip with the real tasks, whose training stories are told; None simulates stories.
        background: books; None takes built-in sentences.

    Raises:
        ValueError, FileNotFoundError: an unknown task, amounts out of range, or files that are not there.
    """

    tokenizer: InitVar[PreTrainedTokenizerBase]
    babi: InitVar[Path | None] = None
    background: InitVar[Path | None] = None
    segment_length: int
    """T of the model"""
    tasks: tuple[str, ...]
    max_facts: int = 10
    questions: int = 5
    fact_density: float = 0.5
    question_first: bool = False
    texts: str = field(init=False)
    """What stories and background are: others are another run"""

    def __post_init__(self, tokenizer: PreTrainedTokenizerBase, babi: Path | None, background: Path | None):
        check_stories(self.tasks, babi is None, self.max_facts, self.questions, self.fact_density)
        stories = {task: None if babi is None else read_stories(babi, task, "train") for task in self.tasks}
        sentences = GeneratedSentences() if background is None else BookSentences(background)
        told = "built-in" if babi is None else name_and_digest(babi, BABI_SUFFIXES)
        between = "built-in" if background is None else name_and_digest(background, TEXT_SUFFIXES)
        vars(self)["texts"] = f"stories {told}, background {between}, tokenizer {fingerprint(tokenizer)[:12]}"
        vars(self)["_source"] = tokenizer, stories, sentences

    @cached_property
    def pool(self) -> TokenPool:
        """The background as token ids."""
        tokenizer, _, sentences = self._parts()
        return TokenPool(sentences, tokenizer, seed=0)

    @cached_property
    def _rows(self) -> dict[str, TrainingRows]:
        tokenizer, stories, _ = self._parts()
        settings = {name: getattr(self, name) for name in ("max_facts", "questions", "fact_density", "question_first")}
        return {
            task: TrainingRows(task, tokenizer, self.pool, stories=stories[task], **settings) for task in self.tasks
        }

    def _parts(self) -> tuple[PreTrainedTokenizerBase, dict[str, Sequence[Story] | None], Sentences]:
        return vars(self)["_source"]

    def row(self, task: str, segments: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(input_ids, labels) of a row of a task: the last are an answer and, where the tokenizer has one, the end."""
        ids, labels = self._rows[task].row(segments * self.segment_length, rng)
        end = self._parts()[0].eos_token_id
        if end is not None:
            ids[-1] = labels[-1] = end  # was the full stop; with the end alone, generation stops after an answer
        return ids, labels

    def __call__(self, request: "BatchRequest") -> dict[str, Tensor]:
        made = []
        for number in request.rows:
            rng = np.random.default_rng([request.seed, request.step, number])
            made.append(self.row(self.tasks[int(rng.integers(len(self.tasks)))], request.segments, rng))
        ids, labels = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        return {"input_ids": ids, "labels": labels}

    def quiet(self, segments: int, rng: random.Random) -> list[int]:
        """A text of so many segments that is background alone."""
        sentences = self.pool.sentences(np.random.default_rng(rng.getrandbits(64)))
        return background_text(opening(self._parts()[0]), sentences, segments * self.segment_length)

    def noise(self, rows: int, segments: int, rng: np.random.Generator) -> Tensor:
        """Background alone, (rows, segments T)."""
        texts = [take_background(self.pool.sentences(rng), segments * self.segment_length)[0] for _ in range(rows)]
        return torch.from_numpy(np.stack(texts))
