"""One run of the bake-off, in a process of its own: `python -m lm2.study.job JOB` (JSON) trains, measures, writes.

The result is a JSON file that appears when the run is finished; one that was interrupted starts anew, so that its times
are those of a whole run.
"""

import json
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lm2 import LM2ForCausalLM, add_memory
from lm2.baselines import RMTForCausalLM
from lm2.demo.recipe import BACKBONE_TRAINING, Recipe, new_backbone
from lm2.files import write_json
from lm2.processes import child_exit
from lm2.progress import quiet
from lm2.study import measure, tasks
from lm2.study.config import BASE, DEFAULT, Job
from lm2.study.measures import checked, forward_of
from lm2.study.rules import use_rule
from lm2.training import RunConfig, Stage, train

HEADS = 4
OPENING = 0.06
"""Share of a variant's steps with the opening rows."""


def run(job: Job) -> dict[str, Any]:
    """Do a run and write its result; what goes wrong in training is a result too."""
    began, cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"job": job.settings(), "status": "finished"}
    try:
        steps = steps_of(job)
        shutil.rmtree(job.folder / "training", ignore_errors=True)
        model = train(base_run(job) if job.variant == BASE else variant_run(job, steps)).model
        assert isinstance(model, PreTrainedModel)
        trained = {"training_seconds": time.perf_counter() - began, "training_cpu_seconds": time.process_time() - cpu}
        if job.variant == BASE:
            model.save_pretrained(job.folder / "model")
        result |= {"steps": steps, "parameters": model.num_parameters(), **trained}
        result |= measure.measure(model.eval(), job)
    except FloatingPointError as error:
        result |= {"status": "diverged", "message": str(error)}
    result["seconds"] = time.perf_counter() - began
    write_result(job, result)
    return result


def write_result(job: Job, result: dict[str, Any]) -> None:
    """Write a run's result, whole or not at all."""
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.result, result)


def read_result(job: Job) -> dict[str, Any] | None:
    """The result of a run, None if there is none.

    Raises:
        ValueError: the file is damaged, or of a run with other settings.
    """
    if not job.result.exists():
        return None
    try:
        result = json.loads(job.result.read_text(encoding="utf-8"))
        then = result["job"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{job.result} is damaged ({error}): remove it, and the run is done again") from None
    changed = [f"{n}: {then.get(n)} then, {v} now" for n, v in job.settings().items() if then.get(n) != v]
    if changed:
        raise ValueError(f"{job.result} is of other settings ({'; '.join(changed)}): choose another --out folder")
    return result


def steps_of(job: Job) -> int:
    """The steps of a run: as asked, or for equal time scaled by what the default took per step.

    Raises:
        ValueError: the runs to compare with have no times.
    """
    if job.variant == BASE:
        return job.base_steps
    if job.variant != "rmt-equal-time":
        return job.steps
    default, rmt = (read_result(job.other(name)) or {} for name in (DEFAULT, "rmt"))
    if "training_cpu_seconds" not in default or "training_cpu_seconds" not in rmt:
        raise ValueError(f"equal time needs finished runs of {DEFAULT} and rmt for {job.task}, seed {job.seed}")
    return max(10, round(job.steps * default["training_cpu_seconds"] / rmt["training_cpu_seconds"]))


def base_run(job: Job) -> RunConfig:
    """The backbone on single segments: the simplest rows first, for without them it never learns to look back."""
    stages = (Stage(steps=job.base_steps, segments=(1,), rows=job.blocks),)
    make = partial(tasks.base_batch, task=job.task, opening_steps=job.base_steps // 4)
    run = _run_config(job, partial(backbone, job.task, job.width), make, stages, checked)
    return replace(run, **BACKBONE_TRAINING)


def variant_run(job: Job, steps: int) -> RunConfig:
    """A variant on rows of up to 16 segments."""
    make = partial(tasks.batch, task=job.task, opening_steps=round(OPENING * steps))
    model = partial(contender, job.variant, job.task, str(job.other(BASE).folder / "model"), job.slots)
    stages = (fixed_stages if "fixed-count" in job.variant.split("+") else stages_of)(steps, job.blocks)
    return _run_config(job, model, make, stages, forward_of(job.variant, job.task))


def stages_of(steps: int, blocks: int) -> tuple[Stage, ...]:
    """Random numbers of segments, growing."""
    plan = ((OPENING, (2,)), (0.24, (1, 2, 3, 4)), (0.2, (1, 2, 4, 8)), (0.5, (1, 2, 4, 8, 16)))
    return _stages(plan, steps, blocks)


def fixed_stages(steps: int, blocks: int) -> tuple[Stage, ...]:
    """The opening, then always 16 segments."""
    return _stages(((OPENING, (2,)), (1 - OPENING, (16,))), steps, blocks)


def _stages(plan: tuple[tuple[float, tuple[int, ...]], ...], steps: int, blocks: int) -> tuple[Stage, ...]:
    """Stages of the given shares whose steps add up; a share of less than one step is left out."""
    ends, total = [0], 0.0
    for share, _ in plan:
        total += share
        ends.append(round(total * steps))
    return tuple(
        Stage(steps=end - start, segments=segments, rows=blocks)
        for start, end, (_, segments) in zip(ends, ends[1:], plan, strict=False)
        if end > start
    )


def _run_config(job: Job, model, make_batch, stages: tuple[Stage, ...], forward) -> RunConfig:
    steps = sum(stage.steps for stage in stages)
    return RunConfig(
        model=model,
        make_batch=make_batch,
        stages=stages,
        output_dir=job.folder / "training",
        seed=job.seed,
        learning_rate=job.learning_rate,
        betas=(0.9, 0.98),
        schedule="trapezoid",
        warmup_steps=min(50, steps // 10),
        training_forward=forward,
        log_every=20,
        save_every=steps,
        keep_checkpoints=1,
        report_to=(),
    )


def backbone(task: str, width: int) -> PreTrainedModel:
    """The demo's backbone, in the size of a task."""
    source = tasks.load_task(task)
    recipe = Recipe(hidden_size=width, intermediate_size=width * 8 // 3, layers=source.layers, heads=HEADS)
    return new_backbone(recipe, source.vocab_size)


def contender(variant: str, task: str, base: str, slots: int) -> PreTrainedModel:
    """A variant around the trained backbone."""
    model, source = AutoModelForCausalLM.from_pretrained(base), tasks.load_task(task)
    if variant.startswith("rmt") or variant == "plain":
        tokens = 0 if variant == "plain" else slots
        return RMTForCausalLM.from_backbone(model, segment_length=source.segment_length, memory_tokens=tokens)
    model = add_memory(
        model,
        memory_slots=slots,
        segment_length=source.segment_length,
        memory_layers=range(1, source.layers),
        memory_heads=HEADS,
        look_back=0 if "no-look-back" in variant.split("+") else source.look_back,
    )
    assert isinstance(model, LM2ForCausalLM)
    return use_rule(model, variant)


def main(text: str) -> None:
    values: dict[str, Any] = json.loads(text)
    quiet()
    out = Path(values.pop("out"))
    run(Job(**values, out=out))


if __name__ == "__main__":
    sys.exit(child_exit(partial(main, sys.argv[1])))
