"""The texts of a reproduction: tokenizer, background, stories; those to train with, to validate with and to ask about.

No text is in two of the three: books are other books (or other parts of the only one), generated sentences come from
other seeds, real stories are split (every tenth validates), and the questions asked are those of bAbI's test files.
"""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from tokenizers import AddedToken, Regex, normalizers
from transformers import PreTrainedTokenizerFast

from lm2.data.babi import OBJECTS, Story, read_stories
from lm2.data.background import BookSentences, GeneratedSentences, Sentences
from lm2.data.pool import TokenPool
from lm2.data.questions import NUMBERS
from lm2.data.rooms import OPPOSITE
from lm2.data.rumours import CAST
from lm2.data.tokenizer import babi_words, train_tokenizer
from lm2.data.world import GIVE, GIVERS
from lm2.demo.material import book_sources, split
from lm2.evaluation.babilong import LocalBabilong
from lm2.evaluation.sentences import Background
from lm2.evaluation.tokens import LengthTokenizer
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.rows import AFTER, BEFORE, JointRows
from lm2.reproduce.sizes import Sizes

VALIDATION_SHARE = 5
"""Validation has a fifth of the background of training."""
EVERY_TENTH = 10
SAMPLE_SET = 1000


class Texts(NamedTuple):
    """Background for training, for validation and for the questions."""

    training: Sentences
    validation: Sentences
    held_out: Sentences


def texts_of(config: ReproduceConfig) -> Texts:
    """The built-in sentences, or books in three parts.

    Raises:
        ValueError, FileNotFoundError: the books cannot be read.
    """
    if config.books is None:
        return Texts(GeneratedSentences(), GeneratedSentences(), GeneratedSentences())
    sources = book_sources(config.books)
    parts = split(sources.training)
    return Texts(parts.training, parts.held_out, sources.held_out)


def stories_of(config: ReproduceConfig, tasks: tuple[str, ...], *, validation: bool) -> dict[str, list[Story]]:
    """The real training stories of each task, without or only those that validate; none without --babi.

    Raises:
        ValueError: a task's file is not there or damaged.
    """
    if config.babi is None:
        return {task: [] for task in tasks}
    found = {task: read_stories(config.babi, task, "train") for task in tasks}
    return {t: [s for i, s in enumerate(one) if (i % EVERY_TENTH == 0) == validation] for t, one in found.items()}


def check_texts(config: ReproduceConfig, tasks: Iterable[str]) -> None:
    """Whether all texts can be read, so that wrong ones are known before anything is written.

    Raises:
        ValueError, FileNotFoundError: books or a task's files are not there or damaged.
    """
    texts_of(config)
    for task in dict.fromkeys(tasks):
        if config.babi is not None:
            read_stories(config.babi, task, "train")
            read_stories(config.babi, task, "test")


def words() -> tuple[str, ...]:
    """What is a single token: every word of qa1 to qa10."""
    asked = ("What", "Who", "did", "give", "to", "gave", "received", "of", "Is", "in", "How", "many", "objects")
    told = ("The", "not", "no", "longer", "either", "or", "carrying")
    answers = ("yes", "no", "maybe", "nothing", *NUMBERS)
    casts = (name for cast in CAST.values() for names in cast for name in names)
    return tuple(dict.fromkeys((*babi_words(), *GIVERS, *GIVE, *OPPOSITE, *asked, *told, *answers, *casts)))


def new_tokenizer(config: ReproduceConfig, sizes: Sizes, texts: Texts) -> PreTrainedTokenizerFast:
    """A tokenizer of the training texts: white space of any kind is one space, a word of BABILong's frame one token.

    So a text reads the same as a row, where sentences stand in a line, and as a prompt with its line breaks. Each
    further thing of a list, as in "apple,milk", is one token with its comma.
    """
    rng = np.random.default_rng(10 * config.seed)
    some = itertools.islice(texts.training.sentences(rng), sizes.tokenizer_texts)
    added = [AddedToken(word, lstrip=True, special=False) for word in (BEFORE, *AFTER.split())]
    added += [AddedToken(f",{thing}", special=False) for thing in OBJECTS]
    tokenizer = train_tokenizer(some, sizes.recipe.vocabulary - len(added), words())
    tokenizer.add_tokens(added)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(left=False)]
    )
    return tokenizer


def load_tokenizer(config: ReproduceConfig) -> PreTrainedTokenizerFast:
    """The tokenizer of the run's folder."""
    return PreTrainedTokenizerFast.from_pretrained(config.out / "tokenizer", local_files_only=True)


def training_rows(config: ReproduceConfig, sizes: Sizes) -> JointRows:
    """What makes the rows of training."""
    return _rows(config, sizes, texts_of(config).training, sizes.pool_tokens, validation=False)


def validation_rows(config: ReproduceConfig, sizes: Sizes) -> JointRows:
    """What makes the rows of validation: other background, other stories."""
    size = sizes.pool_tokens // VALIDATION_SHARE
    return _rows(config, sizes, texts_of(config).validation, size, validation=True)


def _rows(config: ReproduceConfig, sizes: Sizes, source: Sentences, n_tokens: int, *, validation: bool) -> JointRows:
    tokenizer = load_tokenizer(config)
    pool = TokenPool(source, tokenizer, 10 * config.seed + 1 + validation, n_tokens)
    stories = stories_of(config, sizes.main.tasks, validation=validation)
    return JointRows(tokenizer, pool, sizes.recipe.segment_length, stories)


def samples(config: ReproduceConfig) -> LocalBabilong:
    """Where the questions come from: BABILong's way of making them, with background that no training has seen."""
    held_out = texts_of(config).held_out
    if isinstance(held_out, BookSentences):
        name = f"held-out books of {config.books.name}" if config.books is not None else ""
        background = Background(held_out.books, LengthTokenizer.gpt2(), name)
    else:
        background = Background.generated(seed=10 * config.seed + 3)
    return LocalBabilong(config.babi, background, size=SAMPLE_SET, seed=config.seed)
