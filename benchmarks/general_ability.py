"""What continued training costs: held-out perplexity and MMLU of a base, with and without a memory, trained alike.

    lm2 data prepare books=books/train.jsonl.gz --tokenizer HuggingFaceTB/SmolLM2-135M-Instruct --out data/books
    python benchmarks/general_ability.py --data data/books --text books/test.jsonl.gz --mmlu mmlu.zip

    base               as it is, under full attention
    base in segments   as it is, reading each segment alone
    control            the base trained on segments, without a memory
    lm2, rmt           the base with a memory, trained on the same rows in the same order at the same rates

Each of the last three is also read in segments that hold the whole prompt ("whole"). The script stops itself after
--minutes, and the same command goes on. RMT reads a row as one text, for it knows no borders of documents: use long
ones.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from lm2.baselines import RMTConfig, RMTForCausalLM
from lm2.deadline import TimeUp, until
from lm2.environment import environment
from lm2.evaluation import mmlu, perplexity
from lm2.evaluation.config import Dtype
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.options import MmluOptions, PerplexityOptions
from lm2.evaluation.output import write_report
from lm2.evaluation.page import table
from lm2.evaluation.statistics import t_interval
from lm2.evaluation.subjects import SUBJECTS
from lm2.gguf import base_config, load_base
from lm2.recipes.options import RetrofitOptions
from lm2.recipes.plan import ModelOf, Plan, carry_out
from lm2.recipes.retrofit import retrofit
from lm2.retrofit import convert

BASE, ALONE, CONTROL = "base", "base in segments", "control"
ARMS = (CONTROL, "lm2", "rmt")
WHOLE = " whole"
NAME = "general_ability"


@dataclass(frozen=True)
class Options:
    """What is trained, and what is measured."""

    data: Path
    """Token store of the training (lm2 data prepare)"""
    text: Path
    """Held-out text: a .jsonl, .jsonl.gz or .txt file, or a folder of them; two documents or more"""
    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """A folder, a GGUF file or a hub name"""
    out: Path = Path("runs/general-ability")
    """Folder of the run; the same command goes on with what is in it"""
    minutes: float = 9.0
    """After so many the script begins to stop"""
    seed: int = 0
    """Of new weights and of the order of the rows"""
    segment_length: int = 256
    """Tokens of a segment in training"""
    whole: int = 4096
    """Tokens of a segment that holds a whole prompt"""
    memory_layers: tuple[int, ...] = (10, 17, 24)
    """LM2: blocks with a bank"""
    memory_slots: int = 32
    """LM2: slots of a bank"""
    memory_tokens: int = 16
    """RMT's memory tokens"""
    steps: int = 500
    """Updates"""
    segments: int = 8
    """Segments of a row"""
    rows: int = 16
    """Rows of an update"""
    accumulation: int = 1
    """Passes of an update"""
    learning_rate: float = 5e-5
    """Peak rate of the base"""
    memory_learning_rate: float = 1e-3
    """Peak rate of the memories"""
    documents: int | None = None
    """Read only the first so many held-out documents"""
    text_segments: int = 64
    """Segments of a held-out document that are read"""
    mmlu: Path | None = None
    """Folder or zip with MMLU's dev/ and test/ CSV files; the hub's data when not given"""
    subjects: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: all 57)")] = SUBJECTS
    """MMLU's subjects"""
    shots: int = 5
    """Worked examples before each question"""
    questions: int | None = None
    """Ask only the first so many questions of each subject"""
    dtype: Dtype = "auto"
    """Precision of all models when they read and answer; auto is float32 on a CPU and bfloat16 on a GPU"""


def plan_of(arm: str, options: Options) -> Plan:
    """The training of an arm: that of `lm2 train retrofit`, all weights from the first update on."""
    gpu = torch.cuda.is_available()
    plan = retrofit(
        RetrofitOptions(
            out=options.out / arm,
            base=options.base,
            data=options.data,
            seed=options.seed,
            memory_layers=options.memory_layers if arm == "lm2" else (),
            memory_slots=options.memory_slots,
            segment_length=options.segment_length,
            memory_steps=0,
            steps=options.steps,
            segments=(options.segments,),
            rows=options.rows,
            accumulation=options.accumulation,
            learning_rate=options.learning_rate,
            memory_learning_rate=options.memory_learning_rate,
            bf16=gpu,
            log_every=5,
            save_every=100,
            report_to=(),
        )
    )
    return around_rmt(plan, options) if arm == "rmt" else plan


