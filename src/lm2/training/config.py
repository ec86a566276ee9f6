"""What a training run is: plain values, checked when they are put together.

* The batch of a step is a function of (seed, step, row index, number of segments), so resuming needs no loader state,
  and any split of the rows into passes and processes trains on the same rows.
* The curriculum is a list of stages; the step decides the stage and draws the number of segments within it.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lm2.errors import Problems

VOLATILE = frozenset(
    {"output_dir", "log_every", "save_every", "keep_checkpoints", "report_to", "evaluation", "evaluation_every"}
    | {"data_workers", "max_skipped_steps", "held_out", "watch_every", "device_flops"}
)
"""Fields of a run that may change between a checkpoint and its continuation, because no weight depends on them."""


RATES = (
    "learning_rate",
    "memory_learning_rate_factor",
    "gate_learning_rate_factor",
    "weight_decay",
    "muon_learning_rate",
    "muon_weight_decay",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that draw their length from the same set.

    Raises:
        ValueError: a count below 1.
    """

    steps: int
    """Optimiser steps"""
    segments: tuple[int, ...] = (1,)
    """Numbers of segments; each step draws one, all its rows have that length"""
    rows: int = 32
    """Rows of one optimiser step, over all passes and processes"""

    def __post_init__(self):
        counts = {"steps": self.steps, "rows": self.rows, "segments": min(self.segments, default=0)}
        if wrong := {name: count for name, count in counts.items() if count < 1}:
            named = " and ".join(f"{name} is {count}" for name, count in wrong.items())
            raise ValueError(f"{named}: each must be 1 or more")


