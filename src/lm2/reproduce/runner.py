"""The whole reproduction in order: backbone, contenders two at a time, report. Each part is a process of its own.

Every step is kept in the folder as it is done, and a step that is done is not done again.
"""

import dataclasses
import time

from rich.console import Console

from lm2.processes import Processes, usable_processors
from lm2.progress import time_left_bar
from lm2.reproduce import material, page, results
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import CONTENDERS, NAMES, Sizes, sizes_of
from lm2.reproduce.steps import Step, dry_run, steps_of
from lm2.settings import check_settings

SIDE_BY_SIDE = 2
LOOK_EVERY = 2.0
"""Seconds between looks at what is done."""


def run(config: ReproduceConfig) -> None:
    """Do what is missing of a reproduction, then write and show its results.

    Raises:
        ValueError: options out of range, a folder of another run, texts that cannot be used, or a model's error.
        OSError: a file that cannot be read or written.
    """
    config.check()
    sizes, console = sizes_of(config.smoke), Console()
    if config.dry_run:
        console.print(dry_run(config, sizes), highlight=False)
        return
    _check_texts(config, sizes)
    config.out.mkdir(parents=True, exist_ok=True)
    settings = {"options": config.to_json(), "sizes": dataclasses.asdict(sizes)}
    check_settings(config.out, settings, "reproduction")
    work(config, steps_of(config, sizes), console)
    found = results.collect(config, sizes)
    files = page.save(config, sizes, found)
    page.show(found, console)
    console.print(f"\nSaved: {', '.join(map(str, files))}", soft_wrap=True, highlight=False)


def _check_texts(config: ReproduceConfig, sizes: Sizes) -> None:
    """Wrong texts are known before anything is written."""
    material.texts_of(config)
    material.stories_of(config, sizes.main.tasks, validation=True)


def work(config: ReproduceConfig, steps: list[Step], console: Console) -> None:
    """Run the parts that are not done, and show one bar for all of them."""
    waiting = [name for name in CONTENDERS if not _is_done(steps, name)]
    bar = time_left_bar(console, transient=True, speed_estimate_period=600)
    line = bar.add_task("starting", total=sum(step.seconds for step in steps))
    with Processes() as processes, bar:
        if not _is_done(steps, "base"):
            waiting.insert(0, "base")
        while waiting or processes.running:
            while waiting and _may_start(waiting[0], processes):
                _start(processes, waiting.pop(0), config)
            if (name := processes.ended()) is not None:
                console.print(f"{name}: done in {(time.perf_counter() - processes.began[name]) / 60:.1f} minutes")
                continue
            bar.update(line, completed=_seconds_done(steps), description=_doing(steps, processes))
            time.sleep(LOOK_EVERY)


def _is_done(steps: list[Step], part: str) -> bool:
    return all(step.is_done() for step in steps if step.part == part)


def _may_start(name: str, processes: Processes) -> bool:
    """The backbone is for itself; the contenders wait for it, and for a free processor."""
    free = len(processes.running) < min(SIDE_BY_SIDE, usable_processors())
    return free and NAMES["base"] not in processes.running


def _start(processes: Processes, name: str, config: ReproduceConfig) -> None:
    processes.start(NAMES[name], "lm2.reproduce.part", [str(config.out), name], config.out / name)


def _seconds_done(steps: list[Step]) -> float:
    return sum(step.share() * step.seconds for step in steps)


def _doing(steps: list[Step], processes: Processes) -> str:
    """What each process is at."""
    at = {NAMES[step.part]: step.text for step in reversed(steps) if not step.is_done()}
    return "; ".join(f"{name}: {at.get(name, 'ending')}" for name in processes.running) or "starting"