def around_rmt(plan: Plan, options: Options) -> Plan:
    """The same training of the base with RMT's memory."""
    memory = {"segment_length": options.segment_length, "memory_tokens": options.memory_tokens}
    model = ModelOf(start=partial(rmt, options.base, memory))
    run = replace(plan.phases["all"], model=model, training_forward=as_one_text)
    config: Any = RMTConfig(backbone_config=base_config(options.base), **memory)
    return replace(plan, config=config, phases={"all": run})


def rmt(base: str, memory: dict[str, int]) -> PreTrainedModel:
    """RMT before it is trained, in float32."""
    return RMTForCausalLM.from_backbone(load_base(base, torch.float32)[0], **memory)


def as_one_text(model: Any, batch: dict[str, Any], step: int) -> Any:
    """A pass without the places of documents in a row."""
    return model(**{name: value for name, value in batch.items() if name != "position_ids"}, use_cache=False)


def with_segments_of(length: int, model: Path) -> Path:
    """The same weights with another length of a segment, in a folder beside."""
    folder = model.with_name(f"{model.name}-{length}")
    if not folder.exists():
        beside = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(model, beside, copy_function=os.link)
        config = json.loads((beside / "config.json").read_text(encoding="utf-8")) | {"segment_length": length}
        (beside / "config.json").unlink()
        (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        beside.rename(folder)
    return folder


def check_text(options: Options, tokenizer: Any) -> None:
    """Before hours of training: whether there are documents to read in segments that hold a whole prompt.

    Raises:
        ValueError: fewer than two.
    """
    texts = perplexity.documents(options.text, options.documents)
    lengths = [len(tokenizer(text).input_ids) for _, text in texts]
    if sum(length >= options.whole for length in lengths) < 2:
        raise ValueError(
            f"two documents of {options.text} or more must have {options.whole:,} tokens (--whole), and the longest of "
            f"{len(lengths)} has {max(lengths):,}: give longer documents, or a smaller --whole"
        )


def models_of(options: Options, end: float) -> dict[str, str] | None:
    """Where each model is, by its name; None when time was up before all were trained."""
    alone = options.out / "segments"
    if not alone.exists():
        memory = {"memory_layers": (), "memory_slots": options.memory_slots}
        convert(options.base, alone, segment_length=options.segment_length, **memory)
    check_text(options, AutoTokenizer.from_pretrained(alone))
    models = {BASE: options.base, ALONE: str(alone)}
    for arm in ARMS:
        if (folder := carry_out(plan_of(arm, options), stop_at=end)) is None:
            return None
        models |= {arm: str(folder), arm + WHOLE: str(with_segments_of(options.whole, folder))}
    return models


def measure(options: Options, models: dict[str, str]) -> None:
    """Read the text and ask the questions, as far as that has not been done."""
    specs = {name: f"{name}={place}" for name, place in models.items()}
    short = tuple(spec for name, spec in specs.items() if not name.endswith(WHOLE))
    long = (specs[BASE], *(spec for name, spec in specs.items() if name.endswith(WHOLE)))
    for models_, length, n in ((short, options.segment_length, options.text_segments), (long, options.whole, 1)):
        perplexity.run(
            PerplexityOptions(
                models_,
                text=options.text,
                segments=n,
                segment_length=length,
                limit=options.documents,
                dtype=options.dtype,
                out=options.out / f"perplexity-{length}",
            )
        )
    mmlu.run(
        MmluOptions(
            tuple(specs.values()),
            options.mmlu,
            options.subjects,
            shots=options.shots,
            limit=options.questions,
            dtype=options.dtype,
            out=options.out / "mmlu",
        )
    )


def losses(folder: Path, name: str, documents: int | None) -> dict[int, float]:
    """The mean loss of each held-out document, with the memory carried."""
    (file,) = answers_folder(folder, name).glob("records.*.jsonl")
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    means = {record["key"][0]: mean(record["nll"].get("carried") or record["nll"]["full"]) for record in found}
    return {number: loss for number, loss in means.items() if documents is None or number < documents}


def answers(options: Options) -> dict[str, dict[tuple[str, int], float]]:
    """Per cent (0 or 100) of each question, by model."""
    report = json.loads((options.out / "mmlu" / "mmlu.json").read_text(encoding="utf-8"))
    return {
        model["name"]: {
            (subject, number): 100.0 * (pick == target)
            for subject, both in model["answers"].items()
            for number, (pick, target) in enumerate(zip(both["picks"], both["targets"], strict=True))
        }
        for model in report["models"]
    }


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def paired(first: dict[Any, float], second: dict[Any, float]) -> dict[str, float]:
    """The mean of first - second over what both have, with Student's 95 % interval."""
    differences = [first[key] - second[key] for key in first if key in second]
    low, high = t_interval(differences)
    return {"mean": mean(differences), "low": low, "high": high, "n": len(differences)}


def collect(options: Options, models: dict[str, str]) -> dict[str, Any]:
    """Every model's numbers, and the differences from the models beside it."""
    asked, found = answers(options), {}
    for name in models:
        length = options.whole if name.endswith(WHOLE) else options.segment_length
        found[name] = losses(options.out / f"perplexity-{length}", name, options.documents), asked[name]
    whole_base = losses(options.out / f"perplexity-{options.whole}", BASE, options.documents), asked[BASE]
    pairs = [(ALONE, BASE, found[ALONE], found[BASE])]
    for arm in ARMS:
        pairs += [(arm, other, found[arm], found[other]) for other in (ALONE, CONTROL, BASE) if other != arm]
        others = {BASE: whole_base, CONTROL + WHOLE: found[CONTROL + WHOLE]}
        pairs += [(arm + WHOLE, o, found[arm + WHOLE], both) for o, both in others.items() if o != arm + WHOLE]
    return {
        "seed": options.seed,
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "environment": environment(("lm_eval",)),
        "models": {
            name: {"loss": mean([*text.values()]), "documents": len(text), "mmlu": mean([*right.values()])}
            for name, (text, right) in found.items()
        },
        "paired": [
            {"first": first, "second": second, "loss": paired(a[0], b[0]), "mmlu": paired(a[1], b[1])}
            for first, second, a, b in pairs
        ],
    }


def markdown(report: dict[str, Any]) -> str:
    """The page: a table of the models and one of the differences."""
    how, chosen = report["environment"], report["options"]
    rows = [
        [
            name,
            f"{facts['loss']:.4f}",
            f"{math.exp(facts['loss']):.2f}",
            f"{facts['documents']}",
            f"{facts['mmlu']:.1f}",
        ]
        for name, facts in report["models"].items()
    ]
    pairs = [
        [pair["first"], pair["second"], interval(pair["loss"], 4), interval(pair["mmlu"], 2)]
        for pair in report["paired"]
    ]
    parts = [
        f"# General ability of {Path(chosen['base']).name} after continued training",
        f"Segments of {chosen['segment_length']:,} tokens, and of {chosen['whole']:,} where it says whole, where the "
        f"loss is that of the first {chosen['whole']:,} tokens; MMLU with {chosen['shots']} worked examples.",
        table(["model", "loss, nats per token", "perplexity", "documents", "MMLU, %"], rows),
        "First minus second, paired by document and by question, with Student's 95 % interval:",
        table(["first", "second", "loss, nats per token", "MMLU, points"], pairs, 2),
        f"Seed {report['seed']}; {chosen['steps']:,} updates; {report['device']}, {how['processors']} {how['machine']} "
        f"processors; commit {how['commit'] or 'unknown'}.",
    ]
    return "\n\n".join(parts) + "\n"


def interval(found: dict[str, float], digits: int) -> str:
    return f"{found['mean']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f}), {found['n']:,}"


def main(options: Options) -> bool:
    """A piece of the work; whether all is done, and then the report is written."""
    end = time.monotonic() + 60 * options.minutes
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        if (models := models_of(options, end)) is None:
            raise TimeUp
        with until(end):
            measure(options, models)
    except TimeUp:
        print("Stopped: the same command goes on.")
        return False
    report = collect(options, models)
    write_report(options.out, NAME, report, markdown(report))
    print(f"{markdown(report)}\nAll is done. Saved {options.out / NAME}.json and .md.")
    return True


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
