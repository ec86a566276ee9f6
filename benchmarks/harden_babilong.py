"""Teach the reproduction's LM2 to read past what looks like a fact and is none, and count what it writes in books.

    lm2 reproduce --babi babi --books books --out runs/reproduce
    python benchmarks/harden_babilong.py --run runs/reproduce [--folder runs/hard] [--out docs/results/hardening.json]

"He handed it to" opens a write gate once in some hundred thousand tokens of books, and what the bank holds is then
partly overwritten: a rate at which training hardly sees such a sentence. So the model first reads the training books
and keeps the sentences that it writes at, and is then trained on with rows that have those more often. What it writes
in other books, before and after, is the result. The hardened model is `model` in the last round's folder.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm2.data.pool import Passages, TokenPool
from lm2.demo.contender import training_run, training_tokens
from lm2.demo.recipe import Recipe
from lm2.environment import environment
from lm2.errors import Problems
from lm2.files import write_json
from lm2.progress import TimeLeft
from lm2.reproduce import material, validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.rows import JointRows
from lm2.reproduce.sizes import sizes_of
from lm2.settings import check_settings, saved_options
from lm2.training import RunConfig
from lm2.training.folder import MODEL_FOLDER, train_folder
from lm2.training.quiet import with_quiet_text
from lm2.training.write_cost import Forward, fresh_rows, priced, watched_gates

LANES, SEGMENTS = 32, 8
"""Texts that are read side by side, each with a bank of its own, and the segments of a pass."""
OPEN = (0.05, 0.1, 0.3)
"""Tokens are counted whose rho is above these in some head of some memory."""
ROWS = 1500
"""Held-out rows that are asked: of 200 a few points of difference are chance."""
HARD_FILE = "hard.json"
FLOOR = 0.01
"""A sentence is hard that has a token with rho above this in some head."""


@dataclass(frozen=True)
class TrainingOn:
    """What a script is told that trains a finished reproduction's LM2 on among hard sentences."""

    run: Path = Path("runs/reproduce")
    """The folder of the reproduction"""
    folder: Path = Path("runs/hard")
    """Models, checkpoints and logs; the same command goes on with what is in it"""
    out: Path | None = None
    """JSON file for the numbers"""
    seed: int = 100
    """Of the sentences that are read and of the rows; the reproduction's own would give the rows that were read"""
    tokens: int = 5_000_000
    """Tokens of the training books that are read for hard sentences"""
    share: float = 0.2
    """Before so many of the background's sentences stands a hard one"""
    learning_rate: float = 5e-4
    """Peak rate"""
    counted: int = 1_500_000
    """Tokens of each of the other books' parts in which writes are counted"""

    @property
    def settings(self) -> dict[str, Any]:
        """What stands beside the numbers: everything but places."""
        named = (field.name for field in fields(self))
        return {name: getattr(self, name) for name in named if name not in ("run", "folder", "out")}

    @property
    def before(self) -> Path:
        """The folder of the model to begin with."""
        return self.run / "lm2"

    def check(self, *needs: tuple[bool, str]) -> None:
        """Raises ValueError where an option is out of range, and FileNotFoundError where there is no LM2 to train.

        Args:
            needs: what else must hold, each with what to say where it does not.
        """
        problems = Problems()
        problems.need(0 < self.share <= 1, f"--share is {self.share:g}: it must be above 0 and at most 1")
        for holds, otherwise in needs:
            problems.need(holds, otherwise)
        problems.raise_all()
        if not (self.before / MODEL_FOLDER).exists():
            raise FileNotFoundError(
                f"--run: {self.run} has no trained LM2: finish `lm2 reproduce --out {self.run}` first"
            )

    def begin(self, what: str) -> ReproduceConfig:
        """Make the folder, or go on with it; the options of the reproduction.

        Raises:
            ValueError: the folder holds another training, or other files.
        """
        torch.set_num_threads(1)
        self.folder.mkdir(parents=True, exist_ok=True)
        check_settings(self.folder, {"options": {"run": str(self.run.resolve()), **self.settings}}, what)
        return ReproduceConfig.from_json(saved_options(self.run), self.run)


