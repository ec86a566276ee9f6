"""The page of a reproduction, its JSON file and its pictures: ready for docs/results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from lm2.environment import with_one_thread
from lm2.evaluation.controls import QUESTION
from lm2.evaluation.figure import draw_curves
from lm2.evaluation.page import Published, interval, markdown, percent, published, table, values
from lm2.evaluation.report import CONSTANT, lengths_of, mean_rows, ordered, tasks_of
from lm2.evaluation.statistics import p_value
from lm2.files import by_rows, write_text
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.results import SHOWN, Report, main_cells
from lm2.reproduce.sizes import NAMES, Sizes

PAGE_FILE, RESULTS_FILE = "results.md", "results.json"
CURVES_FILE, QA1_FILE = "curves.png", "qa1.png"
ANCHORS = (
    *("LM2-1.7B", "RMT-1.7B", "vanilla-Llama-1.7B", "Llama-3.2-1.2B", "Llama-3.2-1.2B-RAG"),
    *("~ RMT (137M) fine-tune", "~ ARMT (137M) fine-tune", "~ Mamba (130M) fine-tune", "gpt-4-0125-preview"),
)
"""The published models that are shown beside ours."""
KEPT = ("official", "far", "controls")
"""Reports whose cells are in the file of numbers: those of the claim are cells of the first, and each has the right
answers under every rule."""
RULES = {
    "official": "Means over tasks, official rule",
    "word": "Means over tasks, repaired rule (labels as whole words)",
}


def save(config: ReproduceConfig, sizes: Sizes, found: dict[str, Any]) -> list[Path]:
    """Write page, numbers, the two whole reports and the pictures; their paths."""
    reports = found["reports"]
    numbers = {**found, "reports": {name: reports[name] for name in KEPT}}
    texts = {PAGE_FILE: page(sizes, found), RESULTS_FILE: by_rows(numbers) + "\n"}
    for rule in RULES:
        texts[f"babilong_{rule}.md"] = markdown(reports[rule], _anchors(reports[rule]))
    for name, text in texts.items():
        write_text(config.out / name, text)
    pictures = {CURVES_FILE: _curves(reports["official"])}
    if "qa1" in sizes.main.tasks:
        pictures[QA1_FILE] = _curves(qa1_of(reports["official"]), qa1_of(reports["far"]))
    for name, curves in pictures.items():
        draw_curves(curves, config.out / name)
    return [config.out / name for name in (*texts, *pictures)]


def show(found: dict[str, Any], console: Console) -> None:
    """Print the claims and the means."""
    console.print(Markdown("\n\n".join([_claims(found), _means(found["reports"]["official"])])))


def page(sizes: Sizes, found: dict[str, Any]) -> str:
    """The whole page; sections of what was not asked are left out."""
    reports = found["reports"]
    parts = [
        "# BABILong on a processor, at equal budget",
        _how(found),
        "## The claim",
        f"Over {', '.join(sizes.main.tasks)} and {', '.join(sizes.claimed)}, official rule.",
        _claims(found),
        *_published_claims(reports["claimed"], reports["far"]),
        *(part for rule, title in RULES.items() for part in (f"## {title}", _means(reports[rule]))),
        f"![Right answers by length, mean over tasks]({CURVES_FILE})",
        *(_qa1(reports["official"], reports["far"]) if "qa1" in sizes.main.tasks else ()),
        *(_controls(reports["controls"]) if sizes.controls.tasks else ()),
        "## Paired tests",
        "Exact sign-flip test, two-sided, on the same samples, all cells of the claim together: the stories that the "
        "questions are about are taken to be independent.",
        _paired(found["paired"]),
        "## Training",
        _training(found),
        "## Learning rates",
        "Loss of the closing answers on held-out rows where the search ended; the lowest went on.",
        _search(found["training"]),
    ]
    return "\n\n".join(parts) + "\n"


def _how(found: dict[str, Any]) -> str:
    options = found["options"]
    samples = found["reports"]["official"]["samples"]
    smoke = "**A smoke run: its numbers mean nothing.** " if options["smoke"] else ""
    return (
        f"{smoke}Right answers in %, in brackets 95 % intervals (Wilson). Questions: {samples['questions']}; "
        f"background: {samples['background']}; seed {options['seed']}; {with_one_thread(found['environment'])}. "
        "By task, and with every model's settings: babilong_official.md and babilong_word.md beside this page."
    )


def _claims(found: dict[str, Any]) -> str:
    rows = [[claim["text"], "met" if claim["met"] else "not met", claim["numbers"]] for claim in found["claims"]]
    return table(["claim", "", "numbers"], rows, 3)


def _published_claims(claimed: Report, far: Report) -> list[str]:
    """The mean over tasks and claimed lengths, as far as published, and qa1 at the longest length; nothing without."""
    if not far["cells"]:
        return []
    tasks, lengths, longest = tasks_of(claimed), lengths_of(claimed), lengths_of(far)[-1]
    at_longest = {row.model: row.mean(["qa1"], longest) for row in _anchors(far)}
    rows = []
    for row in _anchors(claimed):
        means = [float(mean) for length in lengths if (mean := row.mean(tasks, length))]
        mean = f"{sum(means) / len(means):.1f} ({len(means)} of {len(lengths)})" if means else ""
        rows.append([f"{row.model} ({row.table})", mean, at_longest.get(row.model, "")])
    header = ["model", f"mean over tasks (lengths published), {', '.join(lengths)}", f"qa1 at {longest}"]
    text = "The same as published, of far larger models:"
    return [text, table(header, rows)]


def _anchors(report: Report) -> list[Published]:
    return [row for row in published(report) if row.model in ANCHORS]


def _means(report: Report) -> str:
    """Our means by length, and under them what is published."""
    lengths, tasks = lengths_of(report), tasks_of(report)
    ours = [[model, *values(row, lengths)] for (model, asked), row in mean_rows(report).items() if asked != QUESTION]
    return table(["model", *lengths], ours + published_rows(report["cells"], tasks, lengths))


def published_rows(cells: Sequence[Report], tasks: Sequence[str], lengths: Sequence[str]) -> list[list[str]]:
    """The published means over these tasks at each length, as far as there are any; `cells` have tasks and lengths."""
    anchors = _anchors({"cells": cells})
    rows = [[f"{row.model} ({row.table})", *(row.mean(tasks, length) for length in lengths)] for row in anchors]
    return [row for row in rows if any(row[1:])]


def _qa1(main: Report, far: Report) -> list[str]:
    cells = main_cells(main) | main_cells(far)
    lengths = ordered(length for _, task, length in cells if task == "qa1")
    rows = [[model, *(interval(cells.get((model, "qa1", length))) for length in lengths)] for model in main["models"]]
    picture = f"![Right answers of qa1 by length]({QA1_FILE})"
    return ["## qa1 up to the longest texts", table(["model", *lengths], rows), picture]


def _controls(report: Report) -> list[str]:
    lengths = lengths_of(report)
    text = (
        "Means over tasks, of fewer samples than above: the memory reset at each segment, not written after half of "
        "the text, and exchanged for that of another story."
    )
    found = [[*who, *values(row, lengths)] for who, row in mean_rows(report).items() if who[0] != CONSTANT]
    return ["## Controls", text, table(["model", "condition", *lengths], found, 2)]


def _paired(tests: dict[str, Any]) -> str:
    rows = []
    for name, cells in tests.items():
        whole = cells[-1]
        shares = [f"{100 * whole[which] / whole['n']:.1f}" for which in ("first", "second")]
        rows.append([name, f"{whole['n']}", *shares, f"{whole['only_first']}", f"{whole['only_second']}"])
        rows[-1].append(p_value(whole["p"]))
    header = ["LM2 against", "n", "LM2, %", "the other, %", "only LM2", "only the other", "p"]
    return table(header, rows)


def _training(found: dict[str, Any]) -> str:
    """Equal tokens, and what held-out rows say at equal time."""
    training = found["training"]
    base, header = training["base"], ["", *(NAMES[name] for name in SHOWN)]
    facts = {
        "parameters": [f"{training[name]['parameters']:,}" for name in SHOWN],
        "learning rate": [f"{training[name]['rate']:g}" for name in SHOWN],
        "steps": [f"{training[name]['steps']:,}" for name in SHOWN],
        "tokens": [f"{training[name]['tokens']:,}" for name in SHOWN],
        "commit of the training": [(training[name].get("commit") or "unknown")[:7] for name in SHOWN],
        "processor seconds": [f"{training[name]['validation'][-1]['seconds']:,.0f}" for name in SHOWN],
        "held-out rows, all tokens": [percent(training[name]["validation"][-1]["accuracy"]) for name in SHOWN],
        "held-out rows, equal time": [_at_equal_time(training[name]) for name in SHOWN],
    }
    text = (
        f"All start from one backbone of {base['parameters']:,} parameters, trained on {base['tokens']:,} tokens of "
        "single segments, and read the same rows; beside them LM2 reads background alone, on which its writes have "
        "their price, and the others as many tokens in more steps. At every fourth step the plain model reads its rows "
        "cut into segments. Held-out rows: right answers in %. Equal time: when the first training was done "
        f"({found['equal_seconds']:,.0f} processor seconds), the others before their rate had fallen."
    )
    return f"{text}\n\n{table(header, [[name, *values] for name, values in facts.items()])}"


def _at_equal_time(training: dict[str, Any]) -> str:
    found = training["at_equal_seconds"]
    return "-" if found is None else percent(found["accuracy"])


def _search(training: dict[str, Any]) -> str:
    rates = list(training[SHOWN[0]]["search"])
    rows = [[NAMES[n], *(f"{training[n]['search'][rate]['loss']:.3f}" for rate in rates)] for n in SHOWN]
    return table(["", *rates], rows)


def qa1_of(report: Report) -> Report:
    """The report's qa1 alone, whose means are its cells."""
    means = [
        {**{name: c[name] for name in ("model", "condition", "length")}, "mean": c["accuracy"]}
        for c in report["cells"]
        if c["task"] == "qa1"
    ]
    return {**report, "cells": [c for c in report["cells"] if c["task"] == "qa1"], "means": means}


def _curves(*reports: Report) -> Report:
    """What is drawn of reports together: no line for the question alone."""
    first = reports[0]
    means: Sequence[Report] = [m for report in reports for m in report["means"] if m["condition"] != QUESTION]
    return {**first, "cells": [c for report in reports for c in report["cells"]], "means": means}
