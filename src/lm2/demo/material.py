"""The texts of a demo, made once and kept in its folder: tokenizer, background for training, evaluation sets.

Training and evaluation never share text: the built-in sentences come from other seeds, books are other books (or other
parts of the only one), and with real bAbI the questions asked are those of the test files.
"""

import copy
import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerFast

from lm2.data.babi import Sample, read_stories, samples
from lm2.data.background import BookSentences, GeneratedSentences, Sentences
from lm2.data.pool import TokenPool
from lm2.data.rows import EvaluationSample, evaluation_samples
from lm2.data.tokenizer import train_tokenizer
from lm2.demo.config import DemoConfig, Where
from lm2.demo.recipe import Recipe
from lm2.demo.rows import Rows
from lm2.files import replacing

TASK = "qa1"
TOKENIZER_TEXTS = 4000
POOL_TOKENS = 500_000
TRAINING_SEED, HELD_OUT_SEED = 1, 2
"""Added to 10 * seed."""


Source = TypeVar("Source", bound=Sentences, covariant=True)


class Sources(NamedTuple, Generic[Source]):
    """Where background sentences come from."""

    training: Source
    held_out: Source


@dataclass(frozen=True)
class EvaluationSet:
    """Texts of the same length that end in a question: `ids` (N, L), and for each text what is asked of it."""

    ids: np.ndarray
    answers: np.ndarray
    """Token id of the right answer, (N,)."""
    distances: np.ndarray
    """Tokens from the start of the decisive fact to the question, (N,)."""
    facts: np.ndarray
    questions: np.ndarray
    words: np.ndarray
    """The right answers as text."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def constant(self) -> float:
        """Accuracy of the best answer that is always the same."""
        return np.unique(self.answers, return_counts=True)[1].max() / len(self)


def sources_of(options: DemoConfig) -> Sources:
    """The built-in sentences, or the books: `train.jsonl.gz` and `test.jsonl.gz` of the folder, else a split of all.

    Raises:
        ValueError, FileNotFoundError: the books cannot be read.
    """
    if options.babi is None or options.books is None:
        return Sources(GeneratedSentences(), GeneratedSentences())
    for name in ("train", "test"):  # so that a wrong folder is known before anything is written
        read_stories(options.babi, "qa1", name)
    return book_sources(options.books)


def book_sources(books: Path) -> Sources[BookSentences]:
    """`train.jsonl.gz` and `test.jsonl.gz` of a folder, else a split of all books in it."""
    train, test = (books / f"{name}.jsonl.gz" for name in ("train", "test"))
    if train.exists() and test.exists():
        return Sources(BookSentences(train), BookSentences(test))
    return split(BookSentences(books))


def split(source: BookSentences) -> Sources[BookSentences]:
    """Every fifth book is held out; of a single book the last fifth."""
    training, held_out = copy.copy(source), copy.copy(source)
    books = source.books
    if len(books) > 1:
        held_out.books = books[::5]
        training.books = [book for i, book in enumerate(books) if i % 5]
    else:
        border = len(books[0]) * 4 // 5
        training.books, held_out.books = [books[0][:border]], [books[0][border:]]
    return Sources(training, held_out)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a demo's folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)


def prepare_training(options: DemoConfig, recipe: Recipe, sources: Sources) -> None:
    """Train the tokenizer on training texts, and encode the background; what is there already is kept."""
    if (options.out / "background.npz").exists():
        return
    rng = np.random.default_rng(10 * options.seed)
    texts = itertools.islice(sources.training.sentences(rng), TOKENIZER_TEXTS)
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    tokenizer.save_pretrained(options.out / "tokenizer")
    pool = TokenPool(sources.training, tokenizer, 10 * options.seed + TRAINING_SEED, POOL_TOKENS)
    _save_arrays(options.out / "background.npz", ids=pool.ids, starts=pool.starts)


def training_rows(options: DemoConfig, recipe: Recipe) -> Rows:
    """What makes the training rows, from what `prepare_training` wrote."""
    with np.load(options.out / "background.npz") as arrays:
        sentences = [ids.tolist() for ids in np.split(arrays["ids"], arrays["starts"][1:-1])]
    stories = read_stories(options.babi, TASK, "train") if options.babi is not None else None
    return Rows(load_tokenizer(options.out), sentences, recipe.segment_length, stories)


def prepare_evaluation(options: DemoConfig, recipe: Recipe, sources: Sources) -> None:
    """Make the evaluation sets that are not there yet."""
    missing = [column for column in options.columns() if not set_path(options.out, *column).exists()]
    if not missing:
        return
    tokenizer = load_tokenizer(options.out)
    seed = 10 * options.seed + HELD_OUT_SEED
    pool = TokenPool(sources.held_out, tokenizer, seed, POOL_TOKENS)
    real = _real_samples(options)
    for where, segments in missing:
        n = options.questions_at(segments)
        length = recipe.segment_length * segments
        found = evaluation_samples(TASK, n, length, seed, tokenizer, pool, where, recipe.segment_length, real)
        _save_set(set_path(options.out, where, segments), found)


def _real_samples(options: DemoConfig) -> list[Sample] | None:
    """The test questions in an order drawn by the seed, so that a part of them is not the first stories' only."""
    if options.babi is None:
        return None
    found = list(samples(TASK, read_stories(options.babi, TASK, "test")))
    random.Random(options.seed).shuffle(found)
    return found


def set_path(folder: Path, where: Where, segments: int) -> Path:
    """The file of an evaluation set."""
    return folder / "evaluation" / f"{where}-{segments}.npz"


def load_set(folder: Path, where: Where, segments: int) -> EvaluationSet:
    """An evaluation set that `prepare_evaluation` wrote."""
    with np.load(set_path(folder, where, segments)) as arrays:
        return EvaluationSet(**arrays)


def _save_set(path: Path, found: list[EvaluationSample]) -> None:
    path.parent.mkdir(exist_ok=True)
    _save_arrays(
        path,
        ids=np.stack([sample.ids for sample in found]),
        answers=np.array([sample.answer_id for sample in found]),
        distances=np.array([sample.distance for sample in found]),
        facts=np.array([sample.sample.facts[max(sample.sample.support)] for sample in found]),
        questions=np.array([sample.sample.question for sample in found]),
        words=np.array([sample.sample.answer for sample in found]),
    )


def _save_arrays(path: Path, **arrays: np.ndarray) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
