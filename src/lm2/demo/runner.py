"""The whole demo in order: texts, base, contenders side by side, table, picture.

Every part is kept in the folder as it is done, and a part that is done is not done again. Models run in processes of
their own (see `contender`); this one makes the texts and watches.
"""

import dataclasses
import time
from collections.abc import Collection
from typing import Any

from rich.console import Console

from lm2.demo.config import DemoConfig
from lm2.demo.contender import ANSWERS_FILE
from lm2.demo.figure import FIGURE_FILE, draw
from lm2.demo.material import prepare_evaluation, prepare_training, sources_of
from lm2.demo.page import PAGE_FILE, save_page
from lm2.demo.recipe import CONTENDERS, NAMES, Recipe, recipe_of
from lm2.demo.report import RESULTS_FILE, collect, save, show
from lm2.files import read_lines
from lm2.held import held
from lm2.processes import Processes, usable_processors
from lm2.progress import TimeLeft
from lm2.settings import check_settings
from lm2.training.folder import steps_done

SECONDS_PER_STEP = {"base": 0.04, "lm2": 0.08, "rmt": 0.1, "plain": 0.05}
SECONDS_PER_SEGMENT = {"base": 0.0, "lm2": 0.0003, "rmt": 0.0006, "plain": 0.0}
"""Of training and of evaluation on a usual processor: only for what the progress bar expects at first."""


def run(options: DemoConfig) -> None:
    """Do what is missing of the demo, then show and save its results.

    Raises:
        ValueError: options out of range, a folder of another demo or one in which another process works, texts that
            cannot be used, or a model's error.
        OSError: a file that cannot be read or written.
    """
    options.check()
    console = Console()
    recipe = recipe_of(options)
    sources = sources_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    check_settings(options.out, settings_of(options, recipe), "demo")
    with held(options.out), Watch(options, recipe, console) as watch:
        watch.say("making the texts")
        prepare_training(options, recipe, sources)
        watch.start("base")
        prepare_evaluation(options, recipe, sources)
        watch.finish()
        waiting = list(CONTENDERS)
        while waiting:
            watch.start(waiting.pop(0))
            while len(watch.running) >= processes():
                watch.wait_for_one()
        watch.finish()
    results = collect(options)
    save(options, results)
    draw(options)
    save_page(options, results)
    show(results, console)
    model = options.out / "lm2" / "model"
    saved = [options.out / name for name in (RESULTS_FILE, PAGE_FILE, FIGURE_FILE)]
    console.print(f"\nSaved: {', '.join(map(str, saved))}, {model}", soft_wrap=True)


def processes() -> int:
    """How many models run side by side: one for each processor that this process may use."""
    return max(1, min(usable_processors(), len(CONTENDERS)))


def settings_of(options: DemoConfig, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What a demo that goes on must have in common with its beginning."""
    return {"options": options.to_json(), "recipe": dataclasses.asdict(recipe)}


class Watch:
    """Starts models as processes, and shows one progress bar for all of them."""

    def __init__(self, options: DemoConfig, recipe: Recipe, console: Console):
        self.options, self.console = options, console
        self.steps = {name: recipe.base_steps if name == "base" else recipe.steps for name in NAMES}
        self.segments = sum(options.questions_at(n) * n for _, n in options.columns())
        self.processes = Processes()
        self.bar = TimeLeft(console, transient=True, speed_estimate_period=120)
        self.task = self.bar.add_task("", total=sum(self.weight(name) for name in NAMES))

    def __enter__(self) -> "Watch":
        self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.processes.__exit__(*error)
        self.bar.stop()

    @property
    def running(self) -> Collection[str]:
        """The names of the models whose processes run."""
        return self.processes.running

    def say(self, text: str) -> None:
        self.bar.update(self.task, description=text)

    def start(self, name: str) -> None:
        """Start the process of a model that is not done."""
        if self.is_done(name):
            return
        folder = self.options.out / name
        self.processes.start(NAMES[name], "lm2.demo.contender", [str(self.options.out), name], folder)
        self.update()

    def wait_for_one(self) -> None:
        """Wait until a process has ended, and say so.

        Raises:
            ValueError: it ended with an error of the user, or was killed.
            RuntimeError: it ended with an error of ours.
        """
        while True:
            self.update()
            if (name := self.processes.ended()) is not None:
                self.console.print(f"{name}: done in {time.perf_counter() - self.processes.began[name]:.0f} s")
                return
            time.sleep(0.2)

    def finish(self) -> None:
        """Wait for all processes."""
        while self.running:
            self.wait_for_one()

    def update(self) -> None:
        """Show how far all models are."""
        done = {name: self.progress(name) for name in NAMES}
        self.bar.update(
            self.task,
            completed=sum(share * self.weight(name) for name, (share, _) in done.items()),
            description="; ".join(f"{NAMES[name]}: {done[name][1]}" for name in NAMES if NAMES[name] in self.running)
            or "starting",
        )

    def weight(self, name: str) -> float:
        """Seconds that a model is expected to take of the whole."""
        training, asking = self._expected(name)
        return (training + asking) / (1 if name == "base" else min(processes(), 2))

    def _expected(self, name: str) -> tuple[float, float]:
        return self.steps[name] * SECONDS_PER_STEP[name], self.segments * SECONDS_PER_SEGMENT[name]

    def is_done(self, name: str) -> bool:
        """Whether a model is trained and, but for the base, has answered everything."""
        folder = self.options.out / name
        asked = 0 if name == "base" else len(self.options.columns())
        return (folder / "model").exists() and len(read_lines(folder / ANSWERS_FILE)) == asked

    def progress(self, name: str) -> tuple[float, str]:
        """The share of a model's work that is done, and in words what it is at."""
        if self.is_done(name):
            return 1.0, "done"
        folder = self.options.out / name
        training, asking = self._expected(name)
        if not (folder / "model").exists():
            step = steps_done(folder)
            share = step / self.steps[name] * training / (training + asking)
            return share, f"training {step}/{self.steps[name]}"
        lines = read_lines(folder / ANSWERS_FILE)
        segments = sum(self.options.questions_at(line["segments"]) * line["segments"] for line in lines)
        return (training + asking * segments / self.segments) / (training + asking), "answering"
