"""The demo's results as a Markdown page, `results.md`: both tables, the picture, what was trained and where."""

from typing import Any

from lm2.demo.config import DemoConfig
from lm2.demo.figure import FIGURE_FILE
from lm2.demo.recipe import CONTENDERS, NAMES
from lm2.demo.report import TITLES
from lm2.environment import with_one_thread
from lm2.evaluation.page import interval
from lm2.files import write_text

PAGE_FILE = "results.md"


def save_page(options: DemoConfig, results: dict[str, Any]) -> None:
    """Write results.md."""
    write_text(options.out / PAGE_FILE, page(results))


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    options = results["options"]
    texts = "real bAbI in real books" if options["babi"] else "simulated qa1 in generated sentences"
    parts = [
        f"Right answers in %, with 95 % intervals (Wilson); {texts}; seed {options['seed']}; "
        f"{with_one_thread(results['environment'])}."
    ]
    for where in ("earlier", "own"):
        rows = [row for row in results["accuracy"] if row["where"] == where]
        if rows:
            parts += [f"## {TITLES[where]}", accuracy_table(rows)]
    parts += [f"![Accuracy against distance]({FIGURE_FILE})", "## Training", _training_table(results["training"])]
    return "\n\n".join(parts) + "\n"


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """One line for each length, the best model in bold."""
    lines = [["segments", "tokens", "n", *(NAMES[name] for name in CONTENDERS), "best constant"]]
    for segments in dict.fromkeys(row["segments"] for row in rows):
        cells = {row["model"]: row for row in rows if row["segments"] == segments}
        first, best = cells[CONTENDERS[0]], max(row["accuracy"] for row in cells.values())
        shown = [interval(cells[name]) for name in CONTENDERS]
        bold = [
            f"**{text}**" if cells[n]["accuracy"] == best else text for n, text in zip(CONTENDERS, shown, strict=True)
        ]
        lines.append([f"{segments}", f"{first['tokens']:,}", f"{first['n']}", *bold, f"{100 * first['constant']:.1f}"])
    return _table(lines)


def _training_table(training: dict[str, dict[str, Any]]) -> str:
    names = ("base", *CONTENDERS)
    lines = [["", *("common base" if name == "base" else NAMES[name] for name in names)]]
    for fact in ("parameters", "steps", "tokens", "seconds", "evaluation_seconds"):
        values = (training[name].get(fact) for name in names)
        lines.append([fact.replace("_", " "), *("-" if value is None else f"{value:,}" for value in values)])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---:|" * len(lines[0]), *rest])
