"""Train a model that has a memory: on bAbI's questions in long texts, and on conversations about long documents."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm2.configuration import LM2Config
from lm2.data.chat import ChatRows
from lm2.data.stories import StoryRows, check_stories
from lm2.folders import read_whole
from lm2.modeling import LM2ForCausalLM
from lm2.processes import share
from lm2.recipes.findings import Findings, NoRows
from lm2.recipes.options import BabilongOptions, FinetuneOptions, SftOptions
from lm2.recipes.plan import ModelOf, Plan, one_phase
from lm2.training import RunConfig, Stage
from lm2.training.quiet import with_quiet_text
from lm2.training.walks import roll_out, walked
from lm2.training.write_cost import fresh_rows, priced


def finetune_babilong(options: BabilongOptions) -> Plan:
    """The plan of a training for BABILong. Raises ValueError with everything that is wrong with the options."""
    return _plan("finetune-babilong", options, partial(babilong_run, options))


def sft(options: SftOptions) -> Plan:
    """The plan of a training on conversations. Raises ValueError with everything that is wrong with the options."""
    return _plan("sft", options, partial(_sft, options))


def _plan(
    recipe: str,
    options: FinetuneOptions,
    run_of: Callable[[Findings, LM2Config, PreTrainedTokenizerBase | None], RunConfig],
) -> Plan:
    findings = Findings(options.dry_run)
    config, tokenizer = findings.model(options.model)
    return one_phase(recipe, options, findings, config, tokenizer, partial(run_of, findings, config, tokenizer))


def babilong_run(
    options: BabilongOptions, findings: Findings, config: LM2Config, tokenizer: PreTrainedTokenizerBase | None
) -> RunConfig:
    """The training for a model of this shape, of which the length of a segment counts. What is wrong is noted."""
    lengths = options.curriculum
    if not lengths:
        raise ValueError("curriculum names 0 lengths: give at least one, in segments")
    stages = tuple(
        Stage(steps=options.steps, segments=lengths[: n + 1], rows=options.rows) for n in range(len(lengths))
    )
    processes = share()[1]
    findings.problems.need(
        not options.roll_outs or processes == 1,
        f"roll_outs train in one process, and there are {processes}: leave roll_outs out, or start one",
    )
    amounts = options.facts, options.questions, options.density
    findings.check(partial(check_stories, options.tasks, options.babi is None, *amounts))
    rows: Any = NoRows()
    if tokenizer is not None:
        rows = findings.find(partial(_story_rows, options, config, tokenizer)) or rows
    forward = None
    if options.roll_outs and isinstance(rows, StoryRows):
        forward = partial(walked, walk=partial(roll_out, noise=rows.noise))
    if not options.write_cost:
        return _run(options, findings, stages, rows, training_forward=forward)
    steps = options.steps * len(stages)
    pay = partial(priced, options.write_cost, options.write_cost_rise, steps, forward or fresh_rows)
    paying = findings.check(pay)
    return with_quiet_text(_run(options, findings, stages, rows, training_forward=paying), rows)


def _story_rows(options: BabilongOptions, config: LM2Config, tokenizer: PreTrainedTokenizerBase) -> StoryRows:
    return StoryRows(
        tokenizer=tokenizer,
        babi=options.babi,
        background=options.background,
        segment_length=config.segment_length,
        tasks=options.tasks,
        max_facts=options.facts,
        questions=options.questions,
        fact_density=options.density,
        question_first=options.question == "first-and-last",
    )


def _sft(
    options: SftOptions, findings: Findings, config: LM2Config, tokenizer: PreTrainedTokenizerBase | None
) -> RunConfig:
    stages = (Stage(steps=options.steps, segments=(options.segments,), rows=options.rows),)
    rows: Any = NoRows()
    if tokenizer is not None:
        make = partial(
            ChatRows,
            path=options.data,
            tokenizer=tokenizer,
            segment_length=config.segment_length,
            segments=options.segments,
            rows_per_step=options.rows,
        )
        rows = findings.find(make) or rows
    elif not options.data.is_file():
        findings.find(partial(_must_exist, options.data))
    return _run(options, findings, stages, rows)


def _must_exist(path: Path) -> None:
    raise ValueError(f"there is no file {path}: give a JSONL file with conversations")


def _run(
    options: FinetuneOptions, findings: Findings, stages: tuple[Stage, ...], rows: Any, **others: Any
) -> RunConfig:
    steps = sum(stage.steps for stage in stages)
    rate = findings.rate("learning_rate", options.learning_rate, "the memory's is given beside it")
    memory_rate = findings.memory_rate(options.memory_learning_rate)
    return RunConfig(
        **options.shared(**others),
        model=ModelOf(start=partial(load_model, str(options.model))),
        make_batch=rows,
        stages=stages,
        output_dir=options.out / "train",
        learning_rate=rate,
        memory_learning_rate_factor=memory_rate / rate,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        warmup_steps=min(100, steps // 10),
    )


def load_model(folder: str) -> PreTrainedModel:
    """A saved LM2 model, in float32."""
    return read_whole(LM2ForCausalLM, folder, str(folder), dtype=torch.float32, local_files_only=True)
