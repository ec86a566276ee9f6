"""Do RMT and ARMT learn simulated qa1 in background text at the lengths they are trained at?

    lm2 demo --out runs/demo
    python benchmarks/learn_qa1.py --demo runs/demo [--longest 16 --steps 12000] [--out docs/results/baselines.json]

They start from the demo's backbone, which has learned on single segments to bind names to places, read its kinds of
rows, of one and two segments and then, each length after half of it, up to --longest, and are asked its questions. In
"own" the decisive fact lies in the question's segment, in "earlier" in one before it. The last column is of texts
longer than any that they have read.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from lm2.demo.config import DemoConfig, Where
from lm2.demo.evaluation import answer
from lm2.demo.material import load_set, training_rows
from lm2.demo.recipe import Phase, recipe_of, stages
from lm2.demo.rows import make_batch
from lm2.environment import environment
from lm2.files import write_json
from lm2.settings import saved_options
from lm2.training import RunConfig, train

Kind = Literal["rmt", "armt"]
KINDS: dict[Kind, type[RMTForCausalLM] | type[ARMTForCausalLM]] = {"rmt": RMTForCausalLM, "armt": ARMTForCausalLM}
SETTINGS = ("seed", "longest", "steps", "learning_rate", "memory_tokens")
"""Options that stand beside the numbers."""
REPEATED, MIXED = ("repeated",), ("repeated", "dense", "scattered", "scattered")
LONG_ROWS = 16
"""Of a step, at least: 64 segments, as of the short ones, would be four rows of 16 segments."""
TRAINING: dict[str, Any] = {"optimizer": "muon", "muon_learning_rate": 0.005, "muon_weight_decay": 0.3}
"""With AdamW at 3e-3 RMT still loses 3 to 4 % at 8 and 16 segments after 12,000 steps (docs/log.md)."""


@dataclass(frozen=True)
class Options:
    """Train RMT and ARMT on simulated qa1, and ask them."""

    demo: Path = Path("runs/demo")
    """The folder of a demo whose backbone is trained"""
    folder: Path = Path("runs/learn-qa1")
    """Checkpoints and logs; the same command goes on with what is in it"""
    out: Path | None = None
    """JSON file for the numbers"""
    seed: int = 0
    """Of new weights and rows"""
    kinds: tuple[Kind, ...] = ("rmt", "armt")
    """Which are trained"""
    longest: int = 2
    """Segments of the longest rows: 2, 4, 8, ..."""
    steps: int = 800
    """Steps of each model, of 64 segments, or of sixteen rows of the longest"""
    learning_rate: float = 3e-3
    """Peak rate"""
    memory_tokens: int = 16
    """Memory tokens of RMT, write tokens of ARMT"""

    @property
    def lengths(self) -> list[int]:
        """Segments of the rows: 1, 2, 4, ..."""
        return [2**power for power in range(self.longest.bit_length())]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Facts told again and again, then each length with all shorter ones, and twice as often as each of them."""
        grown = [(*self.lengths[: n + 1], self.lengths[n]) for n in range(1, len(self.lengths))]
        share = 0.94 / len(grown)
        later = (Phase(share, lengths, MIXED, max(Phase.rows, LONG_ROWS * lengths[-1])) for lengths in grown)
        return (Phase(0.06, (2,), REPEATED), *later)

    def columns(self, asked: Sequence[int]) -> list[tuple[Where, int]]:
        """Where the decisive fact is, and the text's number of segments, among those that the demo asks."""
        longer = sorted(n for n in asked if n > self.longest)[:1]
        lengths = [*self.lengths, *longer]
        return [("own", n) for n in self.lengths] + [("earlier", n) for n in lengths[1:]]

    def check(self) -> None:
        """Raises ValueError where --longest is no power of two above 1."""
        if self.longest < 2 or self.longest & (self.longest - 1):
            raise ValueError(f"--longest is {self.longest}: it must be 2, 4, 8 or a further power of two")


def start(kind: Kind, options: Options, segment_length: int) -> PreTrainedModel:
    """The untrained model around the demo's backbone."""
    backbone = AutoModelForCausalLM.from_pretrained(options.demo / "base" / "model")
    tokens = options.memory_tokens
    return KINDS[kind].from_backbone(backbone, segment_length=segment_length, memory_tokens=tokens)


def demo_of(options: Options) -> DemoConfig:
    """The options of the demo in the folder."""
    return DemoConfig.from_json(saved_options(options.demo), options.demo)


def run_of(kind: Kind, options: Options) -> RunConfig:
    """The training of one model, as in the demo but for the lengths."""
    demo = demo_of(options)
    recipe, plan = recipe_of(demo), stages(options.phases, options.steps)
    return RunConfig(
        model=partial(start, kind, options, recipe.segment_length),
        make_batch=partial(make_batch, training_rows(demo, recipe), options.phases, plan),
        stages=plan,
        output_dir=options.folder / kind,
        seed=options.seed,
        learning_rate=options.learning_rate,
        betas=(0.9, 0.98),
        **TRAINING,
        schedule="trapezoid",
        warmup_steps=min(50, options.steps // 4),
        save_every=200,
        keep_checkpoints=1,
        report_to=(),
    )


def learn(kind: Kind, options: Options) -> dict[str, Any]:
    """Train a model and ask it; the minutes are those of this process, by the clock and of the processor."""
    began, cpu = time.perf_counter(), time.process_time()
    model = train(run_of(kind, options), resume=True).model
    assert isinstance(model, PreTrainedModel)
    result = {"minutes": (time.perf_counter() - began) / 60, "cpu_minutes": (time.process_time() - cpu) / 60}
    model.save_pretrained(options.folder / kind / "model")
    columns = options.columns(demo_of(options).segments)
    accuracies = {f"{where}_{n}": accuracy(model.eval(), options.demo, where, n) for where, n in columns}
    return {"parameters": model.num_parameters(), **result, **accuracies}


def accuracy(model: PreTrainedModel, demo: Path, where: Where, segments: int) -> float:
    """Share of right answers, the greedy choice among all tokens."""
    asked = load_set(demo, where, segments)
    answers = answer(model, torch.from_numpy(asked.ids), model.config.segment_length)
    return (answers == torch.from_numpy(asked.answers)).float().mean().item()


def main(options: Options) -> None:
    """Train and ask both, and write the numbers."""
    options.check()
    torch.set_num_threads(1)
    models: dict[str, dict[str, Any]] = {}
    for kind in options.kinds:
        models[kind] = learn(kind, options)
        print(kind, {name: round(value, 3) for name, value in models[kind].items()}, flush=True)
    if options.out is not None:
        settings = {name: getattr(options, name) for name in SETTINGS}
        write_json(options.out, {**settings, **TRAINING, "environment": environment(), "models": models})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
