"""What watches a run: the JSONL log, the progress bar, and the measurements between steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from lm2.files import replacing
from lm2.training.watching import Watched, watch

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


class Every(TrainerCallback):
    """Does something every so many steps and after the last."""

    def __init__(self, every: int, action: Callable[[], Any]):
        self.every, self.action = every, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.action()


class Watching:
    """Looks at what the memory does on the held-out rows: numbers for the log, all of it in `watch.jsonl`, and
    histograms of the gates for tensorboard."""

    def __init__(self, trainer: LM2Trainer, held_out: Callable[[], dict[str, Tensor]], path: Path):
        self.trainer, self.rows, self.path = trainer, held_out(), path

    def __call__(self, model: Any, step: int) -> dict[str, float]:
        """The numbers at a step."""
        watched = watch(model, self.rows)
        if self.trainer.is_world_process_zero():
            keep_lines_until(self.path, step - 1)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **watched.record()}) + "\n")
            self._histograms(watched, step)
        return watched.scalars()

    def _histograms(self, watched: Watched, step: int) -> None:
        boards = [c for c in self.trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback)]
        for writer in [board.tb_writer for board in boards if board.tb_writer is not None]:
            for block, bank in watched.banks.items():
                for name, counts_N in bank.histograms.items():
                    _add_histogram(writer, f"watch/{block}.{name}", counts_N, step)


def _add_histogram(writer: Any, tag: str, counts_N: Tensor, step: int) -> None:
    """Counts over equal bins of [0, 1]."""
    edges_N = torch.arange(1, len(counts_N) + 1) / len(counts_N)
    centres_N = edges_N - 0.5 / len(counts_N)
    total = counts_N.sum().item()
    sums = (counts_N * centres_N).sum().item(), (counts_N * centres_N.square()).sum().item()
    writer.add_histogram_raw(tag, 0.0, 1.0, total, *sums, edges_N.tolist(), counts_N.tolist(), step)
