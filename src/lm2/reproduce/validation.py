"""How well a model answers on rows that no training has seen: what chooses its learning rate, and its curve over time.

A line of `validation.jsonl` has the step, the processor seconds that training has taken so far, and of the answers that
close the rows the share that is right and the mean loss.
"""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm2.files import read_lines, write_lines
from lm2.reproduce.rows import JointRows
from lm2.reproduce.sizes import Sizes

VALIDATION_FILE = "validation.jsonl"
ROWS = 50
"""Rows of a pass."""


def held_out(rows: JointRows, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """(ids, answers): rows up to their answer, (N, L), and the tokens that answer, (N,); of a list its last thing."""
    made = [rows.row("scattered", sizes.validation_segments, random.Random(i)) for i in range(sizes.validation_rows)]
    ids_NL = torch.tensor([ids for ids, _ in made])
    return ids_NL[:, :-2], ids_NL[:, -2]  # a scattered row ends with the answer and the end token


class Validator:
    """Validates a model in training; its time is not counted.

    Args:
        ids_NL, answer_N: see `held_out`.
        folder: of the training. A run that goes on goes on with the lines up to its checkpoint, and with their seconds:
            so a checkpoint is to be written where it is validated, and nowhere else.
    """

    def __init__(self, ids_NL: Tensor, answer_N: Tensor, folder: Path):
        self.ids_NL, self.answer_N, self.path = ids_NL, answer_N, folder / VALIDATION_FILE
        self._began: float | None = None

    def start(self) -> None:
        """Count from here."""
        self._began = time.process_time()

    def __call__(self, model: Any, step: int) -> Mapping[str, float]:
        assert self._began is not None, "start() before training"
        took = time.process_time() - self._began
        before = [line for line in read_lines(self.path) if line["step"] < step]
        found = validate(model, self.ids_NL, self.answer_N)
        line = {"step": step, "seconds": round((before[-1]["seconds"] if before else 0.0) + took, 2), **found}
        write_lines(self.path, [*before, line])
        self._began = time.process_time()
        return found


@torch.no_grad()
def validate(model: Callable[..., Any], ids_NL: Tensor, answer_N: Tensor) -> dict[str, float]:
    """Share of right answers (the likeliest of all tokens), and their mean loss."""
    passes = [model(ids_BL, logits_to_keep=1, use_cache=False).logits[:, -1] for ids_BL in ids_NL.split(ROWS)]
    logits_NV = torch.cat(passes).float()
    right_N = logits_NV.argmax(-1) == answer_N
    return {"accuracy": right_N.float().mean().item(), "loss": F.cross_entropy(logits_NV, answer_N).item()}


def last(folder: Path) -> dict[str, float]:
    """How a finished training ended."""
    return read_lines(folder / VALIDATION_FILE)[-1]


def at_seconds(folder: Path, seconds: float) -> dict[str, float] | None:
    """The last validation of a training that had not yet taken longer; None if the first came later."""
    lines = [line for line in read_lines(folder / VALIDATION_FILE) if line["seconds"] <= seconds]
    return lines[-1] if lines else None
