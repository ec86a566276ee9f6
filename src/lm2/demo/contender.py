"""One model of the demo in a process of its own: `python -m lm2.demo.contender FOLDER NAME`.

Small matrices do not get faster with more threads, so each model has one thread and several models run side by side.
The model is trained (from its last checkpoint), saved, and asked; what is done already is not done again.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from lm2 import LM2ForCausalLM
from lm2.baselines import RMTForCausalLM
from lm2.demo.config import DemoConfig
from lm2.demo.evaluation import answer, last_segment
from lm2.demo.material import load_set, load_tokenizer, training_rows
from lm2.demo.recipe import BACKBONE_TRAINING, Recipe, contender, kind_at, new_backbone, recipe_of, stages
from lm2.demo.rows import RowMaker, Rows, make_batch
from lm2.files import read_lines, write_lines
from lm2.processes import child_exit
from lm2.settings import saved_options
from lm2.training import RunConfig
from lm2.training.folder import train_folder
from lm2.training.quiet import quiet_segments
from lm2.training.write_cost import priced

ANSWERS_FILE = "answers.jsonl"
SAVE_EVERY = 200


def main(folder: Path, name: str) -> None:
    """Do one model's part."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    options = DemoConfig.from_json(saved_options(folder), folder)
    train_one(options, name)
    if name != "base":
        ask(options, name)


def run_of(options: DemoConfig, recipe: Recipe, name: str, rows: Rows, vocabulary: int) -> RunConfig:
    """The training of one model. The contenders read the very same rows."""
    start = partial(_start, options.out, name, recipe, vocabulary)
    return training_run(recipe, name, rows, start, options.out / name, options.seed)


def training_run(
    recipe: Recipe, name: str, rows: RowMaker, start: Callable[[], PreTrainedModel], folder: Path, seed: int
) -> RunConfig:
    """The training of a backbone (called "base") or of a contender of a recipe, which `start` makes."""
    is_base = name == "base"
    phases = recipe.base_phases if is_base else recipe.phases
    steps = recipe.base_steps if is_base else recipe.steps
    plan = stages(phases, steps)
    return RunConfig(
        model=start,
        make_batch=partial(make_batch, rows, phases, plan),
        stages=plan,
        output_dir=folder,
        seed=2 * seed + (not is_base),
        learning_rate=recipe.learning_rate,
        weight_decay=0.01,
        betas=(0.9, 0.98),
        schedule=recipe.schedule,
        warmup_steps=min(50, steps // 4),
        save_every=SAVE_EVERY,
        keep_checkpoints=1,
        report_to=(),
        training_forward=priced(recipe.write_cost, recipe.write_cost_rise, steps) if name == "lm2" else None,
        **(BACKBONE_TRAINING if is_base else {}),
    )


def _start(out: Path, name: str, recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    """The untrained model: a new backbone (run by RMT without memory, whose head skips unlabelled positions), or a
    contender around the trained one."""
    if name == "base":
        return contender("plain", new_backbone(recipe, vocabulary), recipe)
    return contender(name, AutoModelForCausalLM.from_pretrained(out / "base" / "model"), recipe)


def training_tokens(run: RunConfig, recipe: Recipe, rows: RowMaker, name: str) -> int:
    """Tokens that the whole run reads, pads and quiet text included."""
    phases = recipe.base_phases if name == "base" else recipe.phases
    total = run.steps * quiet_segments(run) * recipe.segment_length
    for step in range(run.steps):
        segments = run.segments_at(step)
        kind = kind_at(phases, run.stages, run.seed, step, segments)
        total += -(-run.stage_at(step).rows // segments) * rows.width(kind, segments)
    return total


def train_one(options: DemoConfig, name: str) -> None:
    """Train a model that is not trained yet; the folder `model` appears when it is."""
    folder, recipe = options.out / name, recipe_of(options)
    if (folder / "model").exists():
        return
    tokenizer = load_tokenizer(options.out)
    rows = training_rows(options, recipe)
    run = run_of(options, recipe, name, rows, len(tokenizer))
    backbone = attrgetter("backbone") if name == "base" else None
    train_folder(run, tokenizer, training_tokens(run, recipe, rows, name), backbone)


def ask(options: DemoConfig, name: str) -> None:
    """Answer the evaluation sets that have no answers yet, one line of `answers.jsonl` each."""
    path, recipe = options.out / name / ANSWERS_FILE, recipe_of(options)
    lines = read_lines(path)
    done = {(line["where"], line["segments"]) for line in lines}
    missing = [column for column in options.columns() if column not in done]
    if not missing:
        return
    kind = LM2ForCausalLM if name == "lm2" else RMTForCausalLM
    model = kind.from_pretrained(options.out / name / "model").eval()
    for where, segments in missing:
        began = time.perf_counter()
        ids_NL = torch.from_numpy(load_set(options.out, where, segments).ids)
        if name == "plain":
            ids_NL = last_segment(ids_NL, recipe.segment_length)
        answers = answer(model, ids_NL, recipe.segment_length).tolist()
        seconds = round(time.perf_counter() - began, 2)
        lines.append({"where": where, "segments": segments, "answers": answers, "seconds": seconds})
        write_lines(path, lines)


def answers_of(options: DemoConfig, name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What a model has answered, by where the fact is and the segments of the text."""
    return {(line["where"], line["segments"]): line for line in read_lines(options.out / name / ANSWERS_FILE)}


if __name__ == "__main__":
    sys.exit(child_exit(partial(main, Path(sys.argv[1]), sys.argv[2])))
