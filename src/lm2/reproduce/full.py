"""A full reproduction: which runs it is made of, and what their results say together, over seeds.

The runs are those of `lm2 reproduce` with other seeds and other tasks; docs/decisions/007-full-reproduction.md says why
these. The first is the ordinary run, in the folder itself, the others are in `full`:

    qa1 to qa5 together, for each seed      each of them alone, for each seed      qa6 to qa10 together, for each seed
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm2.environment import environment
from lm2.evaluation.report import CONSTANT
from lm2.evaluation.statistics import t_interval
from lm2.reproduce.config import TASKS, ReproduceConfig
from lm2.reproduce.results import SHOWN, Report, main_cells
from lm2.reproduce.schedule import Run, name_of, run_of
from lm2.reproduce.sizes import Sizes, of_tasks, sizes_of

FOLDER = "full"
OTHERS = ("qa6", "qa7", "qa8", "qa9", "qa10")
RULES = ("official", "word")

Shares = dict[tuple[str, str, str], list[float]]
"""Right answers by model, task and length, one share for each seed; the best constant answer is a model, too."""


@dataclass(frozen=True)
class Plan:
    """How many seeds, which tasks alone, and which others together."""

    seeds: int = 3
    alone: tuple[str, ...] = TASKS
    others: tuple[str, ...] = OTHERS


def runs_of(config: ReproduceConfig) -> list[Run]:
    """The runs of a command: one, or with --full all of them in order."""
    sizes = sizes_of(config.smoke, config.tasks)
    if not config.full:
        return [run_of(config, sizes)]
    return planned(config, sizes, Plan(seeds=2, alone=TASKS[:1]) if config.smoke else Plan())


def planned(config: ReproduceConfig, sizes: Sizes, plan: Plan) -> list[Run]:
    """The runs of a plan; `sizes` are those of qa1 to qa5 together."""
    together = sizes.main.tasks
    sets = [together, *((task,) for task in plan.alone), plan.others]
    seeds = range(config.seed, config.seed + plan.seeds)
    wanted = [replace(config, full=False, tasks=tasks, seed=seed) for tasks in sets for seed in seeds]
    outs = [config.out, *(config.out / FOLDER / f"{name_of(one.tasks)}-seed-{one.seed}" for one in wanted[1:])]
    return [run_of(replace(one, out=out), of_tasks(sizes, one.tasks)) for one, out in zip(wanted, outs, strict=True)]


def collect(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the page shows, from the results of each run.

    Returns:
        Among the rest `cells`: for each set of tasks, rule, model, task and length the share of right answers of each
        seed, their mean ("accuracy") and its 95 % t-interval ("low" and "high", within 0 and 1).
    """
    sets = dict.fromkeys(run.config.tasks for run in runs)
    by_set = {tasks: [one for run, one in zip(runs, found, strict=True) if run.config.tasks == tasks] for tasks in sets}
    return {
        "environment": environment(),
        "smoke": runs[0].config.smoke,
        "seeds": list(dict.fromkeys(run.config.seed for run in runs)),
        "samples": found[0]["reports"]["official"]["samples"],
        "claimed": list(runs[0].sizes.claimed),
        "runs": [_facts(runs[0].config.out, run, one) for run, one in zip(runs, found, strict=True)],
        "claims": [
            {"seed": run.config.seed, **claim}
            for run, one in zip(runs, found, strict=True)
            if run.config.tasks == runs[0].config.tasks
            for claim in one["claims"]
        ],
        "cells": [
            {
                "tasks": name_of(tasks),
                "rule": rule,
                "model": model,
                "task": task,
                "length": length,
                **over_seeds(shares),
            }
            for tasks, ones in by_set.items()
            for rule in RULES
            for (model, task, length), shares in shares_of([one["reports"] for one in ones], rule).items()
        ],
    }


def _facts(out: Path, run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    training = found["training"]
    return {
        "name": run.name,
        "folder": run.config.out.relative_to(out).as_posix(),
        "tasks": list(run.config.tasks),
        "seed": run.config.seed,
        "tokens": {name: training[name]["tokens"] for name in ("base", *SHOWN)},
        "rates": {name: training[name]["rate"] for name in SHOWN},
    }


def shares_of(reports: Sequence[Mapping[str, Report]], rule: str) -> Shares:
    """The shares of all cells that every seed has; not one with a sample that was too long."""
    seeds = [_accuracies([one[rule], one["far"]] if rule == one["far"]["rule"] else [one[rule]]) for one in reports]
    found = {key: [share for one in seeds if (share := one.get(key)) is not None] for key in seeds[0]}
    return {key: shares for key, shares in found.items() if len(shares) == len(seeds)}


def _accuracies(reports: Iterable[Report]) -> dict[tuple[str, str, str], float | None]:
    found: dict[tuple[str, str, str], float | None] = {}
    for report in reports:
        found |= {key: cell["accuracy"] for key, cell in main_cells(report).items()}
        found |= {(CONSTANT, cell["task"], cell["length"]): cell["accuracy"] for cell in report["constant"]}
    return found


def over_seeds(shares: Sequence[float]) -> dict[str, Any]:
    """A share by seed, its mean and its 95 % interval."""
    low, high = t_interval(shares)
    return {"shares": list(shares), "accuracy": sum(shares) / len(shares), "low": max(0.0, low), "high": min(1.0, high)}


def mean_of(cells: Sequence[Sequence[float]]) -> list[float]:
    """The mean over cells, seed by seed."""
    return [sum(seed) / len(cells) for seed in zip(*cells, strict=True)]


def curves_of(cells: Shares) -> Report:
    """What `draw_curves` shows of them: means over tasks and seeds, shaded from the lowest seed to the highest."""
    tasks, rows = dict.fromkeys(task for _, task, _ in cells), []
    for model, length in dict.fromkeys((model, length) for model, _, length in cells):
        own = [shares for (m, _, n), shares in cells.items() if (m, n) == (model, length)]
        if len(own) == len(tasks):
            by_seed = mean_of(own)
            spread = {"mean": sum(by_seed) / len(by_seed), "low": min(by_seed), "high": max(by_seed)}
            rows.append({"model": model, "condition": "plain", "length": length, **spread})
    lengths = dict.fromkeys(row["length"] for row in rows)
    return {
        "rule": "official",
        "models": [model for model in dict.fromkeys(row["model"] for row in rows) if model != CONSTANT],
        "cells": [{"task": task, "length": length} for task in tasks for length in lengths],
        "means": rows,
    }
