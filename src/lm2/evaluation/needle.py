"""A pass key in a long text, by the depth at which it lies and the length of the text.

All models get the same samples: lengths are counted in GPT-2 tokens, and a key, its place and the text around it follow
from (seed, length, depth, index). The text around it is the five sentences of the paper over and over, or books.

Source: Mohtashami and Jaggi 2023, "Landmark Attention" (arXiv 2305.16300), section 4.2: prompt, noise and needle. The
rule is ours: the first number of the answer is the key.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lm2.data.background import BookSentences
from lm2.evaluation import needle_report
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.models import ModelSpec, Runner, RunnerOptions, TooLong, load_runner, parse_specs
from lm2.evaluation.options import NeedleOptions
from lm2.evaluation.records import Records, mine, share, wait_for_all
from lm2.evaluation.tokens import LengthTokenizer

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


@dataclass(frozen=True)
class Needle:
    """One sample: a key of five digits at a depth (per cent) of a text of so many tokens, prompt included."""

    length: int
    depth: int
    index: int
    key: str
    sentences: tuple[str, ...]

    def pieces(self) -> Iterator[str]:
        """The text, some sentences at a time."""
        for start in range(0, len(self.sentences), PIECE):
            yield (" " if start else "") + " ".join(self.sentences[start : start + PIECE])


class NeedleSource:
    """Makes samples.

    Args:
        text: books for the text around the needle (.txt, .jsonl, .jsonl.gz or a folder); None for the paper's noise.

    Raises:
        ValueError: the text cannot be read, or GPT-2's vocabulary is not installed.
    """

    def __init__(self, text: Path | None, seed: int):
        self.seed, self.tokenizer = seed, LengthTokenizer.gpt2()
        self.books = None if text is None else BookSentences(text)
        self.counts: dict[str, int] = {}

    def sample(self, length: int, depth: int, index: int) -> Needle:
        """The sample of these numbers.

        Raises:
            ValueError: the length leaves no room for the text.
        """
        rng = np.random.default_rng([self.seed, length, depth, index])
        key = str(rng.integers(10_000, 100_000))
        needle = NEEDLE.format(key=key)
        room = length - sum(self.tokenizer.count([BEFORE, " " + needle, AFTER]))
        if room < 1:
            raise ValueError(f"--lengths names {length}, and prompt and needle alone have {length - room} tokens")
        sentences = self._fill(rng, room)
        ends = np.cumsum([0, *(self._count(sentence) for sentence in sentences)])
        place = int(np.abs(ends - depth / 100 * ends[-1]).argmin())
        return Needle(length, depth, index, key, (*sentences[:place], needle, *sentences[place:]))

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


def is_right(key: str, output: str) -> bool:
    """Whether the first number of the output is the key."""
    number = re.search(r"\d+", output)
    return number is not None and number[0] == key


def run(options: NeedleOptions) -> None:
    """Ask what has not been asked yet, and write the report.

    Raises:
        ValueError: a model or the text cannot be read, or a length is too short.
    """
    specs, source = parse_specs(options.models), NeedleSource(options.text, options.seed)
    cells = [(n, depth, i) for n in options.lengths for depth in options.depths for i in range(options.samples)]
    source.sample(min(options.lengths), 0, 0)  # a length without room is found before a model is loaded
    asked = [ask_model(spec, options, source, cells) for spec in specs]
    wait_for_all()
    if share()[0] == 0:
        needle_report.write(options, [(facts, records.read()) for facts, records in asked])


def ask_model(
    spec: ModelSpec, options: NeedleOptions, source: NeedleSource, cells: list[tuple[int, int, int]]
) -> tuple[dict[str, Any], Records]:
    """Ask this process's share of the samples; the model's description, and the answers."""
    runner = load_runner(spec, RunnerOptions(chat=options.chat, dtype=options.dtype, device=options.device))
    description = {f"model.{name}": value for name, value in runner.description.items()}
    records = Records(answers_folder(options.out, spec.name), {**options.settings(), **description})
    waiting = [cell for cell in mine(cells) if cell not in records]
    with tqdm(total=sum(length for length, _, _ in waiting), unit="token", desc=spec.name, disable=None) as bar:
        for cell in waiting:
            records.add(cell, ask(runner, source.sample(*cell)))
            bar.update(cell[0])
    return {"name": spec.name, **runner.description}, records


def ask(runner: Runner, needle: Needle) -> dict[str, Any]:
    """One question: the key, the output (None where the model cannot take the text), and whether it is right."""
    began = time.perf_counter()
    try:
        output = runner.answer(BEFORE, needle.pieces(), AFTER, MAX_NEW_TOKENS)
    except TooLong:
        output = None
    seconds = round(time.perf_counter() - began, 3)
    return {"target": needle.key, "output": output, "right": is_right(needle.key, output or ""), "seconds": seconds}
