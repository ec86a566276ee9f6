"""What the demo found: accuracies with 95 % intervals, the table, results.json, and the first questions answered."""

import json
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from lm2.demo.config import DemoConfig
from lm2.demo.contender import answers_of
from lm2.demo.material import EvaluationSet, load_set, load_tokenizer
from lm2.demo.recipe import CONTENDERS, NAMES, recipe_of
from lm2.environment import environment
from lm2.evaluation.page import interval
from lm2.evaluation.statistics import wilson
from lm2.files import write_json
from lm2.settings import published_settings
from lm2.training.folder import TRAINING_FILE

EXAMPLES = 3
RESULTS_FILE = "results.json"
TITLES = {"own": "The fact is in the question's own segment", "earlier": "The fact is in an earlier segment"}


def collect(options: DemoConfig) -> dict[str, Any]:
    """All results of a finished run as JSON values, from the files of its folder."""
    sets = {column: load_set(options.out, *column) for column in options.columns()}
    answers = {name: answers_of(options, name) for name in CONTENDERS}
    T = recipe_of(options).segment_length
    rows = [
        _row(name, where, segments, found, answers[name][where, segments]["answers"], T)
        for (where, segments), found in sets.items()
        for name in CONTENDERS
    ]
    return {
        **published_settings(options.out),
        "environment": environment(),
        "training": {name: _training_of(options, name, answers.get(name)) for name in ("base", *CONTENDERS)},
        "accuracy": rows,
        "examples": _examples(options, sets, answers["lm2"]),
    }


def _row(name: str, where: str, segments: int, asked: EvaluationSet, answers: list[int], T: int) -> dict[str, Any]:
    correct = int((np.array(answers) == asked.answers).sum())
    low, high = wilson(correct, len(asked))
    return {
        "model": name,
        "where": where,
        "segments": segments,
        "tokens": segments * T,
        "n": len(asked),
        "correct": correct,
        "accuracy": correct / len(asked),
        "low": low,
        "high": high,
        "constant": asked.constant,
        "median_distance": float(np.median(asked.distances)),
    }


def _training_of(options: DemoConfig, name: str, answers: dict | None) -> dict[str, Any]:
    facts = json.loads((options.out / name / TRAINING_FILE).read_text(encoding="utf-8"))
    if answers is not None:
        facts["evaluation_seconds"] = round(sum(line["seconds"] for line in answers.values()), 1)
    return facts


def _examples(options: DemoConfig, sets: dict, answers: dict) -> list[dict[str, Any]]:
    """The first questions of the longest text, with LM2's answers."""
    column = options.columns()[-1]
    asked, given = sets[column], answers[column]["answers"]
    tokenizer = load_tokenizer(options.out)
    return [
        {
            "fact": str(asked.facts[i]),
            "question": str(asked.questions[i]),
            "distance": int(asked.distances[i]),
            "answer": str(tokenizer.decode([given[i]])).strip(),
            "right_answer": str(asked.words[i]),
        }
        for i in range(min(EXAMPLES, len(asked)))
    ]


def save(options: DemoConfig, results: dict[str, Any]) -> None:
    """Write results.json."""
    write_json(options.out / RESULTS_FILE, results)


def show(results: dict[str, Any], console: Console) -> None:
    """Print the two tables and the examples."""
    for where, title in TITLES.items():
        rows = [row for row in results["accuracy"] if row["where"] == where]
        if rows:
            console.print(_table(title, rows))
    trained = results["training"]
    console.print(
        "Parameters: "
        + ", ".join(f"{NAMES[name]} {trained[name]['parameters']:,}" for name in CONTENDERS)
        + f". Training tokens: {trained['base']['tokens']:,} for the common base, then "
        f"{trained['lm2']['tokens']:,} each. In brackets: 95 % intervals (Wilson). "
        "const.: the best answer that is always the same."
    )
    for example in results["examples"]:
        right = example["answer"] == example["right_answer"]
        console.print(
            f"\n[dim]... {example['distance']:,} tokens ago:[/] {example['fact']}\n"
            f"{example['question']}  LM2: [bold]{example['answer']}[/]"
            + (" (right)" if right else f" (wrong: {example['right_answer']})"),
            highlight=False,
        )


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{title}: right answers in %", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("segments", "tokens", "n", *(NAMES[name] for name in CONTENDERS), "const."):
        table.add_column(heading, justify="right")
    for segments in dict.fromkeys(row["segments"] for row in rows):
        cells = {row["model"]: row for row in rows if row["segments"] == segments}
        first = cells[CONTENDERS[0]]
        table.add_row(
            f"{segments}",
            f"{first['tokens']:,}",
            f"{first['n']}",
            *(interval(cells[name]) for name in CONTENDERS),
            f"{100 * first['constant']:.1f}",
        )
    return table
