"""The trackers that a run reports to beside `log.jsonl`, and the histograms that they draw.

Shape suffixes: K bins.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

TRACKERS = {"tensorboard": "train", "trackio": "track", "wandb": "track"}
"""Trackers, and the extra that brings each."""


def check_trackers(names: Iterable[str]) -> None:
    """Check that a run can report to these.

    Raises:
        ValueError: one is unknown, or not installed.
    """
    if (names := tuple(names)) == ("none",):  # as the Trainer calls it
        return
    for name in names:
        if name not in TRACKERS:
            known = ", ".join(TRACKERS)
            raise ValueError(f"report_to names {name!r}, and the trackers are {known}: choose of these, or none alone.")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"report_to names {name}, which is not installed: pip install 'lm2[{TRACKERS[name]}]'.")


def draw(callbacks: Iterable[TrainerCallback], histograms: Mapping[str, Tensor], step: int) -> None:
    """Show histograms in every tracker among a trainer's callbacks: counts over K equal bins of [0, 1], by name."""
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            for name, counts_K in histograms.items():
                _draw_in_tensorboard(callback.tb_writer, name, counts_K, step)
        elif isinstance(callback, WandbCallback):
            _draw_at_once(importlib.import_module("wandb"), histograms, step)
        elif isinstance(callback, TrackioCallback):
            _draw_at_once(importlib.import_module("trackio"), histograms, step)


def _draw_in_tensorboard(writer: Any, name: str, counts_K: Tensor, step: int) -> None:
    edges_K = torch.arange(1, len(counts_K) + 1) / len(counts_K)
    centres_K = edges_K - 0.5 / len(counts_K)
    total = counts_K.sum().item()
    sums = (counts_K * centres_K).sum().item(), (counts_K * centres_K.square()).sum().item()
    writer.add_histogram_raw(name, 0.0, 1.0, total, *sums, edges_K.tolist(), counts_K.tolist(), step)


def _draw_at_once(tracker: Any, histograms: Mapping[str, Tensor], step: int) -> None:
    """In wandb, or in trackio, which has its interface."""
    drawn = {name: tracker.Histogram(np_histogram=_with_edges(counts_K)) for name, counts_K in histograms.items()}
    tracker.log({**drawn, "train/global_step": step})


def _with_edges(counts_K: Tensor) -> tuple[Any, Any]:
    return counts_K.long().numpy(), torch.linspace(0, 1, len(counts_K) + 1).numpy()
