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
from lm2.reproduce.rows import JointRows
from lm2.reproduce.sizes import Sizes, recipe_of, search_steps, validation_steps
from lm2.reproduce.turns import by_turns
from lm2.training import RunConfig, train
from lm2.training.folder import MODEL_FOLDER, begin_with, train_folder
from lm2.training.quiet import with_quiet_text


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
        start = partial(_base, recipe, len(tokenizer))
        run = training_run(recipe, "base", self.rows(), start, self.config.out / "base", self.config.seed)
        tokens = training_tokens(run, recipe, self.rows(), "base")
        train_folder(run, tokenizer, tokens, attrgetter("backbone"))

    def search(self, name: str, rate: float) -> None:
        """A contender's training at one learning rate, as far as the search goes."""
        run, _ = self._training(name, rate, self.config.search_folder(name, rate))
        train(run, resume=True, stop_after=search_steps(self.sizes, name))

    def train(self, name: str) -> None:
        """Go on with a contender's training at the learning rate that was ahead: the lowest loss on held-out rows."""
        rate, folder = chosen_rate(self.config, self.sizes, name), self.config.out / name
        run, tokens = self._training(name, rate, folder)
        begin_with(self.config.search_folder(name, rate), folder)
        tokenizer = material.load_tokenizer(self.config)
        train_folder(run, tokenizer, tokens, attrgetter("backbone") if name == "plain" else None)

    def rows(self) -> JointRows:
        """What makes the rows of training."""
        if self._rows is None:
            self._rows = material.training_rows(self.config, self.sizes)
        return self._rows

    def _training(self, name: str, rate: float, folder: Path) -> tuple[RunConfig, int]:
        """The whole training of a contender, whose time counts from here, and its tokens."""
        recipe = replace(recipe_of(self.sizes, name), learning_rate=rate)
        if self._held_out is None:
            self._held_out = material.validation_rows(self.config, self.sizes)
        validator = validation.Validator(*validation.held_out(self._held_out, self.sizes), folder)
        start = partial(_start, self.config.out / "base" / MODEL_FOLDER, name, self.sizes)
        run = training_run(recipe, name, self.rows(), start, folder, self.config.seed)
        every = validation_steps(self.sizes, name)  # of checkpoints, too: the seconds up to one are then in its line
        run = replace(run, evaluation=validator, evaluation_every=every, save_every=every)
        if name == "lm2":
            run = with_quiet_text(run, self.rows(), self.sizes.quiet_segments)
        if name == "plain":
            run = replace(run, training_forward=by_turns(recipe.segment_length, self.rows().pad))
        validator.start()
        return run, training_tokens(run, recipe, self.rows(), name)


def _base(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    return demo_contender("plain", new_backbone(recipe, vocabulary), recipe)


def _start(backbone: Path, name: str, sizes: Sizes) -> PreTrainedModel:
    return models.contender(name, AutoModelForCausalLM.from_pretrained(backbone), sizes)


def chosen_rate(config: ReproduceConfig, sizes: Sizes, name: str) -> float:
    """The learning rate with the lowest held-out loss where the search ended."""
    return min(sizes.rates, key=lambda rate: validation.last(config.search_folder(name, rate))["loss"])
