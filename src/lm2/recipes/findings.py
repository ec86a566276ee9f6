"""What a recipe finds when it looks at its options: what is wrong with them, and what is not there."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lm2.configuration import FAMILY_CONFIGS, PRESETS, LM2Config
from lm2.data.encoding import load_tokenizer
from lm2.data.packed import PackedRows
from lm2.data.store import Store
from lm2.errors import Problems, sentence
from lm2.folders import check_folder, check_vocabulary
from lm2.training import BatchRequest, Stage

T = TypeVar("T")
STAND_IN = "lm2-135m"
"""The preset whose backbone has the place of a model that a dry run does not find."""


@dataclass(frozen=True)
class NoRows:
    """In the place of data that is not there."""

    def __call__(self, request: BatchRequest) -> dict[str, Tensor]:
        raise AssertionError(f"there are no rows for {request}")


class Findings:
    """Everything that is wrong, to be told at once. A dry run goes on without what is not there, and names it."""

    def __init__(self, dry_run: bool):
        self.dry_run, self.problems, self._missing = dry_run, Problems(), []

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._missing))

    def find(self, make: Callable[[], T]) -> T | None:
        """What `make` reads; None where that is not there."""
        try:
            return make()
        except (ValueError, OSError) as error:
            if self.dry_run:
                self._missing.append(sentence(error))
            else:
                self.problems.note(error)
        return None

    def check(self, make: Callable[[], T]) -> T | None:
        """What `make` makes of the options; None where they cannot be."""
        with self.problems.collected():
            return make()
        return None

    def rate(self, name: str, value: float, remedy: str) -> float:
        """A peak learning rate. One that cannot be is noted by the name of its option, and 1 has its place."""
        return self._rate(0 < value < math.inf, value, f"{name} must be above 0, got {value}: {remedy}")

    def memory_rate(self, value: float) -> float:
        """The option `memory_learning_rate`, as `rate`."""
        said = f"memory_learning_rate must be 0 or more, got {value}: 0 leaves the memory as it is"
        return self._rate(0 <= value < math.inf, value, said)

    def _rate(self, sound: bool, value: float, said: str) -> float:
        self.problems.need(sound, said)
        return value if sound else 1.0

    def model(self, folder: Path) -> tuple[LM2Config, PreTrainedTokenizerBase | None]:
        """Configuration and tokenizer of a folder with an LM2 model; of a stand-in where it is not there."""
        config = self.find(partial(_lm2_config, folder))
        if config is None:
            return LM2Config.preset(STAND_IN), None
        tokenizer = self.find(partial(load_tokenizer, str(folder)))
        if tokenizer is not None:
            self.check(partial(check_vocabulary, tokenizer, config.vocab_size, str(folder)))
        return config, tokenizer

    def rows(
        self,
        folder: Path,
        stages: tuple[Stage, ...],
        config: LM2Config | None,
        tokenizer: PreTrainedTokenizerBase | None,
    ) -> Any:
        """The rows of a token store that was made with this tokenizer, for a model of this shape.

        Where one of the two is not known, what can be said without it is said.
        """
        return self.find(partial(_token_rows, folder, stages, config, tokenizer)) or NoRows()


def _lm2_config(folder: Path) -> LM2Config:
    check_folder(folder)
    return LM2Config.from_pretrained(folder, local_files_only=True)


def _token_rows(
    folder: Path, stages: tuple[Stage, ...], config: LM2Config | None, tokenizer: PreTrainedTokenizerBase | None
) -> PackedRows | NoRows:
    store = Store(folder)
    if tokenizer is not None:
        store.check_tokenizer(tokenizer)
    if config is None:
        return NoRows()
    made = store.facts["tokenizer"]
    if made["vocabulary"] > config.vocab_size:
        raise ValueError(
            f"{folder} was made with the tokenizer {made['name']} of {made['vocabulary']:,} ids, and the model has "
            f"{config.vocab_size:,}: prepare the data with the model's tokenizer"
        )
    return PackedRows(folder=folder, stages=stages, segment_length=config.segment_length)


def stand_in() -> PreTrainedConfig:
    """The configuration of the model that has the place of one that is not there."""
    preset = PRESETS[STAND_IN]
    family = FAMILY_CONFIGS[preset["base_model_type"]]
    names = {field.name for field in fields(family)}
    return family(**{name: value for name, value in preset.items() if name in names})
