"""LM2, RMT, ARMT and LoRA alone around SmolLM2-135M on BABILong, on a GPU that is there for minutes at a time.

    python benchmarks/smollm_babilong.py --babi babi --books books/train.jsonl.gz --test-books books/test.jsonl.gz

The base is frozen. A contender trains its memory and LoRA adapters on the base, whose rank fills up the same number of
parameters for all; rows, their order and the number of updates are the same too. LM2 also reads background alone, 8
segments beside each pass, on which its price on writing is; nothing in it has a label. "lora" is the base read segment
by segment without a memory. Each contender is trained through a curriculum of lengths, only answers having a loss, and
then asked by the engine of `lm2 eval babilong`.

The script stops itself after --minutes, at a checkpoint or between two answers, and the same command goes on. On
another machine it goes on from a copy of --out; the folders `model` in it, which hold whole models, need not be copied.
"""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from lm2 import add_memory
from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from lm2.data.encoding import load_tokenizer
from lm2.deadline import TimeUp, until
from lm2.environment import environment
from lm2.evaluation import page
from lm2.evaluation.babilong import SampleSource
from lm2.evaluation.compare import compare
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.engine import Asked, answers_folder, evaluate
from lm2.evaluation.output import write_report
from lm2.evaluation.report import REPORT_FILE, collect, save
from lm2.evaluation.statistics import p_value
from lm2.files import write_lines
from lm2.gguf import base_config, load_base
from lm2.recipes.findings import Findings
from lm2.recipes.finetune import babilong_run
from lm2.recipes.options import BabilongOptions
from lm2.recipes.parts import only_trained
from lm2.recipes.plan import ModelOf, Plan, carry_out
from lm2.retrofit import with_memory
from lm2.training import RunConfig
from lm2.training.folder import steps_done
from lm2.training.optimizers import is_memory

Name = Literal["lm2", "rmt", "armt", "lora"]
KINDS: dict[str, type[RMTForCausalLM] | type[ARMTForCausalLM]] = {
    "rmt": RMTForCausalLM,
    "armt": ARMTForCausalLM,
    "lora": RMTForCausalLM,
}
LEAST_RANK = 4
"""Of a contender whose memory alone has more parameters than all are to have."""
WORKERS = 4
"""Processes that make rows ahead of a GPU."""
PIECES_FILE, NAME = "pieces.jsonl", "smollm_babilong"


@dataclass(frozen=True)
class Options:
    """What is trained, and what it is asked."""

    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """The backbone: a folder, a GGUF file or a hub name"""
    out: Path = Path("runs/smollm-babilong")
    """Folder of the run; the same command goes on with what is in it"""
    contenders: tuple[Name, ...] = ("lm2", "rmt", "armt", "lora")
    """Which are trained and asked, in this order; the report has all"""
    minutes: float = 9.0
    """After so many the script begins to stop"""
    seed: int = 0
    """Of new weights, rows and samples"""
    tasks: tuple[str, ...] = ("qa1", "qa2", "qa3", "qa4", "qa5")
    """Trained together, and asked"""
    babi: Path | None = None
    """Folder or zip with the bAbI files; simulated stories when not given"""
    books: Path | None = None
    """Books for training; built-in sentences when not given"""
    test_books: Path | None = None
    """Books for the questions; built-in sentences when not given"""
    segment_length: int = 512
    """Tokens of a segment"""
    memory_layers: tuple[int, ...] = (10, 17, 24)
    """LM2: blocks with a bank"""
    memory_slots: int = 32
    """LM2: slots of a bank"""
    look_back: int = 16
    """LM2: tokens before a segment that it sees too"""
    memory_tokens: int = 16
    """Memory tokens of RMT, write tokens of ARMT"""
    trained: int = 10_000_000
    """Parameters that each contender trains, as near as the rank of its adapters allows from below"""
    curriculum: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Longest row of each stage, in segments"""
    steps: int = 150
    """Updates of each stage"""
    rows: int = 32
    """Rows of an update"""
    accumulation: int = 2
    """Passes of an update"""
    learning_rate: float = 3e-4
    """Peak rate of the adapters"""
    memory_learning_rate: float = 1e-3
    """Peak rate of the memories"""
    lengths: tuple[str, ...] = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "1M")
    """Lengths of the texts in GPT-2 tokens"""
    samples: tuple[int, ...] = (20, 20, 20, 20, 10, 10, 10, 5, 5, 2)
    """Samples of each task at each length, or one number for all"""


@dataclass(frozen=True)
class Size:
    """What a contender trains: the parameters of its memory, and adapters of this rank."""

    memory: int
    rank: int
    trained: int


def memory_of(name: Name, options: Options, base: PreTrainedConfig) -> dict[str, Any]:
    """The options of `add_memory` or of a baseline's configuration."""
    if name != "lm2":
        tokens = 0 if name == "lora" else options.memory_tokens
        return {"segment_length": options.segment_length, "memory_tokens": tokens}
    return {
        "segment_length": options.segment_length,
        "memory_layers": list(options.memory_layers),
        "memory_slots": options.memory_slots,
        "memory_key_value_heads": base.num_key_value_heads,
        "look_back": options.look_back,
    }


