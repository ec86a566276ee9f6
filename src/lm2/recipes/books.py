"""Train a model on book text with facts about people in it: a small one from nothing, or a pretrained base.

A backbone first learns on single segments to tell people apart: with memory from the start it never does
(docs/decisions/003-backbone-first.md). A pretrained base can do that already.
"""

import itertools
from dataclasses import InitVar, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm2.configuration import LM2Config
from lm2.data.background import BookSentences
from lm2.data.book_rows import BookRows
from lm2.data.encoding import load_tokenizer
from lm2.data.people import words
from lm2.data.tokenizer import read_as_sentences, train_tokenizer
from lm2.demo.contender import training_run
from lm2.demo.recipe import Phase, Recipe, contender, new_backbone
from lm2.gguf import base_config
from lm2.processes import share
from lm2.recipes.findings import Findings, NoRows, stand_in
from lm2.recipes.options import BooksOptions
from lm2.recipes.plan import ModelOf, Plan, last_model, planned
from lm2.recipes.retrofit import start_model
from lm2.retrofit import add_memory, with_memory
from lm2.training import RunConfig
from lm2.training.quiet import with_quiet_text

TOKENIZER_TEXTS = 8000
SMALL = Recipe(
    vocabulary=4096,
    hidden_size=128,
    intermediate_size=340,
    layers=4,
    base_phases=(Phase(0.3, (1,), ("echo", "pair")), Phase(0.7, (1,), ("text", "dense", "scattered"))),
    phases=(
        Phase(0.06, (2,), ("repeated",)),
        Phase(0.24, (1, 2, 3, 4), ("text", "repeated", "dense", "scattered", "scattered")),
        Phase(0.2, (1, 2, 4, 8), ("text", "dense", "scattered", "scattered", "scattered")),
        Phase(0.5, (1, 2, 4, 8, 16), ("text", "dense", "scattered", "scattered", "scattered")),
    ),
)
"""The small model, and the rows of every model."""
MEMORY_TRAINING: dict[str, Any] = {"schedule": "linear", "write_cost": 100.0, "write_cost_rise": (0.4, 0.8)}
"""A third as much is known after 500 steps at a rate that stays up (docs/log.md, 2026-11-29). Without
the price, which is on book text, a bank is worn after a thousand segments (docs/decisions/016-books-are-quiet.md)."""


@dataclass(frozen=True, kw_only=True)
class Remembering:
    """The backbone that a phase before ended with, with a new memory. Its folder is no field: it may move."""

    memory: dict[str, Any]
    folder: InitVar[Path]

    def __post_init__(self, folder: Path):
        vars(self)["_folder"] = folder

    def __call__(self) -> PreTrainedModel:
        backbone: Any = last_model(vars(self)["_folder"]).backbone
        return add_memory(backbone, **self.memory)


def books(options: BooksOptions) -> Plan:
    """The plan of a training on books.

    Raises:
        ValueError: everything that is wrong with the options, at once.
    """
    findings = Findings(options.dry_run)
    recipe = _recipe(options)
    tokenizer = findings.find(partial(_tokenizer, options, recipe))
    shape = new_backbone(recipe, recipe.vocabulary).config
    if options.base is not None:
        shape = findings.find(partial(base_config, options.base, offline=options.dry_run)) or stand_in()
    config = findings.check(partial(with_memory, shape, **_memory(options, shape)))
    rows: Any = None
    if tokenizer is not None:
        make = partial(BookRows, tokenizer=tokenizer, books=options.books, segment_length=options.segment_length)
        rows = findings.find(make)
    phases = {} if config is None else _phases(options, recipe, rows or NoRows(), findings, config)
    _check_passes(options, recipe, findings)
    return planned("books", options, findings, config, tokenizer, phases)


def _check_passes(options: BooksOptions, recipe: Recipe, findings: Findings) -> None:
    """A pass has whole rows of every length."""
    passes = options.accumulation * share()[1]
    longest = max(segments for phase in recipe.phases for segments in phase.segments)
    if passes < 1:
        return  # which the run itself refuses
    findings.problems.need(
        options.rows // passes >= longest,
        f"rows is {options.rows}, in {passes} passes {options.rows // passes} segments each, and rows have up to "
        f"{longest}: raise rows, or take fewer passes",
    )


def _recipe(options: BooksOptions) -> Recipe:
    phases = tuple(replace(phase, rows=options.rows) for phase in SMALL.phases)
    return replace(
        SMALL,
        segment_length=options.segment_length,
        base_steps=options.backbone_steps,
        steps=options.steps,
        base_phases=tuple(replace(phase, rows=options.rows) for phase in SMALL.base_phases),
        phases=phases,
    )


def _tokenizer(options: BooksOptions, recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base's; for a small model one of the books, in which names and values are single tokens."""
    if options.base is not None:
        return load_tokenizer(options.base)
    texts = BookSentences(options.books).sentences(np.random.default_rng(options.seed))
    return read_as_sentences(train_tokenizer(itertools.islice(texts, TOKENIZER_TEXTS), recipe.vocabulary, words()))


def _memory(options: BooksOptions, shape: Any) -> dict[str, Any]:
    """The options of `add_memory`: in the upper half of the blocks, heads as the base's."""
    blocks = shape.num_hidden_layers
    return {
        "memory_slots": options.memory_slots,
        "segment_length": options.segment_length,
        "memory_layers": list(range(blocks // 2, blocks)),
        "memory_key_value_heads": shape.num_key_value_heads,
        "look_back": options.look_back,
    }


def _phases(
    options: BooksOptions, recipe: Recipe, rows: Any, findings: Findings, config: LM2Config
) -> dict[str, RunConfig]:
    memory = _memory(options, config)
    run = partial(training_run, rows=rows, seed=options.seed)
    of_memory = replace(recipe, learning_rate=options.learning_rate, **MEMORY_TRAINING)

    def remembering(start: ModelOf) -> RunConfig:
        memory_run = run(of_memory, "lm2", start=start, folder=options.out / "memory")
        return with_quiet_text(memory_run, rows)

    findings.problems.need(options.steps > 0, f"steps must be 1 or more, got {options.steps}")
    if options.base is not None:
        start = ModelOf(start=partial(start_model, options.base, **memory))
        rate = findings.rate("base_learning_rate", options.base_learning_rate, "make it small")
        rates = {"learning_rate": rate, "memory_learning_rate_factor": options.learning_rate / rate}
        made = {"memory": (partial(remembering, start=start), rates)}
    else:
        steps = options.backbone_steps
        findings.problems.need(steps > 0, f"backbone_steps must be 1 or more, got {steps}: or give a base")
        backbone = options.out / "backbone"
        start = ModelOf(start=Remembering(memory=memory, folder=backbone))
        made = {
            "backbone": (partial(run, recipe, "base", start=partial(_new, recipe), folder=backbone), {}),
            "memory": (partial(remembering, start=start), {}),
        }
    found = {name: findings.check(partial(_as_asked, options, *one)) for name, one in made.items()}
    return {name: phase for name, phase in found.items() if phase is not None}


def _as_asked(options: BooksOptions, make: Any, rates: dict[str, float]) -> RunConfig:
    run = make()
    return replace(run, **options.shared(seed=run.seed), **rates)


def _new(recipe: Recipe) -> PreTrainedModel:
    """The small backbone, run by RMT without memory, whose head skips positions without a label."""
    return contender("plain", new_backbone(recipe, recipe.vocabulary), recipe)
