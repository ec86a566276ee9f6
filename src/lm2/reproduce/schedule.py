"""The runs of a command: which part of which comes next, and how long all of them take.

A part waits for the backbone of its run and for a free process, and for nothing else: while one run's backbone is
trained, parts of another are done.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import NAMES, Sizes
from lm2.reproduce.steps import REPORT, Step, steps_of

BASE = "base"


class Run(NamedTuple):
    """A reproduction: one seed and tasks that are learned together."""

    config: ReproduceConfig
    sizes: Sizes
    steps: list[Step]

    @property
    def name(self) -> str:
        """Its tasks and its seed, as in "qa1-qa5 seed 0"."""
        return f"{name_of(self.config.tasks)} seed {self.config.seed}"


class Part(NamedTuple):
    """A part of a run, which is a process."""

    run: str
    name: str


def run_of(config: ReproduceConfig, sizes: Sizes) -> Run:
    """The run of these options."""
    return Run(config, sizes, steps_of(config, sizes))


def name_of(tasks: Sequence[str]) -> str:
    """The first and the last of the tasks."""
    return "-".join(dict.fromkeys((tasks[0], tasks[-1])))


def steps_by_part(runs: Sequence[Run]) -> list[tuple[Part, Step]]:
    """All steps, in the order in which their parts are to start."""
    return [(Part(run.name, step.part), step) for run in runs for step in run.steps]


def next_part(waiting: Sequence[Part], running: Collection[Part]) -> Part | None:
    """The first that waits for no backbone; None if there is none now."""
    missing = {part.run for part in (*waiting, *running) if part.name == BASE}
    return next((part for part in waiting if part.name == BASE or part.run not in missing), None)


def summed(seconds: Iterable[tuple[Part, float]]) -> dict[Part, float]:
    """The seconds of each part, in the order of its first step."""
    parts: dict[Part, float] = {}
    for part, more in seconds:
        parts[part] = parts.get(part, 0.0) + more
    return parts


def whole_seconds(parts: Mapping[Part, float], processes: int = 2) -> float:
    """How long parts take that start in this order as soon as they can."""
    waiting, running, now = list(parts), dict[Part, float](), 0.0
    while waiting or running:
        while len(running) < processes and (part := next_part(waiting, running)) is not None:
            waiting.remove(part)
            running[part] = now + parts[part]
        now = min(running.values())
        running = {part: end for part, end in running.items() if end > now}
    return now


def expected_seconds(runs: Sequence[Run]) -> float:
    """How long the runs take in all, their reports with them."""
    return whole_seconds(summed((part, step.seconds) for part, step in steps_by_part(runs))) + REPORT * len(runs)


def dry_run(runs: Sequence[Run]) -> str:
    """The parts of a run with their tokens and minutes, or several runs with their tokens and hours."""
    total, ending = expected_seconds(runs), "with two processes side by side"
    if len(runs) == 1:
        lines = [
            f"{NAMES[s.part]:<6} {s.text:<12} {s.tokens:>13,} tokens {s.seconds / 60:>7.1f} minutes"
            for s in runs[0].steps
        ]
        return "\n".join([*lines, f"\nin all about {total / 60:.0f} minutes {ending}"])
    lines = [
        f"{run.name:<16} {sum(s.tokens for s in run.steps):>13,} tokens {expected_seconds([run]) / 3600:>6.1f} hours"
        for run in runs
    ]
    return "\n".join([*lines, f"\nin all about {total / 3600:.1f} hours {ending}"])
