"""What a plan would do, without doing it: everything is counted on the meta device."""

import copy
import json
from functools import partial

import torch

from lm2.data.packed import PackedRows
from lm2.demo.rows import make_batch
from lm2.modeling import LM2ForCausalLM
from lm2.recipes.parts import only_trained
from lm2.recipes.plan import ModelOf, Plan
from lm2.sizes import measure
from lm2.training import RunConfig, Stage
from lm2.training.flops import PEAKS, forward_flops
from lm2.training.footprint import estimated_row_bytes
from lm2.training.quiet import quiet_segments, row_maker

GPU, USE = "H100", 0.4
"""The device that the time is estimated for, and the share of its peak that a training may reach."""
ADAM, MUON = 8, 4
"""Bytes of the optimiser's averages for each trained number."""
GIB = 2**30


def describe(plan: Plan) -> str:
    """The text of a dry run."""
    config, size = plan.config, measure(plan.config)
    total = size.base_parameters + size.memory_parameters
    lines = [
        json.dumps(plan.describe(), indent=1),
        "",
        *(_line("not found", reason) for reason in plan.missing),
        _line(
            "model",
            f"{config.base_model_type}, {config.num_hidden_layers} blocks, {len(config.memory_indices)} with "
            f"{config.memory_slots} slots of {config.hidden_size}; segments of {config.segment_length} tokens",
        ),
        _line(
            "parameters",
            f"{size.base_parameters:,} base + {size.memory_parameters:,} memory = {total:,} ({total / 1e9:.2f} B)",
        ),
        _line(
            "state of a row", f"{size.bank_bytes:,} bytes of banks, {size.segment_bytes:,} bytes of the open segment"
        ),
    ]
    for name, run in plan.phases.items():
        lines += ["", f"phase {name}", *_phase(plan, run)]
    return "\n".join(lines)


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _line(label: str, text: str) -> str:
    return f"{label:<15} {text}"


def _phase(plan: Plan, run: RunConfig) -> list[str]:
    config = copy.deepcopy(plan.config)
    if not isinstance(run.model, ModelOf):  # the backbone of a small model, which has no memory yet
        config.memory_layers = []
    with torch.device("meta"):
        model = LM2ForCausalLM(config).train()
    whole = sum(parameter.numel() for parameter in model.parameters())
    part = run.model if isinstance(run.model, ModelOf) else ModelOf(start=run.model)
    parts = only_trained(model, part.trains, part.lora_rank or 0).parameters()
    count = sum(parameter.numel() for parameter in parts if parameter.requires_grad)
    flops = [_flops(model, run, stage, count / whole) for stage in run.stages]
    in_all = sum(each * stage.steps for each, stage in zip(flops, run.stages, strict=True))
    hours = in_all / (PEAKS[GPU] * USE) / 3600
    spread = " to ".join(f"{value:.2g}" for value in sorted({min(flops), max(flops)}))
    return [
        _line("  trains", f"{part.trains}: {count:,} parameters"),
        *_rows(plan, run),
        _line("  operations", f"{spread} a step, {in_all:.2g} in all: {_time(hours)} of one {GPU} at {USE:.0%}"),
        _line("  memory", _memory(run, model, count, whole)),
    ]


def _rows(plan: Plan, run: RunConfig) -> list[str]:
    T, lines, total = plan.config.segment_length, [], 0.0
    for stage in run.stages:
        segments = _segments(run, stage)
        total += stage.steps * segments * T
        what = f"{stage.rows:,} segments in rows" if _shared_out(run) else f"{stage.rows:,} rows"
        lengths = " or ".join(map(str, sorted(set(stage.segments))))
        quiet = f" and {n} of quiet text" if (n := _quiet(run)) else ""
        each = f"{what} of {lengths} segments{quiet}: {segments * T:,.0f} tokens a step"
        lines.append(_line("  rows", f"{stage.steps:,} steps of {each}"))
    return [*lines, _line("  tokens", f"{total:,.0f} in all{_passes(run)}")]


def _passes(run: RunConfig) -> str:
    """How often each source of a token store is gone through."""
    if not isinstance(run.make_batch, PackedRows):
        return ""
    passes = run.make_batch.passes(run.steps, max(run.stages[-1].segments))
    return "; passes: " + ", ".join(f"{name} {times:.2g}" for name, times in passes.items())


def _shared_out(run: RunConfig) -> bool:
    """Whether a step has so many segments, in rows of any length, and not so many rows."""
    maker = row_maker(run)
    return isinstance(maker, partial) and maker.func is make_batch


def _segments(run: RunConfig, stage: Stage) -> float:
    """Segments of a step, on average, quiet text with them."""
    mean = 1 if _shared_out(run) else sum(stage.segments) / len(stage.segments)
    return stage.rows * mean + _quiet(run)


def _quiet(run: RunConfig) -> int:
    """Segments of quiet text of a step: every pass has its own."""
    return run.accumulation * quiet_segments(run)


def _flops(model: LM2ForCausalLM, run: RunConfig, stage: Stage, trained: float) -> float:
    """Of a step: forward, the gradient of what flows, and that of the weights that are trained."""
    each = sum(forward_flops(model, n) / n for n in stage.segments) / len(stage.segments)
    return _segments(run, stage) * each * (2 + trained)


def _memory(run: RunConfig, model: LM2ForCausalLM, count: int, whole: int) -> str:
    """Of one process with the whole model."""
    rows = max(stage.rows for stage in run.stages) // run.accumulation
    segments = max(max(stage.segments) for stage in run.stages)
    rows = max(1, rows // segments) if _shared_out(run) else rows
    row_bytes = estimated_row_bytes(model, run.activation_checkpointing)
    parts = {
        "weights": 4 * whole,
        "gradients": 4 * count,
        "optimiser": (MUON if run.optimizer == "muon" else ADAM) * count,
        "activations": rows * row_bytes(segments) + (row_bytes(quiet_segments(run)) if quiet_segments(run) else 0),
    }
    shown = " + ".join(f"{name} {value / GIB:.1f}" for name, value in parts.items())
    return f"{sum(parts.values()) / GIB:.1f} GiB = {shown} ({rows} rows at once, in float32)"
