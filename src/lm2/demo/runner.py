"""The whole demo in order: texts, base, contenders side by side, table, picture.

Every part is kept in the folder as it is done, and a part that is done is not done again. Models run in processes of
their own (see `contender`); this one makes the texts and watches.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lm2.demo.config import DemoConfig
from lm2.demo.contender import ANSWERS_FILE, SETTINGS_FILE, read_answers, steps_done
from lm2.demo.figure import FIGURE_FILE, draw
from lm2.demo.material import prepare_evaluation, prepare_training, sources_of
from lm2.demo.page import PAGE_FILE, save_page
from lm2.demo.recipe import CONTENDERS, NAMES, Recipe, recipe_of
from lm2.demo.report import RESULTS_FILE, collect, save, show
from lm2.files import replacing

ERRORS_FILE = "errors.txt"
SECONDS_PER_STEP = {"base": 0.04, "lm2": 0.08, "rmt": 0.1, "plain": 0.05}
SECONDS_PER_SEGMENT = {"base": 0.0, "lm2": 0.0003, "rmt": 0.0006, "plain": 0.0}
"""Of training and of evaluation on a usual processor: only for what the progress bar expects at first."""


def run(options: DemoConfig) -> None:
    """Do what is missing of the demo, then show and save its results.

    Raises:
        ValueError: options out of range, a folder of another demo, texts that cannot be used, or a model's error.
        OSError: a file that cannot be read or written.
    """
    options.check()
    console = Console()
    recipe = recipe_of(options)
    sources = sources_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    check_settings(options, recipe)
    with Watch(options, recipe, console) as watch:
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
    draw(options, results)
    save_page(options, results)
    show(results, console)
    model = options.out / "lm2" / "model"
    saved = [options.out / name for name in (RESULTS_FILE, PAGE_FILE, FIGURE_FILE)]
    console.print(f"\nSaved: {', '.join(map(str, saved))}, {model}", soft_wrap=True)


def processes() -> int:
    """How many models run side by side: one for each processor that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, len(CONTENDERS)))


def check_settings(options: DemoConfig, recipe: Recipe) -> None:
    """Write the settings of a new demo; those of one to go on with must be the same.

    Raises:
        ValueError: the folder holds a demo with other settings, or other files.
    """
    path = options.out / SETTINGS_FILE
    settings = {"options": options.to_json(), "recipe": json.loads(json.dumps(dataclasses.asdict(recipe)))}
    if not path.exists():
        if any(options.out.iterdir()):
            raise ValueError(f"{options.out} holds other files: choose an empty or a new folder for --out")
        with replacing(path) as beside:
            beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} was {saved.get(part, {}).get(name)} and is {value}"
        for part, values in settings.items()
        for name, value in values.items()
        if saved.get(part, {}).get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{options.out} holds a demo with other settings ({'; '.join(changed)}): choose another --out, or remove it"
        )


class Watch:
    """Starts models as processes, and shows one progress bar for all of them."""

    def __init__(self, options: DemoConfig, recipe: Recipe, console: Console):
        self.options, self.console = options, console
        self.steps = {name: recipe.base_steps if name == "base" else recipe.steps for name in NAMES}
        self.segments = sum(options.questions_at(n) * n for _, n in options.columns())
        self.running: dict[str, subprocess.Popen] = {}
        self.began: dict[str, float] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )
        self.task = self.bar.add_task("", total=sum(self.weight(name) for name in NAMES))

    def __enter__(self) -> "Watch":
        self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.communicate()
        self.bar.stop()

    def say(self, text: str) -> None:
        self.bar.update(self.task, description=text)

    def start(self, name: str) -> None:
        """Start the process of a model that is not done."""
        if self.is_done(name):
            return
        folder = self.options.out / name
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (folder / ERRORS_FILE).open("wb") as errors:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "lm2.demo.contender", str(self.options.out), name],
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
            )
        self.began[name] = time.perf_counter()
        self.update()

    def wait_for_one(self) -> None:
        """Wait until a process has ended.

        Raises:
            ValueError: it ended with an error of the user, or was killed.
            RuntimeError: it ended with an error of ours.
        """
        while True:
            self.update()
            for name, process in self.running.items():
                if process.poll() is not None:
                    process.communicate()
                    del self.running[name]
                    return self._ended(name, process.returncode)
            time.sleep(0.2)

    def finish(self) -> None:
        """Wait for all processes."""
        while self.running:
            self.wait_for_one()

    def _ended(self, name: str, code: int) -> None:
        """Say that a model is done, or raise what went wrong."""
        folder = self.options.out / name
        if code == 0:
            self.console.print(f"{NAMES[name]}: done in {time.perf_counter() - self.began[name]:.0f} s")
            return
        if code < 0:
            raise ValueError(
                f"the process of {NAMES[name]} was ended from outside ({signal.Signals(-code).name}), perhaps for want "
                "of memory: give the same command again to go on"
            )
        lines = (folder / ERRORS_FILE).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no text"]
        if code == 2:
            raise ValueError(f"{NAMES[name]}: {lines[-1]}")
        raise RuntimeError(f"the process of {NAMES[name]} failed: {lines[-1]} (see {folder / ERRORS_FILE})")

    def update(self) -> None:
        """Show how far all models are."""
        done = {name: self.progress(name) for name in NAMES}
        self.bar.update(
            self.task,
            completed=sum(share * self.weight(name) for name, (share, _) in done.items()),
            description="; ".join(f"{NAMES[name]}: {done[name][1]}" for name in self.running) or "starting",
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
        return (folder / "model").exists() and len(read_answers(folder / ANSWERS_FILE)) == asked

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
        lines = read_answers(folder / ANSWERS_FILE)
        segments = sum(self.options.questions_at(line["segments"]) * line["segments"] for line in lines)
        return (training + asking * segments / self.segments) / (training + asking), "answering"
