"""Do the contenders of a reproduction keep more over long texts when some of their rows in training are longer?

    lm2 reproduce --babi babi --books books --out runs/reproduce
    python benchmarks/long_rows.py --run runs/reproduce [--folder runs/long] [--out docs/results/long_rows.json]

The page's rows have at most 16 segments, and 1k of BABILong has about 20. Here the last quarter of the steps has rows
of 8 to 64 segments instead, as many tokens a step. All else is as in `lm2 reproduce`, from the run's own backbone:
learning rates, searched again, tokens in all, and the questions of the claim. The same command goes on.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import tyro

from lm2.demo.recipe import Phase
from lm2.environment import environment
from lm2.errors import Problems
from lm2.evaluation.controls import MAIN
from lm2.evaluation.page import table
from lm2.evaluation.report import collect as report_of
from lm2.evaluation.report import ordered, save
from lm2.evaluation.statistics import p_value
from lm2.files import write_json
from lm2.reproduce import asking, material, validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.results import Report, main_cells, paired
from lm2.reproduce.sizes import MEMORIES, NAMES, Cells, Sizes, sizes_of
from lm2.reproduce.steps import steps_of
from lm2.reproduce.work import Work, chosen_rate
from lm2.settings import check_settings, published_settings, saved_options
from lm2.training.folder import TRAINING_FILE

TAKEN = ("tokenizer", "base")
"""What is the run's own."""


@dataclass(frozen=True)
class Options:
    """Train contenders of a reproduction with longer rows, and ask them the questions of the claim."""

    run: Path = Path("runs/reproduce")
    """The folder of the reproduction, whose backbone is there"""
    folder: Path = Path("runs/long")
    """Models, checkpoints, answers; the same command goes on with what is in it"""
    names: tuple[str, ...] = MEMORIES
    """Contenders, one after the other"""
    segments: tuple[int, ...] = (8, 16, 32, 64)
    """What rows have at the end of the training, as often one as the other"""
    share: float = 0.25
    """Of the steps, at the end of the training"""
    out: Path | None = None
    """JSON file for the numbers"""

    def check(self) -> None:
        """Raises ValueError where an option is out of range, and FileNotFoundError where there is no backbone."""
        problems, step = Problems(), max(phase.rows for phase in self.sizes.recipe.phases)
        known = set(self.names) <= set(MEMORIES)
        problems.need(known, f"--names {' '.join(self.names)}: choose among {', '.join(MEMORIES)}")
        last = self.sizes.recipe.phases[-1].share
        problems.need(0 < self.share < last, f"--share is {self.share:g}: it must be above 0 and below {last:g}")
        fitting = all(segments > 0 and step % segments == 0 for segments in self.segments)
        problems.need(fitting, f"--segments {self.segments}: each must be a part of the {step} of a step")
        problems.raise_all()
        for name in TAKEN:
            if not (self.run / name).exists():
                raise FileNotFoundError(f"--run: {self.run} has no {name}: run `lm2 reproduce --out {self.run}` first")

    @cached_property
    def config(self) -> ReproduceConfig:
        """The options of the reproduction, in this folder."""
        return ReproduceConfig.from_json(saved_options(self.run), self.folder)

    @property
    def sizes(self) -> Sizes:
        """Those of the reproduction; asked is what the claim is about, qa1 at its farthest length with it."""
        sizes = sizes_of(self.config.smoke, self.config.tasks)
        main = replace(sizes.main, samples={length: sizes.main.samples[length] for length in sizes.claimed})
        far = replace(sizes.far, samples=dict([*sizes.far.samples.items()][-1:]))
        return replace(sizes, main=main, far=far, controls=Cells((), {}))

    @property
    def longer(self) -> Sizes:
        """With longer rows in the last phase."""
        sizes = self.sizes
        *phases, last = sizes.recipe.phases
        end = Phase(self.share, self.segments, last.kinds, last.rows)
        phases = (*phases, replace(last, share=last.share - self.share), end)
        return replace(sizes, recipe=replace(sizes.recipe, phases=phases))


def main(options: Options) -> None:
    """Train, ask, and print a table."""
    options.check()
    torch.set_num_threads(1)
    begin(options)
    config, sizes = options.config, options.longer
    work = Work(config, sizes)
    for step in steps_of(config, sizes):
        if step.part in options.names and not step.is_done():
            print(f"{NAMES[step.part]}: {step.text}", flush=True)
            step.work(work)
    result = collect(config, sizes, options.names)
    print(page(result))
    for other, cells in result["paired"].items():
        print(f"LM2 against {other}: p = {p_value(cells[-1]['p'])}")
    if options.out is not None:
        settings = {"segments": options.segments, "share": options.share, **published_settings(options.run)}
        write_json(options.out, {**settings, "environment": environment(), **result})


def begin(options: Options) -> None:
    """Take the run's tokenizer and backbone, if they are not there yet."""
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = {"segments": options.segments, "share": options.share, "run": str(options.run.resolve())}
    check_settings(options.folder, {"options": settings}, "training with longer rows")
    for name in TAKEN:
        if not (options.folder / name).exists():
            ignored = shutil.ignore_patterns("checkpoint-*", "runs")
            beside = options.folder / f".{name}.partial"
            shutil.copytree(options.run / name, beside, ignore=ignored, dirs_exist_ok=True)
            beside.rename(options.folder / name)


def collect(config: ReproduceConfig, sizes: Sizes, names: Sequence[str]) -> dict[str, Any]:
    """What each contender answers, LM2 against each other one (a paired test), and how its training ended."""
    source = material.samples(config)

    def report(cells: Cells) -> Report:
        asked = asking.answers(config, sizes, cells, names, source)
        return report_of(asking.cells_config(config, sizes, cells, ("all",)), source.description, asked)

    claimed = report(sizes.main)
    training = {
        NAMES[name]: {
            "rate": chosen_rate(config, sizes, name),
            "held_out": validation.last(config.out / name),
            "training": json.loads((config.out / name / TRAINING_FILE).read_text(encoding="utf-8")),
        }
        for name in names
    }
    save(claimed, config.out / "report.json")
    tests = paired(config.out / "report.json", claimed) if "lm2" in names else {}
    phases = [asdict(phase) for phase in sizes.recipe.phases]
    return {"training": training, "phases": phases, "paired": tests, "report": claimed, "far": report(sizes.far)}


def page(result: dict[str, Any]) -> str:
    """Means of the tasks and qa1, in %, at each length."""
    report = result["report"]
    lengths = ordered(cell["length"] for cell in report["cells"])
    cells = main_cells(report) | main_cells(result["far"])
    with_far = ordered(length for _, _, length in cells)
    rows = []
    for model, facts in result["training"].items():
        carried = [row for row in report["means"] if row["model"] == model and row["condition"] in MAIN]
        means = [100 * row["mean"] for row in carried]
        qa1 = [100 * cells[model, "qa1", length]["accuracy"] for length in with_far]
        shown = [f"{value:.1f}" for value in (*means, sum(means) / len(means), *qa1)]
        rows.append([model, f"{facts['rate']:g}", *shown])
    means = [f"mean at {length}" for length in lengths]
    return table(("model", "rate", *means, "mean", *(f"qa1 at {length}" for length in with_far)), rows)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
