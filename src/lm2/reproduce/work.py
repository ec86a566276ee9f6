"""The trainings: one backbone, for each contender its learning rate, and each contender."""

from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel

from lm2.demo.contender import training_run, training_tokens
from lm2.demo.recipe import Recipe, new_backbone
from lm2.demo.recipe import contender as demo_contender
from lm2.reproduce import material, models, validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.quiet import with_quiet_text
from lm2.reproduce.rows import JointRows
from lm2.reproduce.sizes import Sizes, recipe_of
from lm2.training.folder import MODEL_FOLDER, train_folder


class Work:
    """What a part of a reproduction does; rows are made once, when they are first needed."""

    def __init__(self, config: ReproduceConfig, sizes: Sizes):
        self.config, self.sizes = config, sizes
        self._rows: JointRows | None = None
        self._held_out: JointRows | None = None

    def prepare(self) -> None:
        """Train the tokenizer."""
        texts = material.texts_of(self.config)
        tokenizer = material.new_tokenizer(self.config, self.sizes, texts)
        beside = self.config.out / ".tokenizer.partial"
        tokenizer.save_pretrained(beside)
        beside.rename(self.config.out / "tokenizer")

    def train_base(self) -> None:
        """Train the backbone on single segments."""
        recipe, tokenizer = self.sizes.recipe, material.load_tokenizer(self.config)
        run = training_run(
            recipe, "base", self.rows(), partial(_base, recipe, len(tokenizer)), self.config.out / "base", self._seed
        )
        tokens = training_tokens(run, recipe, self.rows(), "base")
        train_folder(run, tokenizer, tokens, attrgetter("backbone"))

    def search(self, name: str, rate: float) -> None:
        """A short training of a contender at one learning rate."""
        recipe = replace(recipe_of(self.sizes, name, self.sizes.search_steps), learning_rate=rate)
        self._train(name, recipe, search_folder(self.config, name, rate), validations=1)

    def train(self, name: str) -> None:
        """Train a contender at the learning rate whose short training ended with the lowest loss on held-out rows."""
        rate = chosen_rate(self.config, self.sizes, name)
        recipe = replace(recipe_of(self.sizes, name, self.sizes.recipe.steps), learning_rate=rate)
        self._train(name, recipe, self.config.out / name, self.sizes.validations)

    def rows(self) -> JointRows:
        """What makes the rows of training."""
        if self._rows is None:
            self._rows = material.training_rows(self.config, self.sizes)
        return self._rows

    @property
    def _seed(self) -> int:
        return self.config.seed

    def _train(self, name: str, recipe: Recipe, folder: Path, validations: int) -> None:
        if (folder / MODEL_FOLDER).exists():
            return
        if self._held_out is None:
            self._held_out = material.validation_rows(self.config, self.sizes)
        validator = validation.Validator(*validation.held_out(self._held_out, self.sizes), folder)
        start = partial(_start, self.config.out / "base" / MODEL_FOLDER, name, self.sizes)
        run = training_run(recipe, name, self.rows(), start, folder, self._seed)
        run = replace(run, evaluation=validator, evaluation_every=max(1, recipe.steps // validations))
        tokens = training_tokens(run, recipe, self.rows(), name)
        if name == "lm2":
            run, more = with_quiet_text(run, self.rows(), self.sizes.quiet_segments)
            tokens += more
        validator.start()
        tokenizer = material.load_tokenizer(self.config)
        train_folder(run, tokenizer, tokens, attrgetter("backbone") if name == "plain" else None)


def _base(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    return demo_contender("plain", new_backbone(recipe, vocabulary), recipe)


def _start(backbone: Path, name: str, sizes: Sizes) -> PreTrainedModel:
    return models.contender(name, AutoModelForCausalLM.from_pretrained(backbone), sizes)


def search_folder(config: ReproduceConfig, name: str, rate: float) -> Path:
    """Where the short training of a contender at a rate is."""
    return config.out / "search" / f"{name}-{rate:g}"


def chosen_rate(config: ReproduceConfig, sizes: Sizes, name: str) -> float:
    """The learning rate with the lowest held-out loss at the end of its short training."""
    return min(sizes.rates, key=lambda rate: validation.last(search_folder(config, name, rate))["loss"])
