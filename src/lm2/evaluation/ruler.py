"""RULER through lm-evaluation-harness: those of its thirteen tasks that make their own texts.

The others fetch their text and are named with the reason when they are asked for: the needle tasks in essays, and the
two question-answering tasks.

Source: Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?" (arXiv
2404.06654).
"""

import contextlib
import math
import random
import tempfile
import time
from collections.abc import Generator, Sequence
from itertools import product
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from lm2.environment import environment, in_words
from lm2.evaluation.engine import answers_folder
from lm2.evaluation.mmlu import describe, identity, require_harness
from lm2.evaluation.models import ModelSpec, RunnerOptions, load_model, parse_specs
from lm2.evaluation.options import RulerOptions
from lm2.evaluation.output import write_report
from lm2.evaluation.page import interval, table
from lm2.evaluation.records import SCHEMA, Records, mine, wait_for_all
from lm2.evaluation.ruler_tasks import NOT_RUN, SAMPLES, SHORTEST
from lm2.evaluation.runners.attention import max_positions
from lm2.evaluation.statistics import t_interval, wilson
from lm2.processes import is_first
from lm2.progress import counted

PATTERN = (
    "Track the variables hidden in the following text. The grass is green. VAR KQXZB = 73910 VAR WPLMA = VAR KQXZB"
)
PATTERN_TOKENS = 45
"""What usual tokenizers make of it, or fewer."""
DRAWS = 20
"""Texts of a task that are measured: their words, and so their tokens, differ."""


def run(options: RulerOptions) -> None:
    """Ask what has not been asked yet, and write the report.

    Raises:
        ValueError: the harness or a package of its RULER tasks is not installed, or a model cannot be read.
    """
    require_harness()
    _require_packages()
    asked = [ask_model(spec, options) for spec in parse_specs(options.models)]
    wait_for_all()
    if is_first():
        write(options, [(facts, records.read()) for facts, records in asked])


def _require_packages() -> None:
    import importlib.util

    for package in ("nltk", "wonderwords", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"RULER's tasks need the package {package}: pip install 'lm2[harness]'")


def ask_model(spec: ModelSpec, options: RulerOptions) -> tuple[dict[str, Any], Records]:
    """Ask this process's share of the tasks and lengths; the model's description, and the finished cells."""
    if spec.kind not in (None, "full"):
        raise ValueError(f"RULER is answered under full attention or with a memory: leave out @{spec.kind}")
    from lm2.evaluation.harness import HarnessModel

    model, tokenizer = load_model(spec.source, RunnerOptions(dtype=options.dtype, device=options.device))
    _check_room(tokenizer, options.lengths)
    _check_texts(tokenizer, options.tasks, options.lengths)
    _check_end(spec.name, tokenizer)
    _check_limit(spec.name, model, options.lengths)
    facts = describe(spec, model)
    records = Records(answers_folder(options.out, spec.name), {**options.settings(), **identity(facts)})
    cells = [(task, length) for task in options.tasks for length in options.lengths]
    waiting = [cell for cell in mine(cells) if cell not in records]
    count = options.limit or SAMPLES
    with (
        tempfile.TemporaryDirectory() as folder,
        counted(spec.name, count * len(waiting)) as advance,
    ):
        tokenizer.save_pretrained(folder)  # the harness sizes its texts with a tokenizer that it loads itself
        harness = HarnessModel(model, tokenizer, batch_size=options.batch_size, advance=advance)
        for task, length in waiting:
            records.add((task, length), ask_cell(harness, task, length, folder, options))
    return facts, records


