"""The Markdown page of a BABILong report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lm2.environment import in_words
from lm2.evaluation.anchors import LEADERBOARD, PAPER, anchors, source
from lm2.evaluation.controls import MAIN, QUESTION
from lm2.evaluation.report import CONSTANT, lengths_of, mean_rows, tasks_of

DASH = "too long"
SHOWN = (*MAIN, QUESTION)
"""Conditions of the tables by task; the controls have a table of their own."""
RULES = {
    "official": "the label rule of the BABILong tables; in qa7 it judges every `none` wrong",
    "word": "the official rule with whole words, which repairs qa7",
    "exact": "the output is the answer",
    "substring": "the answer occurs in the output",
}


@dataclass(frozen=True)
class Published:
    """A published model: percent by (task, length), and what the table says of itself."""

    table: str
    model: str
    percent: dict[tuple[str, str], float]

    def mean(self, tasks: Sequence[str], length: str) -> str:
        """The mean over these tasks; nothing where one of them was not published."""
        found = [self.percent[task, length] for task in tasks if (task, length) in self.percent]
        return f"{sum(found) / len(found):.1f}" if len(found) == len(tasks) else ""


def published(report: dict[str, Any]) -> list[Published]:
    """The published models that have a number for a cell of the report."""
    tasks, lengths = tasks_of(report), lengths_of(report)
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for anchor in anchors():
        if anchor.task in tasks and anchor.length in lengths:
            found.setdefault((anchor.table, anchor.model), {})[anchor.task, anchor.length] = anchor.percent
    return [Published(table, model, percent) for (table, model), percent in found.items()]


def markdown(report: dict[str, Any], beside: Sequence[Published] = ()) -> str:
    """The whole page, with published numbers `beside` ours."""
    parts = [
        "# BABILong",
        _explanation(report),
        "## Means over tasks",
        _means(report, beside),
        "## By task",
        *_tasks(report, [row for row in beside if row.table == PAPER]),
        "## Controls",
        "Means over tasks. What a memory adds is the difference between carried and reset; exchanged should fall to "
        "reset, for the last segment stays the sample's own.",
        _controls(report),
        "## By distance",
        "Right answers by the number of tokens between the farthest fact that the answer needs and the end of the "
        "text, all tasks and lengths together.",
        _distances(report),
        "## How",
        _how(report, beside),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _explanation(report: dict[str, Any]) -> str:
    n = sorted({cell["n"] for cell in report["cells"]})
    samples = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return (
        f"Right answers in %, in brackets 95 % intervals (Wilson). Rule: {report['rule']} ({RULES[report['rule']]}). "
        f"{samples} samples a cell, the same ones for every model (its first ones where it was asked fewer); the JSON "
        "file has the numbers of all four rules. Constant answer: the best answer that is always the same. Question "
        "only: asked without the text."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table; columns after the first `text_columns` stand on the right."""
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def percent(share: float | None) -> str:
    """A share in percent, or that a sample was too long."""
    return DASH if share is None else f"{100 * share:.1f}"


def interval(row: dict[str, Any] | None) -> str:
    """An accuracy and its interval, as in "97.5 (95-99)"."""
    if row is None:
        return ""
    if row["accuracy"] is None:
        return DASH if "too_long" not in row else f"{DASH}: {row['too_long']} of {row['n']}"
    return f"{100 * row['accuracy']:.1f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


def _means(report: dict[str, Any], beside: Sequence[Published]) -> str:
    lengths, found = lengths_of(report), mean_rows(report)
    tasks = tasks_of(report)
    kinds = [("mean", "all")] + ([("mean_without_qa7", "without qa7")] if "qa7" in tasks and len(tasks) > 1 else [])
    rows = [
        [_label(model, condition), label, *values(row, lengths, kind)]
        for (model, condition), row in found.items()
        if condition in SHOWN
        for kind, label in kinds
    ]
    theirs = [[f"{row.model} ({row.table})", "all", *(row.mean(tasks, n) for n in lengths)] for row in beside]
    return f"Tasks: {', '.join(tasks)}.\n\n" + table(
        ["model", "tasks", *lengths], rows + [row for row in theirs if any(row[2:])], 2
    )


def _label(model: str, condition: str) -> str:
    return f"{model}, question only" if condition == QUESTION else model


def values(row: dict[str, dict[str, Any]], lengths: list[str], kind: str = "mean") -> list[str]:
    """The means of a row of `mean_rows`; nothing where it has none."""
    return [percent(row[length][kind]) if length in row else "" for length in lengths]


def _tasks(report: dict[str, Any], beside: Sequence[Published]) -> list[str]:
    return [part for task in tasks_of(report) for part in (f"### {task}", _task(report, task, beside))]


def _task(report: dict[str, Any], task: str, beside: Sequence[Published]) -> str:
    lengths = lengths_of(report)
    cells = [cell for cell in report["cells"] if cell["task"] == task and cell["condition"] in SHOWN]
    rows = [
        [_label(model, condition), *_row(cells, lengths, model, condition)]
        for model, condition in dict.fromkeys((cell["model"], cell["condition"]) for cell in cells)
    ]
    constant = {cell["length"]: cell for cell in report["constant"] if cell["task"] == task}
    rows.append([CONSTANT, *(_constant(constant.get(length)) for length in lengths)])
    theirs = [[f"{row.model} ({row.table})", *(row.mean([task], n) for n in lengths)] for row in beside]
    return table(["model", *lengths], rows + [row for row in theirs if any(row[1:])])


def _row(cells: list[dict[str, Any]], lengths: list[str], model: str, condition: str) -> list[str]:
    own = {cell["length"]: cell for cell in cells if (cell["model"], cell["condition"]) == (model, condition)}
    return [interval(own.get(length)) for length in lengths]


def _constant(cell: dict[str, Any] | None) -> str:
    return "" if cell is None else f"{100 * cell['accuracy']:.1f} {cell['answer']}"


def _controls(report: dict[str, Any]) -> str:
    lengths, found = lengths_of(report), mean_rows(report)
    memories = {model for model, condition in found if condition == "carried"}
    if not memories:
        return "No model of this report has a memory."
    rows = [[m, c, *values(row, lengths)] for (m, c), row in found.items() if m in memories]
    return table(["model", "condition", *lengths], rows, 2)


def _distances(report: dict[str, Any]) -> str:
    bins = sorted({(row["from"], row["below"]) for row in report["distance"]})
    header = ["model", "condition", *(f"{low:,} to {below - 1:,}" for low, below in bins)]
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in report["distance"]:
        found.setdefault((row["model"], row["condition"]), {})[row["from"]] = row
    rows = [
        [*who, *(f"{interval(row[low])}, {row[low]['n']}" if low in row else "" for low, _ in bins)]
        for who, row in found.items()
    ]
    return table(header, rows, 2) if bins else "The distances of these samples are not known."


def _how(report: dict[str, Any], beside: Sequence[Published]) -> str:
    lines = [
        f"* Samples: {_facts(report['samples'])}",
        f"* Prompt: {_facts(report['prompt'])}",
        *(f"* {name}: {_facts(model)}" for name, model in report["models"].items()),
        f"* {in_words(report['environment'])}",
        *(f"* {table}: {source(table)}" for table in (PAPER, LEADERBOARD) if any(r.table == table for r in beside)),
    ]
    return "\n".join(lines)


def _facts(values: dict[str, Any]) -> str:
    return "; ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in values.items() if value is not None)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, (int, float)) and abs(value) >= 10_000 else str(value)