@dataclasses.dataclass(frozen=True)
class BatchRequest:
    """Which rows are wanted. A row may depend on nothing but `seed`, `step`, its index in `rows` and `segments`."""

    seed: int
    step: int
    rows: range
    segments: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run.

    Raises:
        ValueError: no stage, numbers out of range, or an evaluation without its interval; all that is wrong at once.
    """

    model: Callable[[], PreTrainedModel]
    """Builds the model; called after seeding"""
    make_batch: Callable[[BatchRequest], dict[str, Tensor]]
    """Makes the rows of a request: input_ids, labels and, if rows are padded, attention_mask"""
    stages: tuple[Stage, ...]
    """The curriculum, in order"""
    output_dir: Path
    """Folder for checkpoints, lm2_run.json and log.jsonl"""
    seed: int = 0
    """Seed of the weights, of the data and of the drawn lengths"""
    learning_rate: float = 1e-3
    """Peak learning rate"""
    memory_learning_rate_factor: float = 1.0
    """The memory's learning rate is this times the others'"""
    gate_learning_rate_factor: float = 1.0
    """The gates' learning rate is this times the memory's"""
    weight_decay: float = 0.01
    """Of matrices; norms, biases, gates and initial memories have none"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging of the gradient and of its square"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon" has Muon for the matrices between embedding and head, and AdamW for the rest"""
    muon_learning_rate: float = 0.01
    """Peak learning rate of Muon's matrices; the memory's factor holds for them too"""
    muon_weight_decay: float = 0.1
    """Of Muon's matrices"""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them"""
    max_skipped_steps: int = 10
    """Steps in a row whose gradient may be infinite or no number: they change no weight, and one more ends the run"""
    schedule: Literal["cosine", "linear", "constant", "trapezoid"] = "cosine"
    """Learning rate after the warm-up; "trapezoid" stays at the peak and falls linearly over the last 30 %"""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0"""
    accumulation: int = 1
    """Passes per optimiser step"""
    bf16: bool = False
    """Mixed precision in bfloat16"""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory"""
    fsdp: bool = False
    """Shard the model over the processes that torchrun started (GPUs only)"""
    log_every: int = 10
    """Steps between lines of log.jsonl"""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved"""
    keep_checkpoints: int = 2
    """Older checkpoints are removed"""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Trackers beside log.jsonl; empty for none"""
    training_forward: Callable[[Any, dict[str, Any], int], Any] | None = None
    """Replaces model(**batch); takes model, batch and step and returns an output with a loss"""
    evaluation: Callable[[Any, int], Mapping[str, float]] | None = None
    """Measures the model at a step; its numbers go to the log. It leaves no trace in training"""
    evaluation_every: int | None = None
    """Steps between evaluations; the last step is always evaluated"""
    held_out: Callable[[], dict[str, Tensor]] | None = None
    """Makes rows to watch the memory on, unpadded, that no step trains on: see `lm2.training.watching`"""
    watch_every: int | None = None
    """Steps between looks at the held-out rows; the last step is always looked at"""
    device_flops: float | None = None
    """Peak operations per second of one device, for MFU; None knows some GPUs in bfloat16"""
    lanes: bool = False
    """Rows go on from step to step with their banks: see `lm2.training.lanes`"""
    data_workers: int = 0
    """Processes that make batches ahead of time"""

    def __post_init__(self):
        problems = Problems()
        for name in ("accumulation", "log_every", "save_every", "keep_checkpoints"):
            least(problems, name, getattr(self, name), 1)
        for name in (*RATES, "max_grad_norm", "max_skipped_steps", "warmup_steps", "data_workers", "seed"):
            value = getattr(self, name)
            problems.need(0 <= value < math.inf, f"{name} must be a finite number of 0 or more, got {value}")
        within = all(0 <= beta < 1 for beta in self.betas)
        problems.need(within, f"betas must lie between 0 and 1, got {self.betas}: the usual ones are (0.9, 0.95)")
        for pair in (("evaluation", "evaluation_every"), ("held_out", "watch_every")):
            self._check_pair(problems, *pair)
        self._check_stages(problems)
        if self.lanes:
            self._check_lanes(problems)
        problems.raise_all()

    def _check_stages(self, problems: Problems) -> None:
        problems.need(bool(self.stages), "stages is empty, so the run has 0 steps: give at least one Stage")
        problems.need(
            not self.stages or self.warmup_steps < self.steps,
            f"warmup_steps must be below the run's steps, got {self.warmup_steps} of {self.steps}: shorten the "
            "warm-up or lengthen a stage",
        )
        for rows in sorted({stage.rows for stage in self.stages if self.accumulation > 0}):
            problems.need(
                rows % self.accumulation == 0,
                f"rows must divide into {self.accumulation} passes, got {rows}: use a multiple of {self.accumulation} "
                "rows, or another accumulation",
            )

    def _check_pair(self, problems: Problems, name: str, interval_name: str) -> None:
        value, interval = getattr(self, name), getattr(self, interval_name)
        problems.need(
            (value is None) == (interval is None),
            f"{name} and {interval_name} go together, got {_plain(value)} and {interval}: set both or neither",
        )
        if interval is not None:
            least(problems, interval_name, interval, 1)

    def _check_lanes(self, problems: Problems) -> None:
        rows = sorted({stage.rows for stage in self.stages})
        problems.need(
            len(rows) < 2, f"lanes go on from step to step, so all stages need the same rows, got {rows}: use one"
        )
        problems.need(
            self.training_forward is None,
            f"lanes have a forward of their own, got {_plain(self.training_forward)}: use one of the two",
        )

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that a step (counted from 0) belongs to; the last one beyond the end."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def segments_at(self, step: int) -> int:
        """The number of segments that a step draws, uniformly from its stage."""
        return random.Random(f"{self.seed}/{step}").choice(self.stage_at(step).segments)

    def describe(self) -> dict[str, Any]:
        """The run as JSON values: functions by their name, with the arguments bound to them."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What in two descriptions of runs would change the weights, one text per value, named by its path.

    A field that a description does not name, because it was written before the field was there, has its default.
    """
    defaults = {field.name: _plain(field.default) for field in dataclasses.fields(RunConfig)}
    saved, now = {**defaults, **saved}, {**defaults, **now}
    names = sorted((saved.keys() | now.keys()) - VOLATILE)
    return [text for name in names for text in _differences(name, saved.get(name), now.get(name))]


def _differences(path: str, saved: Any, now: Any) -> list[str]:
    if isinstance(saved, dict) and isinstance(now, dict):
        names = dict.fromkeys((*saved, *now))
        return [t for name in names for t in _differences(f"{path}.{name}", saved.get(name), now.get(name))]
    if isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        pairs = enumerate(zip(saved, now, strict=True))
        return [t for i, (then, value) in pairs for t in _differences(f"{path}.{i}", then, value)]
    return [] if saved == now else [f"{path}: {saved} then, {now} now"]


def least(problems: Problems, name: str, value: float | None, least: int) -> None:
    """Note a number that is there and below the least that can be."""
    problems.need(value is None or value >= least, f"{name} must be at least {least}, got {value}: use {least} or more")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, PreTrainedConfig):
        return _plain(value.to_diff_dict())
    if isinstance(value, partial):
        return {"function": _plain(value.func), "arguments": _plain(value.args), **_plain(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": _name(type(value)), **fields}
    return _name(value) if hasattr(value, "__qualname__") else _name(type(value))


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
