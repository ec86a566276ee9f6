"""Give a pretrained model a memory, and go on training it on long documents.

The memory first, alone, around the base as it is: its gradient is cheap, and the base cannot drift while the memory
still says nothing. Then everything, or the memory and LoRA adapters on the base.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm2.configuration import LM2Config
from lm2.data.encoding import load_tokenizer
from lm2.data.packed import held_out_rows
from lm2.data.store import Store
from lm2.gguf import base_config, load_base
from lm2.recipes.findings import Findings, stand_in
from lm2.recipes.options import RetrofitOptions
from lm2.recipes.plan import ModelOf, Plan, planned
from lm2.retrofit import add_memory, with_memory
from lm2.training import RunConfig, Stage


def retrofit(options: RetrofitOptions) -> Plan:
    """The plan of a retrofit: the phases `memory` and `all` (or `lora`).

    Raises:
        ValueError: everything that is wrong with the options, at once.
    """
    findings = Findings(options.dry_run)
    base = findings.find(partial(base_config, options.base, offline=options.dry_run))
    shape = base or stand_in()
    memory = memory_options(options, shape.num_key_value_heads)
    config = findings.check(partial(with_memory, shape, **memory)) if base or options.dry_run else None
    tokenizer = findings.find(partial(load_tokenizer, options.base)) if base else None
    phases = _phases(options, findings, partial(start_model, options.base, **memory), config, tokenizer)
    asked = options.memory_steps or options.steps
    findings.problems.need(bool(asked), "memory_steps and steps are 0, so there is nothing to do: raise one of them")
    return planned("retrofit", options, findings, config, tokenizer, phases)


def _phases(
    options: RetrofitOptions,
    findings: Findings,
    start: Callable[[], PreTrainedModel],
    config: LM2Config | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, RunConfig]:
    def rows(stages: tuple[Stage, ...]) -> Any:
        if options.held_out is not None:  # it is read much later, and with this tokenizer too
            findings.rows(options.held_out, stages, config, tokenizer)
        return findings.rows(options.data, stages, config, tokenizer)

    findings.find(partial(Store, options.data))  # said also where a phase cannot be
    watched, rank = options.watch_rows, options.lora_rank
    findings.problems.need(watched > 0, f"watch_rows must be 1 or more, got {watched}: leave held_out out for none")
    findings.problems.need(rank > 0, f"lora_rank must be 1 or more, got {rank}")

    run = partial(_run, options, rows)
    phases: dict[str, RunConfig | None] = {}
    for each in ("memory_steps", "steps"):
        steps = getattr(options, each)
        findings.problems.need(steps >= 0, f"{each} must be 0 or more, got {steps}: 0 leaves its phase out")
    memory_rate = findings.memory_rate(options.memory_learning_rate)
    if options.memory_steps > 0:
        model = ModelOf(start=start, trains="memory")
        phases["memory"] = findings.check(partial(run, "memory", 0, model, memory_rate, 1.0))
    if options.steps > 0:
        name, rank = options.train_base, options.lora_rank if options.train_base == "lora" else None
        model = ModelOf(start=start, trains=name, lora_rank=rank, before=options.out / "memory" if phases else None)
        rate = findings.rate("learning_rate", options.learning_rate, "leave the base out with steps=0")
        phases[name] = findings.check(partial(run, name, 1, model, rate, memory_rate / rate))
    return {name: phase for name, phase in phases.items() if phase is not None}


def memory_options(options: RetrofitOptions, key_value_heads: int) -> dict[str, Any]:
    """The options of `add_memory`: key heads as in the base, which start the same as more of them and cost less."""
    layers = options.memory_layers
    return {
        "memory_slots": options.memory_slots,
        "segment_length": options.segment_length,
        "memory_layers": None if layers is None else list(layers),
        "memory_key_value_heads": key_value_heads,
        "look_back": options.look_back,
        "bptt_segments": options.bptt_segments,
    }


def start_model(base: str, **memory: Any) -> PreTrainedModel:
    """The base with a new memory, in float32 however the base is stored: mixed precision is the run's."""
    return add_memory(load_base(base, torch.float32)[0], **memory)


def _run(
    options: RetrofitOptions,
    rows: Callable[[tuple[Stage, ...]], Any],
    name: str,
    number: int,
    model: ModelOf,
    learning_rate: float,
    memory_factor: float,
) -> RunConfig:
    """A phase; each has rows and an order of its own."""
    steps, T = options.memory_steps if name == "memory" else options.steps, options.segment_length
    stages = (Stage(steps=steps, segments=options.segments, rows=options.rows),)
    held_out = None
    if options.held_out is not None:
        held_out = partial(held_out_rows, options.held_out, T, max(options.segments), options.watch_rows)
    return RunConfig(
        **options.shared(seed=2 * options.seed + number),
        model=model,
        make_batch=rows(stages),
        stages=stages,
        output_dir=options.out / name,
        learning_rate=learning_rate,
        memory_learning_rate_factor=memory_factor,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        warmup_steps=min(100, steps // 10),
        held_out=held_out,
        watch_every=None if held_out is None else options.watch_every,
    )
