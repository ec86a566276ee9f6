"""The parts of a reproduction in order: what each is for, whether it is done, and what it is expected to cost.

A part is a process. The backbone comes first; then the contenders, each of which searches its learning rate, trains and
answers (see `schedule`). The costs were measured on one thread of an x86-64 processor (docs/decisions/006): for the
time left and for the dry run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm2.evaluation.tokens import n_tokens
from lm2.reproduce import asking
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import CONTENDERS, MEMORIES, Sizes, recipe_of, search_steps
from lm2.training.folder import MODEL_FOLDER, steps_done

TOKENS_PER_SECOND = {"base": 15_000, "lm2": 11_000, "rmt": 12_000, "armt": 10_000, "plain": 15_000}
"""Of training, at the full size."""
READING = {"lm2": (40e-6, 80e-6), "rmt": (41e-6, 80e-6), "armt": (45e-6, 82e-6), "plain": (5e-6, 0.0)}
"""Seconds for a token of the questions' texts, and for one that is read segment by segment under a control."""
OWN_TOKENS = 1.25
"""Tokens of the models for one of GPT-2, in books."""
PREPARATION, START, REPORT, QUESTION = 60, 15, 60, 0.02
"""Seconds: of the tokenizer, of a process, of the report, and of a question beside its text."""


@dataclass(frozen=True)
class Step:
    """One piece of work: who does it, its tokens and seconds as expected, and how much of it is done (0 to 1)."""

    part: str
    text: str
    tokens: int
    seconds: float
    share: Callable[[], float]
    work: Callable[[Any], None]
    """Given a `lm2.reproduce.work.Work`"""

    def is_done(self) -> bool:
        return self.share() >= 1


def steps_of(config: ReproduceConfig, sizes: Sizes) -> list[Step]:
    """Everything but the report, in order within each part."""
    recipe, tokenizer = sizes.recipe, config.out / "tokenizer"
    base = _step_tokens(sizes) * recipe.base_steps
    found = [
        Step("base", "tokenizer", 0, PREPARATION, lambda: float(tokenizer.exists()), lambda work: work.prepare()),
        Step(
            "base",
            "backbone",
            base,
            base / TOKENS_PER_SECOND["base"],
            lambda: _trained(config, "base", recipe.base_steps),
            lambda work: work.train_base(),
        ),
    ]
    return found + [step for name in CONTENDERS for step in _contender(config, sizes, name)]


def _contender(config: ReproduceConfig, sizes: Sizes, name: str) -> list[Step]:
    return [
        *(_search(config, sizes, name, rate) for rate in sizes.rates),
        _training(config, sizes, name),
        _asking(config, sizes, name),
    ]


def _search(config: ReproduceConfig, sizes: Sizes, name: str, rate: float) -> Step:
    steps = search_steps(sizes, name)
    tokens = _contender_tokens(sizes, search_steps(sizes, "lm2"))
    folder = config.search_folder(name, rate)
    return Step(
        name,
        f"rate {rate:g}",
        tokens,
        tokens / TOKENS_PER_SECOND[name],
        lambda: _reached(folder, steps, folder / f"checkpoint-{steps}"),
        lambda work: work.search(name, rate),
    )


def _training(config: ReproduceConfig, sizes: Sizes, name: str) -> Step:
    steps = recipe_of(sizes, name).steps
    tokens = _contender_tokens(sizes, sizes.recipe.steps - search_steps(sizes, "lm2"))
    return Step(
        name,
        "training",
        tokens,
        tokens / TOKENS_PER_SECOND[name],
        lambda: _trained(config, name, steps),
        lambda work: work.train(name),
    )


def _asking(config: ReproduceConfig, sizes: Sizes, name: str) -> Step:
    tokens, seconds, ways = 0, float(START), 1 if name in MEMORIES else 4
    for (_, length, condition), n in asking.keys_of(sizes, name).items():
        reads = asking.READS.get(condition, 1)
        read = round(OWN_TOKENS * ways * n * reads * max(asking.SHORTEST, n_tokens(length)))
        tokens += read
        seconds += read * READING[name][condition in asking.CONTROLS] + QUESTION * ways * n
    return Step(
        name,
        "questions",
        tokens,
        seconds,
        lambda: asking.share(config, sizes, name),
        lambda work: asking.ask(work.config, work.sizes, name),
    )


def _step_tokens(sizes: Sizes) -> int:
    """Tokens of a training step, at most."""
    return max(phase.rows for phase in sizes.recipe.phases) * sizes.recipe.segment_length


def _contender_tokens(sizes: Sizes, steps: int) -> int:
    """Tokens of so many steps of LM2, quiet text with them; the others read as many in more steps."""
    return (_step_tokens(sizes) + sizes.quiet_segments * sizes.recipe.segment_length) * steps


def _trained(config: ReproduceConfig, name: str, steps: int) -> float:
    return _reached(config.out / name, steps, config.out / name / MODEL_FOLDER)


def _reached(folder: Path, steps: int, end: Path) -> float:
    return 1.0 if end.exists() else min(0.99, steps_done(folder) / steps)
