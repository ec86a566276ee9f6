"""What watches a run: the JSONL log, the progress bar, and the measurements between steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback

from lm2.files import replacing
from lm2.training.trackers import draw
from lm2.training.watching import watch

if TYPE_CHECKING:
    from lm2.training.trainer import LM2Trainer


class JsonlLog(TrainerCallback):
    """Appends every log to `log.jsonl`. A run that resumes first drops the lines after its checkpoint."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            keep_lines_until(self.path, state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            values = {name: _number(value) for name, value in (logs or {}).items() if name != "epoch"}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **values}) + "\n")


def _number(value: float) -> float | None:
    """JSON has no word for infinite and for not a number."""
    return value if math.isfinite(value) else None


def keep_lines_until(path: Path, step: int) -> None:
    """Keep the lines of a JSONL log up to a step; an unfinished last line goes too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() and step > 0 else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with replacing(path) as beside:
        beside.write_text("".join(kept), encoding="utf-8")


class ProgressBar(TrainerCallback):
    """One line with the time left and the last loss; nothing when the output is not a terminal."""

    def on_train_begin(self, args, state, control, **kwargs):
        silent = None if state.is_world_process_zero else True  # None: silent unless a terminal
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=silent, leave=False
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs and not self.bar.disable:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class AtBegin(TrainerCallback):
    """Does something when the model is wrapped and the first step is about to begin."""

    def __init__(self, action: Callable[[], None]):
        self.action = action

    def on_train_begin(self, args, state, control, **kwargs):
        self.action()


class LogWithCheckpoint(TrainerCallback):
    """A checkpoint ends the steps that a line of the log is about, so that a resumed run has the same lines."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or control.should_save


class Stop(TrainerCallback):
    """Ends a run with a checkpoint and a line of the log after a step that is due."""

    def __init__(self, is_due: Callable[[int], bool]):
        self.is_due = is_due

    def on_step_end(self, args, state, control, **kwargs):
        if self.is_due(state.global_step):
            control.should_save = control.should_log = control.should_training_stop = True


class Every(TrainerCallback):
    """Does things every so many steps, each its own number, and after the last."""

    def __init__(self):
        self.timetable: list[tuple[int, Callable[[], Any]]] = []

    def add(self, every: int, action: Callable[[], Any]) -> None:
        self.timetable.append((every, action))

    def on_step_end(self, args, state, control, **kwargs):
        for every, action in self.timetable:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                action()


class Watching:
    """Looks at what the memory does on the held-out rows: numbers for the log, all of it in `watch.jsonl`, and
    histograms for the trackers."""

    def __init__(self, trainer: LM2Trainer, held_out: Callable[[], dict[str, Tensor]], path: Path):
        self.trainer, self.rows, self.path = trainer, held_out(), path

    def __call__(self, model: Any, step: int) -> dict[str, float]:
        """The numbers at a step."""
        watched = watch(model, self.rows)
        if self.trainer.is_world_process_zero():
            keep_lines_until(self.path, step - 1)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **watched.record()}) + "\n")
            draw(self.trainer.callback_handler.callbacks, watched.histograms(), step)
        return watched.scalars()
