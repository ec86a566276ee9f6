"""What watches a run: the JSONL log, the progress bar, and the evaluations between steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm
from transformers import TrainerCallback

from lm2.files import replacing

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
            values = {name: value for name, value in (logs or {}).items() if name != "epoch"}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **values}) + "\n")


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


class Evaluations(TrainerCallback):
    """Calls the run's evaluation every so many steps and after the last."""

    def __init__(self, trainer: LM2Trainer, every: int):
        self.trainer, self.every = trainer, every

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.trainer.run_evaluation()
