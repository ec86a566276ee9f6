"""What several seeds of a reproduction say together: means, what LM2 has more than the others, and a picture.

    cd docs/results
    python ../../benchmarks/seeds_babilong.py reproduce/{,seed-1/,seed-2/}results.json --out reproduce/seeds.md
    python ../../benchmarks/seeds_babilong.py long_rows{,_seed_1,_seed_2}.json --out long_rows_seeds.md

The files are the results.json of `lm2 reproduce`, or what `long_rows.py` wrote. The picture lies beside the page.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import tyro

from lm2.evaluation.controls import MAIN
from lm2.evaluation.figure import draw_curves
from lm2.evaluation.page import table
from lm2.evaluation.report import lengths_of, mean_rows, ordered
from lm2.evaluation.statistics import p_value, t_interval
from lm2.files import write_text
from lm2.reproduce.full import Shares, curves_of, shares_of
from lm2.reproduce.results import Report
from lm2.reproduce.sizes import FULL

OURS = "LM2"


@dataclass(frozen=True)
class Options:
    """Put together what several seeds of a reproduction found."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Results, one file for each seed"""
    out: Path = Path("runs/seeds.md")
    """Page to write"""


@dataclass(frozen=True)
class Run:
    """The results of a seed."""

    path: Path
    found: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.found["options"]["seed"]

    @property
    def page(self) -> Path:
        """To be read: the results' own page, where there is one."""
        page = self.path.with_suffix(".md")
        return page if page.exists() else self.path

    @property
    def reports(self) -> dict[str, Report]:
        """By name; what `long_rows.py` wrote is one report, with all lengths."""
        return self.found.get("reports") or dict.fromkeys(("official", "far"), self.found["report"])

    def mean(self, model: str) -> float:
        """The mean over tasks and the lengths of the claim, in percent."""
        means = self.reports["official"]["means"]
        rows = [row for row in means if row["model"] == model and row["condition"] in MAIN]
        claimed = [row["mean"] for row in rows if row["length"] in FULL.claimed]
        return 100 * (sum(claimed) / len(claimed))  # as the page's, to the last bit: it may be rounded


def read(files: Sequence[Path]) -> list[Run]:
    """The runs in order of their seeds.

    Raises:
        ValueError: fewer than two, a seed twice, or runs that differ in more than the seed.
    """
    runs = [Run(path, json.loads(path.read_text(encoding="utf-8"))) for path in files]
    seeds = sorted(run.seed for run in runs)
    if len(set(seeds)) < max(2, len(seeds)):
        raise ValueError(f"the files are of the seeds {seeds}: give two or more, each of another seed")
    for run in runs[1:]:
        first, other = ({**one.found["options"], "seed": None} for one in (runs[0], run))
        if first != other:
            raise ValueError(f"{runs[0].path} has {first} and {run.path} has {other}: only the seeds may differ")
    return sorted(runs, key=lambda run: run.seed)


def shares_over(runs: Sequence[Run]) -> Shares:
    """Right answers of every cell, a share for each seed."""
    return shares_of([run.reports for run in runs], "official")


def page(runs: Sequence[Run], out: Path) -> str:
    """The whole page."""
    links = [f"[{run.seed}]({Path(os.path.relpath(run.page, out.parent)).as_posix()})" for run in runs]
    shares = shares_over(runs)
    tasks = ordered(task for _, task, _ in shares)
    first = {key: own for key, own in shares.items() if key[1] == tasks[0]}
    parts = [
        "# BABILong at equal budget: several seeds together",
        f"Right answers in %, official rule, of the seeds {', '.join(links)}. In brackets after a mean or a difference "
        "its 95 % interval over the seeds (Student's t), after a number by length the lowest and the highest seed.",
        f"## Means of {tasks[0]} to {tasks[-1]}, {FULL.claimed[0]} to {FULL.claimed[-1]}",
        means(runs),
        f"## {OURS} against the others",
        differences(runs),
        *claims(runs),
        "## By length",
        f"Means over tasks. ![Means over tasks by length, shaded from the lowest to the highest seed]({picture(out)})",
        by_length(shares),
        f"{tasks[0]}:",
        by_length(first),
    ]
    return "\n\n".join(parts) + "\n"


def picture(out: Path) -> str:
    return f"{out.stem}.png"


def compared(runs: Sequence[Run]) -> list[str]:
    """The models that LM2 is compared with: no sample of the claim was too long for them."""
    return list(runs[0].found["paired"])


def means(runs: Sequence[Run]) -> str:
    """A model in a row: its mean with each seed and over all."""
    rows = []
    for model in (OURS, *compared(runs)):
        by_seed = [run.mean(model) for run in runs]
        rows.append([model, *(f"{mean:.1f}" for mean in by_seed), over_seeds(by_seed)])
    return table(["model", *(f"seed {run.seed}" for run in runs), "all"], rows)


def differences(runs: Sequence[Run]) -> str:
    """A model in a row: how much more LM2 has, in points and relatively, and the paired test of each seed."""
    rows = []
    for model in compared(runs):
        pairs = [(run.mean(OURS), run.mean(model)) for run in runs]
        rows.append(
            [
                model,
                over_seeds([ours - other for ours, other in pairs]),
                ", ".join(f"{100 * (ours / other - 1):.1f}" for ours, other in pairs),
                ", ".join(p_value(run.found["paired"][model][-1]["p"]) for run in runs),
            ]
        )
    return table(["against", "points more", "% more, by seed", "p, by seed"], rows)


def over_seeds(values: Sequence[float]) -> str:
    """A mean and its interval."""
    low, high = t_interval(values)
    return f"{fmean(values):.1f} ({low:.1f} to {high:.1f})"


def claims(runs: Sequence[Run]) -> list[str]:
    """How many seeds meet what the command checks; nothing where it was not checked."""
    if "claims" not in runs[0].found:
        return []
    by_run = [{claim["text"]: claim["met"] for claim in run.found["claims"]} for run in runs]
    rows = [[text, f"{sum(met.get(text, False) for met in by_run)} of {len(runs)}"] for text in by_run[0]]
    return ["## The claim", table(["claim", "met with"], rows)]


def by_length(shares: Shares) -> str:
    """A model in a row: the mean over tasks and seeds at each length."""
    report = curves_of(shares)
    lengths = lengths_of(report)
    rows = [[model, *(spread(row.get(n)) for n in lengths)] for (model, _), row in mean_rows(report).items()]
    return table(["model", *lengths], rows)


def spread(row: dict[str, Any] | None) -> str:
    """A mean with the lowest and the highest seed, nothing where it was not asked."""
    return "" if row is None else f"{100 * row['mean']:.1f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


def main(options: Options) -> None:
    """Write page and picture, and print the page."""
    runs = read(options.files)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(curves_of(shares_over(runs)), options.out.parent / picture(options.out))
    text = page(runs, options.out)
    write_text(options.out, text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
