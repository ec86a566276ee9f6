"""What watches a run: the JSONL log, the progress bar, and the measurements between steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import TrainerCallback

from lm2.files import append_line, write_text
from lm2.progress import TimeLeft
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
            append_line(self.path, {"step": state.global_step, **values})


def _number(value: float) -> float | None:
    """JSON has no word for infinite and for not a number."""
    return value if math.isfinite(value) else None


def keep_lines_until(path: Path, step: int) -> None:
    """Keep the lines of a JSONL log up to a step; an unfinished last line goes too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() and step > 0 else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    write_text(path, "".join(kept))


class ShowProgress(TrainerCallback):
    """The step, the last loss, and the time left."""

    def __init__(self, progress: TimeLeft):
        self.progress, self.loss = progress, ""

    def on_train_begin(self, args, state, control, **kwargs):
        done, total = state.global_step, state.max_steps
        self.task = self.progress.add_task(self.text(done, total), completed=done, total=total)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        self.progress.update(self.task, completed=step, description=self.text(step, state.max_steps))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.loss = f", loss {logs['loss']:.4f}"

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.remove_task(self.task)

    def text(self, step: int, total: int) -> str:
        return f"training, step {step:,} of {total:,}{self.loss}"


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
            append_line(self.path, {"step": step, **watched.record()})
            draw(self.trainer.callback_handler.callbacks, watched.histograms(), step)
        return watched.scalars()
