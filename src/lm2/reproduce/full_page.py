"""The page of a full reproduction, its JSON file and its picture: means over seeds with their intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from lm2.environment import with_one_thread
from lm2.evaluation.figure import draw_curves
from lm2.evaluation.page import interval, table
from lm2.evaluation.report import ordered
from lm2.evaluation.statistics import t_interval
from lm2.files import by_rows, write_text
from lm2.reproduce.full import FOLDER, Shares, curves_of, mean_of, over_seeds
from lm2.reproduce.page import CURVES_FILE, PAGE_FILE, RESULTS_FILE, published_rows
from lm2.reproduce.results import SHOWN
from lm2.reproduce.sizes import NAMES


def save(out: Path, found: dict[str, Any]) -> list[Path]:
    """Write page, numbers and picture; their paths."""
    folder = out / FOLDER
    texts = {PAGE_FILE: page(found), RESULTS_FILE: by_rows(found) + "\n"}
    for name, text in texts.items():
        write_text(folder / name, text)
    draw_curves(curves_of(cells_of(found, _sets(found)[0])), folder / CURVES_FILE)
    return [folder / name for name in (*texts, CURVES_FILE)]


def show(found: dict[str, Any], console: Console) -> None:
    """Print the claims and the means."""
    together, _, others = _sets(found)
    parts = [_claims(found), _means(cells_of(found, together)), _means(cells_of(found, others, "word"))]
    console.print(Markdown("\n\n".join(parts)))


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    together, alone, others = _sets(found)
    whole, single = cells_of(found, together), {k: v for t in alone for k, v in cells_of(found, t).items()}
    other = cells_of(found, others, "word")
    parts = [
        "# BABILong on a processor: several seeds, each task alone, qa6 to qa10",
        _how(found),
        "## The claim",
        f"Over {together} and {', '.join(found['claimed'])}, official rule, each seed for itself.",
        _claims(found),
        f"## {together} learned together",
        "Means over tasks, official rule. The published models are far larger.",
        _means(whole),
        f"![Means over tasks and seeds by length, shaded from the lowest seed to the highest]({CURVES_FILE})",
        "## qa1 up to the longest texts",
        _qa1({together: whole, "qa1": single}),
        "## Each task alone",
        f"Means over {', '.join(found['claimed'])}, official rule, of models that learned all tasks together and of "
        "those that learned one, from a backbone of its own and with half of the steps; differences are of a seed.",
        _alone(whole, single, found["claimed"]),
        f"## {others} learned together",
        "Repaired rule, for the official one judges every `none` of qa7 wrong; by that one: the pages of the runs. The "
        "constant answer is the best one, chosen knowing the samples.",
        "### Means over tasks",
        _means(other),
        *(part for task in ordered(t for _, t, _ in other) for part in (f"### {task}", _task(other, task))),
        "## Runs",
        _runs(found),
    ]
    return "\n\n".join(parts) + "\n"


def _sets(found: dict[str, Any]) -> tuple[str, list[str], str]:
    """The names of the tasks that are learned together, of those alone, and of the others together."""
    together, *alone, others = dict.fromkeys(cell["tasks"] for cell in found["cells"])
    return together, alone, others


def cells_of(found: dict[str, Any], tasks: str, rule: str = "official") -> Shares:
    """The shares of a set of tasks."""
    own = [cell for cell in found["cells"] if (cell["tasks"], cell["rule"]) == (tasks, rule)]
    return {(cell["model"], cell["task"], cell["length"]): cell["shares"] for cell in own}


def _how(found: dict[str, Any]) -> str:
    samples = found["samples"]
    smoke = "**A smoke run: its numbers mean nothing.** " if found["smoke"] else ""
    return (
        f"{smoke}Right answers in %, means over seeds {', '.join(map(str, found['seeds']))}, in brackets their 95 % "
        f"intervals (Student's t). Questions: {samples['questions']}; background: {samples['background']}; "
        f"{with_one_thread(found['environment'])}. A dash: not asked, or some text was too long. Every run has a page "
        "of its own, below."
    )


def _claims(found: dict[str, Any]) -> str:
    """A claim in a row, with the numbers of each seed."""
    by_text: dict[str, list[dict[str, Any]]] = {}
    for claim in found["claims"]:
        by_text.setdefault(claim["text"], []).append(claim)
    rows = []
    for text, ones in by_text.items():
        numbers = "; ".join(f"seed {one['seed']}: {one['numbers']}" for one in ones)
        rows.append([text, f"{sum(one['met'] for one in ones)} of {len(ones)}", numbers])
    return table(["claim", "seeds that meet it", "numbers by seed"], rows, 3)


def _means(cells: Shares) -> str:
    """Means over tasks, at the lengths at which each was asked."""
    asked: dict[str, set[str]] = {}
    for _, task, length in cells:
        asked.setdefault(task, set()).add(length)
    return _by_length(cells, ordered(asked), ordered(set.intersection(*asked.values())))


def _task(cells: Shares, task: str) -> str:
    return _by_length(cells, [task], ordered(length for _, own, length in cells if own == task))


def _by_length(cells: Shares, tasks: Sequence[str], lengths: Sequence[str]) -> str:
    ours = [[model, *_row(cells, model, tasks, lengths)] for model in _models(cells)]
    asked = [{"task": task, "length": length} for task in tasks for length in lengths]
    return table(["model", *lengths], ours + published_rows(asked, tasks, lengths))


def _qa1(sets: dict[str, Shares]) -> str:
    """qa1 by length, of models that learned these sets of tasks."""
    lengths = ordered(length for cells in sets.values() for _, task, length in cells if task == "qa1")
    rows = [[m, name, *_row(cells, m, ["qa1"], lengths)] for name, cells in sets.items() for m in _models(cells)]
    return table(["model", "learned", *lengths], rows, 2)


def _models(cells: Shares) -> list[str]:
    return list(dict.fromkeys(model for model, *_ in cells))


def _row(cells: Shares, model: str, tasks: Sequence[str], lengths: Sequence[str]) -> list[str]:
    """The model's mean over tasks at each length."""
    found = [[cells[k] for task in tasks if (k := (model, task, length)) in cells] for length in lengths]
    return [_mean(own) if len(own) == len(tasks) else "-" for own in found]


