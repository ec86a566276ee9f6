"""Something told once in a long text, by the depth at which it lies and the length of the text.

All models get the same samples: lengths are counted in GPT-2 tokens, and what is told, its place and the text around
it follow from (seed, length, depth, index). The text is the five sentences of the paper over and over, or books.

    passkey   a number, in the words of the paper; the first number of the answer counts
    people    a fact about a person (`lm2.data.people`) among nine others of the same kind; the first word counts

Source: Mohtashami and Jaggi 2023, "Landmark Attention" (arXiv 2305.16300), section 4.2: prompt, noise and needle of the
pass key. The rules are ours.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm2.data import people
from lm2.data.background import BookSentences
from lm2.evaluation import needle_report
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.models import ModelSpec, Runner, RunnerOptions, TooLong, load_runner, parse_specs
from lm2.evaluation.options import NeedleOptions
from lm2.evaluation.records import Records, mine, wait_for_all
from lm2.evaluation.tokens import LengthTokenizer
from lm2.processes import is_first
from lm2.progress import counted

BEFORE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.\n\n"
)
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
AFTER = "\n\nQuestion: What is the pass key? The pass key is"
MAX_NEW_TOKENS = 12
PIECE = 64
"""Sentences that a model is given at once."""


class Told(NamedTuple):
    """What a text tells and is asked."""

    key: str
    """The right answer"""
    needle: str
    """The sentences that give it"""
    others: tuple[str, ...]
    """Told too, anywhere in the text"""
    before: str
    after: str
    """What stands before the text, and the question behind it"""


def pass_key(rng: np.random.Generator) -> Told:
    """A number of five digits."""
    key = str(rng.integers(10_000, 100_000))
    return Told(key, NEEDLE.format(key=key), (), BEFORE, AFTER)


def fact_about_somebody(rng: np.random.Generator) -> Told:
    """One of ten facts about people."""
    story = people.tell(people.MOST, rng)
    _, question = story.questions[-1]
    (told,) = question.support
    others = (*story.facts[:told], *story.facts[told + 1 :])
    return Told(question.answer, story.facts[told], others, "", f" {question.text}")


NEEDLES: Mapping[str, Callable[[np.random.Generator], Told]] = {"passkey": pass_key, "people": fact_about_somebody}
COUNTS = {"passkey": r"\d+", "people": r"[A-Za-z]+"}
"""The first of these in an answer counts."""


@dataclass(frozen=True)
class Needle:
    """One sample: what is told at a depth (per cent) of a text of so many tokens, prompt included."""

    length: int
    depth: int
    index: int
    told: Told
    sentences: tuple[str, ...]

    def pieces(self) -> Iterator[str]:
        """The text, some sentences at a time."""
        for start in range(0, len(self.sentences), PIECE):
            yield (" " if start else "") + " ".join(self.sentences[start : start + PIECE])


class NeedleSource:
    """Makes samples.

    Args:
        text: books for the text around the needle (.txt, .jsonl, .jsonl.gz or a folder); None for the paper's noise.
        needle: a name in `NEEDLES`.

    Raises:
        ValueError: the text cannot be read, or GPT-2's vocabulary is not installed.
    """

    def __init__(self, text: Path | None, seed: int, needle: str = "passkey"):
        self.seed, self.tokenizer, self.tell = seed, LengthTokenizer.gpt2(), NEEDLES[needle]
        self.books = None if text is None else BookSentences(text)
        self.counts: dict[str, int] = {}

    def sample(self, length: int, depth: int, index: int) -> Needle:
        """The sample of these numbers.

        Raises:
            ValueError: the length leaves no room for the text.
        """
        rng, told, room = self._begun(length, depth, index)
        return Needle(length, depth, index, told, self._planted(told, self._fill(rng, room), depth, rng))

    def check(self, cells: Sequence[tuple[int, int, int]]) -> None:
        """Raises ValueError if the sample of one of these numbers has no room for the text; no text is made."""
        for cell in cells:
            self._begun(*cell)

    def _begun(self, length: int, depth: int, index: int) -> tuple[np.random.Generator, Told, int]:
        """What a sample tells, with the generator that its text is drawn from, and the tokens left for the text."""
        rng = np.random.default_rng([self.seed, length, depth, index])
        told = self.tell(rng)
        sentences = [f" {sentence}" for sentence in (told.needle, *told.others)]
        need = sum(self.tokenizer.count([told.before, *sentences, told.after]))
        if length <= need:
            raise ValueError(
                f"--lengths names {length}, and prompt and needle alone have {need} tokens: give a greater one"
            )
        return rng, told, length - need

    def _planted(self, told: Told, text: list[str], depth: int, rng: np.random.Generator) -> tuple[str, ...]:
        """The text with the needle at its depth and the others anywhere."""
        ends = np.cumsum([0, *(self._count(sentence) for sentence in text)])
        place = int(np.abs(ends - depth / 100 * ends[-1]).argmin())
        gaps = [place, *rng.integers(len(text) + 1, size=len(told.others)).tolist()]
        planted = sorted(zip(gaps, (told.needle, *told.others), strict=True), key=lambda one: one[0])
        for gap, sentence in reversed(planted):
            text.insert(gap, sentence)
        return tuple(text)

    def _fill(self, rng: np.random.Generator, room: int) -> list[str]:
        """Sentences up to the first that does not fit any more."""
        found: list[str] = []
        for sentence in cycle(NOISE) if self.books is None else self.books.sentences(rng):
            room -= self._count(sentence)
            if room < 0:
                break
            found.append(sentence)
        return found

    def _count(self, sentence: str) -> int:
        if sentence not in self.counts:
            self.counts[sentence] = self.tokenizer.count([" " + sentence])[0]
        return self.counts[sentence]


def is_right(key: str, output: str, counts: str = COUNTS["passkey"]) -> bool:
    """Whether what counts of the output, the first match of a pattern, is the key."""
    found = re.search(counts, output)
    return found is not None and found[0] == key


def run(options: NeedleOptions) -> None:
    """Ask what has not been asked yet, and write the report.

    Raises:
        ValueError: a model or the text cannot be read, or a length is too short.
    """
    specs, source = parse_specs(options.models), NeedleSource(options.text, options.seed, options.needle)
    cells = [(n, depth, i) for n in options.lengths for depth in options.depths for i in range(options.samples)]
    source.check(cells)  # what people are told differs in length: all of it is seen before a model is loaded
    asked = [ask_model(spec, options, source, cells) for spec in specs]
    wait_for_all()
    if is_first():
        needle_report.write(options, [(facts, records.each()) for facts, records in asked])


def ask_model(
    spec: ModelSpec, options: NeedleOptions, source: NeedleSource, cells: list[tuple[int, int, int]]
) -> tuple[dict[str, Any], Records]:
    """Ask this process's share of the samples; the model's description, and the answers."""
    runner = load_runner(spec, RunnerOptions(chat=options.chat, dtype=options.dtype, device=options.device))
    description = {f"model.{name}": value for name, value in runner.description.items()}
    records = Records(answers_folder(options.out, spec.name), {**options.settings(), **description})
    waiting = [cell for cell in mine(cells) if cell not in records]
    with counted(spec.name, sum(length for length, _, _ in waiting)) as advance:
        for cell in waiting:
            records.add(cell, ask(runner, source.sample(*cell), COUNTS[options.needle]))
            advance(cell[0])
    return {"name": spec.name, **runner.description}, records


def ask(runner: Runner, needle: Needle, counts: str) -> dict[str, Any]:
    """One question: the key, the output (None where the model cannot take the text), and whether it is right."""
    began, told = time.perf_counter(), needle.told
    try:
        output = runner.answer(told.before, needle.pieces(), told.after, MAX_NEW_TOKENS)
    except TooLong:
        output = None
    seconds = round(time.perf_counter() - began, 3)
    return {"target": told.key, "output": output, "right": is_right(told.key, output or "", counts), "seconds": seconds}
