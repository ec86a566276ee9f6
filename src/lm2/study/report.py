"""The tables of the bake-off: one per task, one row per variant, from the results on disk."""

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
import transformers

from lm2.environment import commit, git
from lm2.evaluation.page import table as markdown
from lm2.evaluation.statistics import t_interval, wilson
from lm2.files import write_text
from lm2.study.config import BASE, Job, Sizes, StudyConfig, describe
from lm2.study.job import read_result
from lm2.study.statistics import hazard
from lm2.study.tasks import load_task

LEARNED = 0.5
"""A variant has learned its task where, at the shortest length, it covers at least this share of the way from the best
constant answer to 100 %."""
BANK_HEADERS = ("p on noise", "p 99.9 %", "slots used", "drift")
BANK_NAMES = ("mass_mean", "mass_999", "slots", "drift")


@dataclass(frozen=True)
class Cell:
    """Accuracy at one length, over seeds: the mean and its 95 % interval (of questions when there is one seed)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ({100 * max(self.low, 0):.0f}-{100 * min(self.high, 1):.0f})"


def cell(counts: Sequence[tuple[int, int]]) -> Cell:
    """From (right, n) of each seed."""
    shares = [right / n for right, n in counts]
    low, high = wilson(*counts[0]) if len(counts) == 1 else t_interval(shares)
    return Cell(sum(shares) / len(shares), low, high)


def write_table(config: StudyConfig, jobs: list[Job]) -> None:
    """Write the Markdown page, whole or not at all."""
    config.table.parent.mkdir(parents=True, exist_ok=True)
    write_text(config.table, page(config, jobs))


def page(config: StudyConfig, jobs: list[Job]) -> str:
    """The whole page."""
    parts = ["# Write rules of the memory", _explanation(config)]
    for task in dict.fromkeys(config.tasks):
        parts += [f"## {task}", table(task, [job for job in jobs if job.task == task])]
    parts += ["## Variants", "\n".join(f"* {name}: {describe(name)}" for name in dict.fromkeys(config.variants))]
    failures = _failures(jobs)
    if failures:
        parts += ["## Failures", "\n".join(f"* {line}" for line in failures)]
    return "\n\n".join(parts) + "\n"


def table(task: str, jobs: list[Job]) -> str:
    """One task's table, best first at the greatest length, runs without accuracy last."""
    results: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        if job.variant != BASE:
            results.setdefault(job.variant, []).append(read_result(job) or {"status": "missing"})
    lengths = sorted({int(n) for runs in results.values() for run in runs for n in run.get("accuracy", {})})
    pairs = _hazard_pair(lengths)
    hazards = f"h {pairs[0]}-{pairs[1]}" if pairs else "h"
    header = ["variant", "seeds", *map(str, lengths), hazards, *BANK_HEADERS, "minutes"]
    rows = [_row(name, runs, lengths, pairs) for name, runs in results.items()]
    rows = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    constant = ["best constant answer", "", *_constants(results, lengths), *[""] * 6]
    return markdown(header, [*rows, constant], len(header))


def learned(result: dict[str, Any]) -> bool:
    """Whether a finished run is above chance where the task is easiest."""
    shortest = result["accuracy"][min(result["accuracy"], key=int)]
    accuracy, constant = shortest["right"] / shortest["n"], shortest["constant"]
    return accuracy >= constant + LEARNED * (1 - constant)


def _row(
    name: str, runs: list[dict[str, Any]], lengths: list[int], pair: tuple[int, int] | None
) -> tuple[float, list[str]]:
    """The sorting key and the cells of one variant."""
    good = [run for run in runs if "accuracy" in run]
    seeds = f"{len(good)} of {len(runs)}"
    if not good:
        statuses = ", ".join(sorted({run["status"] for run in runs}))
        return -1.0, [name, f"{seeds}: {statuses}", *["-"] * (len(lengths) + 6)]
    counts = {n: [(run["accuracy"][str(n)]["right"], run["accuracy"][str(n)]["n"]) for run in good] for n in lengths}
    cells = {n: cell(pairs) for n, pairs in counts.items()}
    failed = sum(not learned(run) for run in good)
    seeds += f", {failed} not learned" if failed else ""
    h = hazard(cells[pair[0]].mean, cells[pair[1]].mean, pair[1] - pair[0]) if pair else None
    banks = [run["bank"] for run in good if run["bank"]]
    numbers = [f"{sum(bank[key] for bank in banks) / len(banks):.2g}" if banks else "-" for key in BANK_NAMES]
    minutes = sum(run["training_seconds"] for run in good) / len(good) / 60
    texts = [name, seeds, *(str(cells[n]) for n in lengths), "-" if h is None else f"{h:.1e}", *numbers]
    return (cells[lengths[-1]].mean, [*texts, f"{minutes:.1f}"])


def _hazard_pair(lengths: list[int]) -> tuple[int, int] | None:
    """The two greatest lengths n and 4 n."""
    return next(((n // 4, n) for n in reversed(lengths) if n % 4 == 0 and n // 4 in lengths), None)


def _constants(results: dict[str, list[dict[str, Any]]], lengths: list[int]) -> list[str]:
    measured = [run["accuracy"] for runs in results.values() for run in runs if "accuracy" in run]
    return [f"{100 * measured[0][str(n)]['constant']:.1f}" for n in lengths]


def _failures(jobs: list[Job]) -> list[str]:
    """A line for every run without a usable result, and for every backbone, whose quality bounds all variants."""
    lines = []
    for job in jobs:
        result = read_result(job) or {"status": "missing"}
        where = f"{job.task}, seed {job.seed}, {job.variant}"
        if result["status"] != "finished":
            lines.append(f"{where}: {result['status']}. {result.get('message', '')}".rstrip())
        elif job.variant != BASE and not learned(result):
            lines.append(f"{where}: not learned at the shortest length.")
    return lines


def _explanation(config: StudyConfig) -> str:
    sizes = ", ".join(f"{name.replace('_', ' ')} {getattr(config, name)}" for name in Sizes.__dataclass_fields__)
    tasks = [load_task(name) for name in dict.fromkeys(config.tasks)]
    lengths = "; ".join(f"{task.name}: T = {task.segment_length}, {task.layers} blocks" for task in tasks)
    command = shlex.join(["lm2", "study", "write-rules", *_arguments()])
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    return "\n".join(
        [
            "Accuracy in per cent by number of segments (once: of noise between fact and question; qa1, qa2: of "
            "the text, the decisive fact before the question's segment), whole vocabulary, greedy. Mean over seeds and "
            "95 % t-interval; with one seed Wilson's interval over questions. h is the loss per segment between two "
            "lengths, ln(accuracy / accuracy) / segments. p is the write mass in 64 segments of noise after a story, "
            "slots used those with p above 0.1 in the story, drift 1 - cosine of their rows before and after it. "
            "All variants of a task and seed start from the same backbone and read the same rows.",
            "",
            f"* Command: `{command}`",
            f"* Made {datetime.now(UTC):%Y-%m-%d} at commit {_commit()}; {versions}",
            f"* Seeds {', '.join(map(str, config.seeds))}; {sizes}",
            f"* {lengths}",
        ]
    )


def _arguments() -> list[str]:
    """The command line's arguments behind `study write-rules`."""
    return sys.argv[3:] if sys.argv[1:3] == ["study", "write-rules"] else []


def _commit() -> str:
    """The commit of the source, with a plus if files differ from it."""
    found = commit()
    if found is None:
        return "unknown"
    return found[:12] + ("+" if (git("status", "--porcelain", "--untracked-files=no") or "").strip() else "")