def _mean(cells: Sequence[Sequence[float]]) -> str:
    return interval(over_seeds(mean_of(cells)))


def _alone(whole: Shares, single: Shares, lengths: Sequence[str]) -> str:
    rows = []
    for task in ordered(task for _, task, _ in single):
        for model in _models(single):
            keys = [(model, task, length) for length in lengths]
            if all(key in whole and key in single for key in keys):
                together, own = (mean_of([cells[key] for key in keys]) for cells in (whole, single))
                rows.append([task, model, _mean([together]), _mean([own]), _difference(own, together)])
    return table(["task", "model", "together", "alone", "difference"], rows, 2)


def _difference(own: Sequence[float], together: Sequence[float]) -> str:
    by_seed = [100 * (a - b) for a, b in zip(own, together, strict=True)]
    low, high = t_interval(by_seed)
    return f"{sum(by_seed) / len(by_seed):+.1f} ({low:+.1f} to {high:+.1f})"


def _runs(found: dict[str, Any]) -> str:
    rows = [
        [
            f"[{run['name']}]({(Path('..') / run['folder'] / PAGE_FILE).as_posix()})",
            *(f"{run['tokens'][name]:,}" for name in ("base", SHOWN[0])),
            *(f"{run['rates'][name]:g}" for name in SHOWN),
        ]
        for run in found["runs"]
    ]
    header = ["run", "tokens of the backbone", "of each model", *(f"rate of {NAMES[name]}" for name in SHOWN)]
    return table(header, rows)
