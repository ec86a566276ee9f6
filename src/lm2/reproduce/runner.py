"""The whole command in order: backbones and contenders, two processes at a time, then reports.

Every step is kept in the folder as it is done, and a step that is done is not done again.
"""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from lm2.held import held
from lm2.processes import Processes, usable_processors
from lm2.progress import TimeLeft
from lm2.reproduce import full, full_page, material, page, results
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.schedule import Part, Run, dry_run, next_part, steps_by_part, summed, whole_seconds
from lm2.reproduce.sizes import NAMES
from lm2.reproduce.steps import Step
from lm2.settings import check_settings

SIDE_BY_SIDE = 2
LOOK_EVERY = 2.0
"""Seconds between looks at what is done."""
PACE_OF = 3600
"""Seconds whose pace the time left goes by: parts are faster or slower than expected, and by that of ten minutes it was
at times twice what it then took."""


def run(config: ReproduceConfig) -> None:
    """Do what is missing of a reproduction, then write and show its results.

    Raises:
        ValueError: options out of range, a folder of another run or one in which another process works, texts that
            cannot be used, or a model's error.
        OSError: a file that cannot be read or written.
    """
    config.check()
    runs, console = full.runs_of(config), Console()
    if config.full or config.dry_run:
        console.print(dry_run(runs), highlight=False)
    if config.dry_run:
        return
    material.check_texts(config, [task for run in runs for task in run.config.tasks])
    for one in runs:
        one.config.out.mkdir(parents=True, exist_ok=True)
        settings = {"options": one.config.to_json(), "sizes": dataclasses.asdict(one.sizes)}
        check_settings(one.config.out, settings, "reproduction")
    with ExitStack() as folders:
        for one in runs:
            folders.enter_context(held(one.config.out))
        work(runs, console)
        files = report(config, runs, console)
    console.print(f"\nSaved: {', '.join(map(str, files))}", soft_wrap=True, highlight=False)


def report(config: ReproduceConfig, runs: Sequence[Run], console: Console) -> list[Path]:
    """Write the page of every run, and of all together; show it, and return its files."""
    found, files = [], []
    for one in runs:
        if len(runs) > 1:
            console.print(f"{one.name}: writing {one.config.out / page.PAGE_FILE}", soft_wrap=True, highlight=False)
        found.append(results.collect(one.config, one.sizes))
        files = page.save(one.config, one.sizes, found[-1])
    if not config.full:
        page.show(found[0], console)
        return files
    together = full.collect(runs, found)
    full_page.show(together, console)
    return full_page.save(config.out, together)


class Progress:
    """What is left of runs, and of how long they take with so many processes the expected seconds that are over.

    A part that waits for its backbone, or for a process, is not as far off as all the work before it: what is left is
    planned anew at each look. A step that is done is not looked at again.
    """

    def __init__(self, runs: Sequence[Run], processes: int):
        self.left, self.processes = steps_by_part(runs), processes
        self.total = self._planned([0.0] * len(self.left))

    def seconds(self) -> float:
        """Look, and count."""
        shares = [step.share() for _, step in self.left]
        over = self.total - self._planned(shares)
        self.left = [own for own, share in zip(self.left, shares, strict=True) if share < 1]
        return over

    def _planned(self, shares: Sequence[float]) -> float:
        pairs = zip(self.left, shares, strict=True)
        left = summed((part, step.seconds * (1 - share)) for (part, step), share in pairs if share < 1)
        return whole_seconds(left, self.processes)


def work(runs: Sequence[Run], console: Console) -> None:
    """Do the parts that are not done, and show one bar for all of them."""
    side_by_side = min(SIDE_BY_SIDE, usable_processors())
    progress = Progress(runs, side_by_side)
    progress.seconds()
    waiting = list(dict.fromkeys(part for part, _ in progress.left))
    configs = {run.name: run.config for run in runs}
    names = {part: NAMES[part.name] if len(runs) == 1 else f"{part.run} {NAMES[part.name]}" for part in waiting}
    bar = TimeLeft(console, transient=True, speed_estimate_period=PACE_OF)
    line = bar.add_task("starting", total=progress.total)
    with Processes() as processes, bar:
        while waiting or processes.running:
            running = [part for part, name in names.items() if name in processes.running]
            if len(running) < side_by_side and (part := next_part(waiting, running)):
                waiting.remove(part)
                folder = configs[part.run].out
                processes.start(names[part], "lm2.reproduce.part", [str(folder), part.name], folder / part.name)
                continue
            if (name := processes.ended()) is not None:
                console.print(f"{name}: done in {(time.perf_counter() - processes.began[name]) / 60:.1f} minutes")
                continue
            bar.update(line, completed=progress.seconds(), description=_doing(progress.left, running, names))
            time.sleep(LOOK_EVERY)


def _doing(left: list[tuple[Part, Step]], running: list[Part], names: dict[Part, str]) -> str:
    """What each process is at."""
    at = {part: step.text for part, step in reversed(left)}
    return "; ".join(f"{names[part]}: {at.get(part, 'ending')}" for part in running) or "starting"
