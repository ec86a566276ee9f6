"""All numbers of a finished reproduction, as JSON values, from the files of its folder."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm2.environment import environment
from lm2.evaluation.compare import compare
from lm2.evaluation.controls import MAIN
from lm2.evaluation.engine import Asked
from lm2.evaluation.report import collect as report_of
from lm2.evaluation.report import save
from lm2.files import read_lines
from lm2.reproduce import asking, material, validation
from lm2.reproduce.claims import Measured, claims
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import CONTENDERS, MEMORIES, NAMES, Cells, Sizes
from lm2.reproduce.work import chosen_rate
from lm2.settings import published_settings
from lm2.training.folder import TRAINING_FILE

SHOWN = ("lm2", "rmt", "armt", "plain")
"""Contenders in the order of the tables."""
Report = dict[str, Any]


def collect(config: ReproduceConfig, sizes: Sizes) -> dict[str, Any]:
    """Everything that the page shows, and the reports of `lm2 eval babilong` that it is made from."""
    reports = reports_of(config, sizes)
    folder = asking.folder_of(config)
    for name, report in reports.items():
        save(report, folder / f"{name}.json")
    tests = paired(folder / "claimed.json", reports["claimed"])
    measured = measure(sizes, reports, tests)
    return {
        **published_settings(config.out),
        "environment": environment(),
        "claims": [asdict(claim) for claim in claims(measured)],
        "measured": asdict(measured),
        "paired": tests,
        "training": {name: training_of(config, sizes, name) for name in ("base", *SHOWN)},
        "equal_seconds": equal_seconds(config),
        "reports": reports,
    }


def reports_of(config: ReproduceConfig, sizes: Sizes) -> dict[str, Report]:
    """Reports by name: all cells under two rules, the far ones, those with controls, and those of the claim."""
    claimed = Cells(sizes.main.tasks, {length: sizes.main.samples[length] for length in sizes.claimed})
    source = material.samples(config)

    def report(cells: Cells, asked: list[Asked], rule: asking.Rule = "official") -> Report:
        return report_of(asking.cells_config(config, sizes, cells, ("all",), rule), source.description, asked)

    main = asking.answers(config, sizes, sizes.main, SHOWN, source)
    return {
        "official": report(sizes.main, main),
        "word": report(sizes.main, main, "word"),
        "far": report(sizes.far, asking.answers(config, sizes, sizes.far, SHOWN, source)),
        "controls": report(sizes.controls, asking.answers(config, sizes, sizes.controls, MEMORIES, source)),
        "claimed": report(claimed, [_within(one, sizes.claimed) for one in main]),
    }


def _within(asked: Asked, lengths: tuple[str, ...]) -> Asked:
    return asked._replace(records=[record for record in asked.records if record["key"][1] in lengths])


def paired(path: Path, report: Report) -> dict[str, Any]:
    """LM2 against each other model on the cells of the claim; not one that some sample was too long for."""
    too_long = {cell["model"] for cell in report["cells"] if cell["too_long"]}
    others = [name for name in report["models"] if name != "LM2" and name not in too_long]
    return {name: compare(path, path, "LM2", name)["cells"] for name in others}


def measure(sizes: Sizes, reports: dict[str, Report], tests: dict[str, Any]) -> Measured:
    """What the claims need."""
    window = asking.window_name(sizes)
    cells = main_cells(reports["official"]) | main_cells(reports["far"])
    beyond = {length for length in sizes.controls.lengths if length != "0k"}
    return Measured(
        means={model: _mean(reports["claimed"], model) for model in ("LM2", *tests)},
        qa1={model: _qa1(cells, model) for model in ("LM2", "RMT", "ARMT")},
        p={model: rows[-1]["p"] for model, rows in tests.items()},
        reset=_pooled([c for c in reports["controls"]["cells"] if c["condition"] == "reset"], "LM2", sizes, beyond),
        plain=_pooled([*main_cells(reports["official"]).values()], window, sizes, beyond),
        window=window,
    )


def main_cells(report: Report) -> dict[tuple[str, str, str], Report]:
    """The cells of models as they work, by (model, task, length)."""
    return {(c["model"], c["task"], c["length"]): c for c in report["cells"] if c["condition"] in MAIN}


def _mean(report: Report, model: str) -> float:
    rows = [row["mean"] for row in report["means"] if row["model"] == model and row["condition"] in MAIN]
    return sum(rows) / len(rows)


def _qa1(cells: dict[tuple[str, str, str], Report], model: str) -> dict[str, float]:
    return {length: c["accuracy"] for (m, task, length), c in cells.items() if (m, task) == (model, "qa1")}


def _pooled(cells: list[Report], model: str, sizes: Sizes, lengths: set[str]) -> tuple[int, int]:
    """(right, asked) in the tasks and lengths that have controls, on the samples that the controls were asked."""
    own = [c for c in cells if c["model"] == model and c["length"] in lengths and c["task"] in sizes.controls.tasks]
    right = [c["right"][: sizes.controls.samples[c["length"]]] for c in own]
    return "".join(right).count("1"), len("".join(right))


def training_of(config: ReproduceConfig, sizes: Sizes, name: str) -> dict[str, Any]:
    """What a model is and cost; of a contender also how it was chosen and how it did on held-out rows."""
    facts = json.loads((config.out / name / TRAINING_FILE).read_text(encoding="utf-8"))
    if name == "base":
        return facts
    search = {f"{rate:g}": validation.last(config.search_folder(name, rate)) for rate in sizes.rates}
    curve = read_lines(config.out / name / validation.VALIDATION_FILE)
    return {
        **facts,
        "rate": chosen_rate(config, sizes, name),
        "search": search,
        "validation": curve,
        "at_equal_seconds": validation.at_seconds(config.out / name, equal_seconds(config)),
        "name": NAMES[name],
    }


def equal_seconds(config: ReproduceConfig) -> float:
    """The processor seconds of the training that was done first."""
    return min(validation.last(config.out / name)["seconds"] for name in CONTENDERS)