def configuration(name: Name, base: PreTrainedConfig, memory: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a contender."""
    return with_memory(base, **memory) if name == "lm2" else KINDS[name].config_class(backbone_config=base, **memory)


def start(name: Name, base: str, memory: dict[str, Any]) -> PreTrainedModel:
    """A contender before it is trained, in float32."""
    backbone = load_base(base, torch.float32)[0]
    return add_memory(backbone, **memory) if name == "lm2" else KINDS[name].from_backbone(backbone, **memory)


def size_of(config: PreTrainedConfig, budget: int) -> Size:
    """The memory of a model, and the largest rank with which it trains no more than `budget` parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    memory = sum(parameter.numel() for name, parameter in model.named_parameters() if is_memory(name))
    of_rank_1 = sum(p.numel() for p in only_trained(model, "lora", 1).parameters() if p.requires_grad) - memory
    rank = max(LEAST_RANK, (budget - memory) // of_rank_1)
    return Size(memory, rank, memory + rank * of_rank_1)


def shared_run(options: Options, config: PreTrainedConfig, tokenizer: Any) -> RunConfig:
    """The training of every contender, but for its model and its folder."""
    gpu, findings = torch.cuda.is_available(), Findings(dry_run=False)
    recipe = BabilongOptions(
        out=options.out,
        seed=options.seed,
        tasks=options.tasks,
        babi=options.babi,
        background=options.books,
        curriculum=options.curriculum,
        steps=options.steps,
        rows=options.rows,
        accumulation=options.accumulation,
        learning_rate=options.learning_rate,
        memory_learning_rate=options.memory_learning_rate,
        bf16=gpu,
        activation_checkpointing=gpu,
        log_every=5,
        save_every=100,
        report_to=(),
    )
    run = babilong_run(recipe, findings, config, tokenizer)
    findings.problems.raise_all()
    return replace(run, keep_checkpoints=1, data_workers=WORKERS if gpu else 0)


def plans_of(options: Options) -> dict[Name, tuple[Plan, Size]]:
    """The plan of each contender: the same rows, updates and rates."""
    base, tokenizer = base_config(options.base), load_tokenizer(options.base)
    plans, shared = {}, None
    for name in get_args(Name):
        memory = memory_of(name, options, base)
        config = configuration(name, base, memory)
        size, shared = size_of(config, options.trained), shared or shared_run(options, config, tokenizer)
        own = replace(options, out=options.out / name)
        model = ModelOf(start=partial(start, name, options.base, memory), trains="lora", lora_rank=size.rank)
        run = replace(shared, model=model, output_dir=own.out / "train")
        plan = Plan(recipe=NAME, options=own, config=config, phases={"train": run}, tokenizer=tokenizer)
        plans[name] = plan, size
    return plans


def questions(options: Options, *models: str) -> BabilongConfig:
    """The options of `lm2 eval babilong`, with its strict rule."""
    return BabilongConfig(
        models=models,
        out=options.out / "evaluation",
        tasks=options.tasks,
        lengths=options.lengths,
        samples=options.samples,
        babi=options.babi,
        background=options.test_books,
        seed=options.seed,
        controls=(),
        max_new_tokens=4,
    )


def train_and_ask(options: Options, plans: dict[Name, tuple[Plan, Size]], source: SampleSource, end: float) -> bool:
    """Do what is not done yet, up to a moment; whether all is done."""
    for name in options.contenders:
        plan, _ = plans[name]
        if (model := carry_out(plan, stop_at=end)) is None:
            return False
        for state in (plan.options.out / "train").glob("checkpoint-*/optimizer.pt"):
            state.unlink()  # two thirds of the checkpoint, and a finished training does not go on
        try:
            with until(end):
                evaluate(questions(options, f"{name}={model}"), source)
        except TimeUp:
            return False
    return True


def answers(options: Options, name: str) -> Asked | None:
    """What a contender has answered so far, and what it was when it was asked; None if nothing."""
    path = answers_folder(questions(options).out, name) / "records.0.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    if len(whole) < 2:
        return None
    settings = whole[0]["settings"]
    facts = {key.removeprefix("model."): value for key, value in settings.items() if key.startswith("model.")}
    return Asked(name, facts, whole[1:])


def device() -> str:
    """The GPU, or how many processors there are."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} {platform.machine()} processors"


def note_piece(options: Options, minutes: float, done: bool) -> list[dict[str, Any]]:
    """Add this piece of work to those of before, and return all; a line that a kill left unfinished goes."""
    path = options.out / PIECES_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    piece = {"device": device(), "commit": environment()["commit"], "minutes": round(minutes, 2), "done": done}
    pieces = [*(json.loads(line) for line in lines if line.endswith("\n")), piece]
    write_lines(path, pieces)
    return pieces


def contender_facts(plan: Plan, size: Size) -> dict[str, Any]:
    """What a contender trains, how far it is, and what of it has to travel."""
    folder = plan.phases["train"].output_dir
    bytes_ = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {**asdict(size), "steps": steps_done(folder), "of": plan.phases["train"].steps, "bytes": bytes_}


def write(
    options: Options, plans: dict[Name, tuple[Plan, Size]], source: SampleSource, pieces: list[dict[str, Any]]
) -> None:
    """OUT/smollm_babilong.json and .md of what there is."""
    asked = [found for name in plans if (found := answers(options, name)) is not None]
    report = collect(questions(options), source.description, asked)
    save(report, options.out / REPORT_FILE)
    pairs = [compare(options.out, options.out, "lm2", other) for other in comparable(report, "lm2")]
    whole = {
        "seed": options.seed,
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "pieces": pieces,
        "contenders": {name: contender_facts(*made) for name, made in plans.items()},
        "paired": pairs,
        "report": report,
    }
    write_report(options.out, NAME, whole, markdown(whole))


def comparable(report: dict[str, Any], name: str) -> list[str]:
    """The models that have answered the same samples as the one called `name`, in each cell that both have begun."""
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for cell in report["cells"]:
        if cell["condition"] == "carried":
            cells.setdefault(cell["model"], {})[cell["task"], cell["length"]] = cell["samples"]
    own = cells.pop(name, {})
    common = {other: own.keys() & theirs.keys() for other, theirs in cells.items()}
    return [other for other, keys in common.items() if keys and all(own[key] == cells[other][key] for key in keys)]


def markdown(whole: dict[str, Any]) -> str:
    """The page: contenders, paired tests, and the report of `lm2 eval babilong`."""
    header = ["contender", "memory", "rank of LoRA", "trained parameters", "steps", "checkpoint, MB"]
    rows = [
        [
            name,
            *(f"{facts[key]:,}" for key in ("memory", "rank", "trained")),
            f"{facts['steps']} of {facts['of']}",
            f"{facts['bytes'] / 1e6:.1f}",
        ]
        for name, facts in whole["contenders"].items()
    ]
    minutes = sum(piece["minutes"] for piece in whole["pieces"])
    devices = ", ".join(dict.fromkeys(piece["device"] for piece in whole["pieces"]))
    commits = ", ".join(dict.fromkeys(str(piece["commit"]) for piece in whole["pieces"]))
    state = "" if whole["pieces"][-1]["done"] else " **Not finished.**"
    parts = [
        f"# {Path(whole['options']['base']).name} on BABILong: LM2, RMT, ARMT and LoRA alone",
        f"Seed {whole['seed']}; {len(whole['pieces'])} pieces of work, {minutes:.1f} minutes on {devices}; commit "
        f"{commits}.{state}",
        page.table(header, rows),
        *(page_of_pair(pair) for pair in whole["paired"]),
    ]
    tables = page.markdown(whole["report"]).removeprefix("# BABILong") if whole["report"]["cells"] else ""
    return "\n\n".join(parts) + f"\n{tables}"


def page_of_pair(pair: dict[str, Any]) -> str:
    """All cells of two contenders together."""
    (first, second), total = pair["models"], pair["cells"][-1]
    return (
        f"{first} and {second}, all {total['n']} samples: {total['first']} and {total['second']} right, "
        f"{total['only_first']} and {total['only_second']} by one alone, p = {p_value(total['p'])} (exact sign-flip "
        "test over stories)."
    )


def main(options: Options) -> bool:
    """A piece of the work, and the report of what there is; whether all is done."""
    began = time.monotonic()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config = questions(options)
    config.check()
    source, plans = config.source(), plans_of(options)
    done = train_and_ask(options, plans, source, began + 60 * options.minutes)
    pieces = note_piece(options, (time.monotonic() - began) / 60, done)
    write(options, plans, source, pieces)
    rest = "All is done." if done else "Stopped: the same command goes on."
    print(f"{rest} Saved {options.out / NAME}.json and .md, {pieces[-1]['minutes']} minutes on {device()}.")
    return done


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