@dataclass(frozen=True)
class Options(TrainingOn):
    """Train a finished reproduction's LM2 on, among sentences that it should not have written."""

    rounds: int = 2
    """Trainings, each from the model of the one before it, all with the sentences that the first model writes at"""
    steps: int = 600
    """Steps of a round"""
    floor: float = FLOOR
    """A sentence is hard that has a token with rho above this in some head"""


class HardPool:
    """Background in which a hard sentence, and the one that leads to it, stand before a share of the others."""

    def __init__(self, pool: Passages, read: TokenPool, hard: np.ndarray, share: float):
        self.pool, self.read, self.hard, self.share = pool, read, hard, share

    def sentences(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """An endless walk through the pool; the same generator state gives the same."""
        for sentence in self.pool.sentences(rng):
            if rng.random() < self.share:
                at = int(rng.choice(self.hard))
                yield self.read.ids[self.read.starts[max(0, at - 1)] : self.read.starts[at + 1]]
            yield sentence


@torch.no_grad()
def greatest_rho(model: PreTrainedModel, ids: np.ndarray, label: str) -> np.ndarray:
    """The greatest rho of each token over heads and memories, as the text is read in LANES pieces side by side.

    Up to a pass of tokens of each lane at the end are left out.

    Raises:
        ValueError: there is not a pass of tokens for each lane.
    """
    width = SEGMENTS * model.config.segment_length
    passes = len(ids) // (LANES * width)
    if not passes:
        raise ValueError(
            f"{len(ids):,} tokens to read, and {LANES * width:,} are the fewest: raise --tokens or --counted"
        )
    ids_BL = torch.from_numpy(ids[: LANES * passes * width].astype(np.int64)).view(LANES, -1)
    rho_BL, cache = np.zeros(ids_BL.shape, np.float32), None
    with watched_gates(model) as found, TimeLeft() as bar:
        for start in bar.track(range(0, passes * width, width), description=label):
            found.clear()
            output = model(ids_BL[:, start : start + width], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            seen_GBL = torch.stack([rho.amax(-1).view(LANES, -1)[:, -width:] for rho in found])
            rho_BL[:, start : start + width] = seen_GBL.amax(0).numpy()
    return rho_BL.reshape(-1)


def hard_sentences(model: PreTrainedModel, pool: TokenPool, floor: float) -> np.ndarray:
    """The sentences with a token whose rho is above the floor, by their number in the pool.

    Raises:
        ValueError: there is none.
    """
    rho = greatest_rho(model, pool.ids, "training books")
    hard = np.unique(np.searchsorted(pool.starts, np.flatnonzero(rho > floor), side="right") - 1)
    if not len(hard):
        raise ValueError(
            f"In {len(rho):,} tokens no rho is above {floor:g}, the greatest is {rho.max(initial=0):.2g}: "
            "lower --floor, or read more --tokens."
        )
    return hard


def per_million(rho: np.ndarray) -> dict[str, float]:
    """How many of a million tokens have a rho above each of OPEN."""
    return {f"{bound:g}": round(1e6 * float((rho > bound).mean()), 1) for bound in OPEN}


def harden(options: Options, config: ReproduceConfig, folders: Sequence[Path]) -> None:
    """Train on, each round from the model in the folder before; rounds that are done are left as they are."""
    if (folders[-1] / MODEL_FOLDER).exists():
        return
    rows = material.training_rows(config, sizes_of(config.smoke, config.tasks))
    rows.pool = hard_pool(options, config, rows.pool, options.floor)
    recipe = sizes_of(config.smoke, config.tasks).recipe
    last = replace(recipe.phases[-1], share=1.0)  # of the reproduction
    recipe = replace(recipe, steps=options.steps, learning_rate=options.learning_rate, phases=(last,))
    for number, (before, folder) in enumerate(itertools.pairwise(folders), 1):
        run, tokens = run_of(config, recipe, rows, before, folder, options.seed + number)
        train_folder(run, material.load_tokenizer(config), tokens)


def hard_pool(options: TrainingOn, config: ReproduceConfig, pool: Passages, floor: float) -> HardPool:
    """The pool, with the sentences of the training books that the reproduction's LM2 writes at."""
    read = TokenPool(material.texts_of(config).training, material.load_tokenizer(config), options.seed, options.tokens)
    hard = found_before(options.folder / HARD_FILE, options.before / MODEL_FOLDER, read, floor)
    print(f"{len(hard):,} of {len(read):,} sentences are hard", flush=True)
    return HardPool(pool, read, hard, options.share)


def found_before(path: Path, model: Path, pool: TokenPool, floor: float) -> np.ndarray:
    """The hard sentences, which are found once and kept in a file."""
    if not path.exists():
        write_json(path, hard_sentences(_load(model), pool, floor).tolist())
    return np.array(json.loads(path.read_text(encoding="utf-8")))


def run_of(
    config: ReproduceConfig,
    recipe: Recipe,
    rows: JointRows,
    before: Path,
    folder: Path,
    seed: int,
    forward: Forward = fresh_rows,
) -> tuple[RunConfig, int]:
    """A training from the model in the folder before, and the tokens that it reads.

    The price on writing is the whole one from the start, on quiet text, which has the hard sentences, too.
    """
    start = partial(AutoModelForCausalLM.from_pretrained, before / MODEL_FOLDER)
    run = replace(
        training_run(recipe, "lm2", rows, start, folder, seed),
        schedule="linear",  # ended lower on held-out rows than a rate that stays up (docs/log.md)
        training_forward=priced(recipe.write_cost, (0.0, 0.0), recipe.steps, forward),
    )
    run = with_quiet_text(run, rows, sizes_of(config.smoke, config.tasks).quiet_segments)
    return run, training_tokens(run, recipe, rows, "lm2")


def measure(options: TrainingOn, config: ReproduceConfig, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What each model writes of the validation's books and of those of the questions, and what it answers."""
    tokenizer, texts = material.load_tokenizer(config), material.texts_of(config)
    sources = {"validation": texts.validation, "questions": texts.held_out}
    ids = {name: TokenPool(source, tokenizer, options.seed, options.counted).ids for name, source in sources.items()}
    sizes = replace(sizes_of(config.smoke, config.tasks), validation_rows=ROWS)
    asked = validation.held_out(material.validation_rows(config, sizes), sizes)
    measured = []
    for folder in folders:
        model = _load(folder / MODEL_FOLDER)
        written = {name: per_million(greatest_rho(model, own, f"{name} books")) for name, own in ids.items()}
        answered = validation.validate(model, *asked)
        measured.append({"tokens_of_a_million_with_rho_above": written, "held_out_rows": answered})
    return measured


def _load(place: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(place).eval()


def report(options: TrainingOn, config: ReproduceConfig, folders: Mapping[str, Path]) -> None:
    """Measure the models in the folders, and print and write what was found of each."""
    models = dict(zip(folders, measure(options, config, [*folders.values()]), strict=True))
    result = {**options.settings, "environment": environment(), "models": models}
    print(json.dumps(result, indent=2))
    if options.out is not None:
        write_json(options.out, result)


def main(options: Options) -> None:
    """Harden, and measure before and after each round."""
    trained = min(options.rounds, options.steps) >= 1
    options.check((trained, f"--rounds {options.rounds} --steps {options.steps}: at least 1 each"))
    config = options.begin("hardening")
    rounds = {f"round {number}": options.folder / f"round-{number}" for number in range(1, options.rounds + 1)}
    folders = {"before": options.before, **rounds}
    harden(options, config, [*folders.values()])
    report(options, config, folders)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