def _check_room(tokenizer: Any, lengths: Sequence[int]) -> None:
    need = max(SHORTEST, SHORTEST * len(tokenizer(PATTERN).input_ids) // PATTERN_TOKENS)
    if min(lengths) < need:
        raise ValueError(
            f"--lengths names {min(lengths):,}, and with this tokenizer, whose tokens are short, the prompts need "
            f"{need:,}: give that or more"
        )


class Shortest(NamedTuple):
    """The shortest text that the harness tries for a task, and what it measures that by, in tokens."""

    text: str
    kept: int
    room: int


def _shortest(task: str, length: int) -> Shortest | None:
    """Drawn anew each time, as the harness draws; None for a task that fits wherever its prompt does."""
    from lm_eval.tasks.ruler import cwe_utils, vt_utils

    if task == "ruler_vt":  # its worked example, which has 500 tokens at every length
        try:
            text, answer = vt_utils.generate_input_output(5, 1, 4, is_icl=True)
        except IndexError:  # one draw in 1,800 gives two variables the same name, on which the harness fails
            return _shortest(task, length)
        return Shortest(f"{text} {answer}", 30, 500)
    if task == "ruler_cwe":
        example, text, words = cwe_utils.generate_input_output(10, length)
        answer = " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))
        return Shortest(f"{example}\n{text} {answer}", 120, length)
    return None


def _check_texts(tokenizer: Any, tasks: Sequence[str], lengths: Sequence[int]) -> None:
    """Where the shortest text does not fit the harness tries for ever (`ruler_vt`), or asks for no words at all."""
    for task, length in product(tasks, lengths):
        drawn = [found for _ in range(DRAWS) if (found := _shortest(task, length))]
        need = max((len(tokenizer(one.text).input_ids) + one.kept for one in drawn), default=0)
        if drawn and need > (room := drawn[0].room):
            remedy = "leave it out" if room < length else "leave it out, or give a greater length"
            raise ValueError(
                f"--tasks names {task}, which needs {need:,} tokens with this tokenizer, whose tokens are short, and "
                f"has {room:,}: {remedy}"
            )


def _check_end(name: str, tokenizer: Any) -> None:
    """The harness ends each answer at the text of the end token, and fails where there is none."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"RULER's answers end with the tokenizer's end token, and eos_token of {name} is None: set "
            "tokenizer.eos_token to a token that it has, and save it into the model's folder"
        )


def _check_limit(name: str, model: Any, lengths: Sequence[int]) -> None:
    """Before the first question, which may be hours before the one that does not fit."""
    if (limit := max_positions(model)) is not None and max(lengths) > limit:
        raise ValueError(
            f"--lengths names {max(lengths):,}, and {name} takes {limit:,} tokens: give that or less, and ask models "
            "that take more of them apart"
        )


def ask_cell(harness: Any, task: str, length: int, tokenizer: str, options: RulerOptions) -> dict[str, Any]:
    """One task at one length: the mean score (the share of the wanted words that the answer holds), and each one."""
    from lm2.evaluation.harness import load_tasks, run_task, task_manager

    seed_everything(options.seed)
    harness.longest, began = 0, time.perf_counter()
    manager = task_manager("ruler", tokenizer=tokenizer, max_seq_lengths=[length])
    with _no_fetching():
        (loaded,) = load_tasks(manager, [task])
    samples = run_task(harness, loaded, 0, options.limit)
    scores = [sample[str(length)] for sample in samples]
    return {
        "score": sum(scores) / len(scores),
        "scores": scores,
        "outputs": [str(sample["filtered_resps"][0]) for sample in samples],
        "longest_input": harness.longest,
        "inputs_cut": 0,  # the harness model stops the run at the first that would be
        "seconds": round(time.perf_counter() - began, 2),
    }


def seed_everything(seed: int) -> None:
    """Texts are drawn from both global generators, and one task shuffles with a generator of its module."""
    from lm_eval.tasks.ruler import cwe_utils

    random.seed(seed)
    np.random.seed(seed)
    cwe_utils.RNG.seed(seed)


@contextlib.contextmanager
def _no_fetching() -> Generator[None]:
    """Without a network the harness waits for a sentence splitter that only the tasks in essays use."""
    import nltk

    with mock.patch.object(nltk, "download"):
        yield


def write(options: RulerOptions, asked: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    """Write ruler.json and ruler.md, each whole or not at all, and print the table."""
    report = {
        "schema": SCHEMA,
        **options.settings(),
        "rule": "the share of the wanted words that the answer holds (the harness's)",
        "not_run": NOT_RUN,
        "environment": environment(("lm_eval", "wonderwords", "scipy")),
        "models": [{**facts, "cells": _cells(records, options)} for facts, records in asked],
    }
    page = markdown(report)
    write_report(options.out, "ruler", report, page)
    print(page)


def _cells(records: Sequence[dict[str, Any]], options: RulerOptions) -> list[dict[str, Any]]:
    """In the order of the options: which process wrote a cell, and in which run, is not to be seen."""
    found = {tuple(record["key"]): record for record in records}
    return [
        {"task": task, "length": length, "n": len(record["scores"]), **record, **bounds(record["scores"])}
        for task in options.tasks
        for length in options.lengths
        for record in [found[task, length]]
    ]


def bounds(scores: Sequence[float]) -> dict[str, float]:
    """The 95 % interval of the mean score: Student's, or Wilson's where that has no width or each score is 0 or 1.

    Wilson's holds for any scores between 0 and 1, which scatter less than right and wrong do; it counts whole ones.
    """
    n, total, seen = len(scores), sum(scores), set(scores)
    if seen <= {0, 1} or len(seen) == 1:
        return {"low": wilson(math.floor(total), n)[0], "high": wilson(math.ceil(total), n)[1]}
    low, high = t_interval(scores)
    return {"low": max(0.0, low), "high": min(1.0, high)}


def markdown(report: dict[str, Any]) -> str:
    """The page: one table, tasks by models and lengths."""
    columns = [(model, n) for model in report["models"] for n in dict.fromkeys(c["length"] for c in model["cells"])]
    scores = {(m["name"], c["task"], c["length"]): c for m in report["models"] for c in m["cells"]}
    tasks = dict.fromkeys(c["task"] for model in report["models"] for c in model["cells"])
    rows = [[task, *(_cell(scores[model["name"], task, n]) for model, n in columns)] for task in tasks]
    n = report["models"][0]["cells"][0]["n"]
    skipped = "\n".join(f"* {task}: {reason}" for task, reason in report["not_run"].items())
    return (
        "\n\n".join(
            [
                "# RULER",
                "Score in %, with 95 % intervals (Wilson's where each score is 0 or 1 or all are the same, else "
                f"Student's): {report['rule']}. {n} samples a cell, seed {report['seed']}; lengths in the model's own "
                "tokens, the answer's included. No input was cut.",
                table(["task", *(f"{model['name']}, {length:,}" for model, length in columns)], rows),
                f"Not run, because they are not complete without a download:\n\n{skipped}",
                f"* {in_words(report['environment'])}",
            ]
        )
        + "\n"
    )


def _cell(cell: dict[str, Any]) -> str:
    return interval({"accuracy": cell["score"], "low": cell["low"], "high": cell["high"]})
