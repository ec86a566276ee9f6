"""The tables of the claim on the front page and on the index of results are what the reproduction's page measured."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from lm2.evaluation.compare import compare
from lm2.evaluation.report import save
from lm2.reproduce.results import main_cells

ROOT = Path(__file__).parents[2]
REPRODUCE = ROOT / "docs" / "results" / "reproduce"
RESULTS = REPRODUCE / "results.json"
SEEDS = [REPRODUCE / seed / "results.json" for seed in ("", "seed-1", "seed-2")]
BEFORE = sorted(REPRODUCE.glob("**/before-*/results.json"))
SEEDS_HEAD = "| mean of qa1-qa5, 1k to 8k | seed 0 | seed 1 | seed 2 | all |"
FRONT_HEAD = f"{SEEDS_HEAD} qa1 at 128k, all |"
LONG = [ROOT / "docs/results" / f"long_rows{seed}.json" for seed in ("", "_seed_1", "_seed_2")]
LONG_HEAD = "| rows of up to 64 segments: mean of qa1-qa5, 1k to 8k | seed 0 | seed 1 | seed 2 |"
HEAD = "| | mean of qa1-qa5, 1k to 8k | qa1 at 1k | at 8k | at 128k |"
NAMES = {
    "LM2": "LM2",
    "ARMT": "ARMT",
    "RMT": "RMT",
    "plain attention, last segment": "plain last 64",
    "plain attention, last 1,024 tokens": "plain last 1024",
    "plain attention, retrieval": "plain RAG",
    "retrieval": "plain RAG",
}
"""How a row of a table begins, and the model of the page that it is."""
CLAIMED = ("1k", "2k", "4k", "8k")
PUBLISHED = ("paper's", "leaderboard")


def own_rows(page: str, head: str = HEAD) -> dict[str, list[str]]:
    """The cells of the table's rows by model, without those that others published."""
    (table,) = re.findall(re.escape(head) + r"\n\|[-|: ]+\n((?:\|.*\n)+)", page)
    rows = {}
    for line in table.splitlines():
        name, *cells = (cell.strip().strip("*") for cell in line.strip("|").split("|"))
        if not any(word in name for word in PUBLISHED):
            rows[next(model for start, model in NAMES.items() if name.startswith(start))] = cells
    return rows


def test_the_claims_table_is_the_pages():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    cells = main_cells(results["reports"]["official"]) | main_cells(results["reports"]["far"])
    rows = own_rows((ROOT / "docs/results/README.md").read_text(encoding="utf-8"))
    assert rows.keys() == results["measured"]["means"].keys()
    for model, (mean, *by_length) in rows.items():
        measured = [results["measured"]["means"][model]]
        measured += [cells[model, "qa1", length]["accuracy"] for length in ("1k", "8k", "128k")]
        assert [float(cell) for cell in (mean, *by_length)] == pytest.approx([100 * m for m in measured], abs=0.0501)


@pytest.mark.parametrize(
    ("page", "head", "left_out"),
    [("README.md", FRONT_HEAD, {"plain last 1024"}), ("docs/results/README.md", SEEDS_HEAD, set())],
)
def test_the_seeds_means_are_their_pages(page: str, head: str, left_out: set[str]):
    seeds = [json.loads(path.read_text(encoding="utf-8")) for path in SEEDS]
    far_cells = [main_cells(seed["reports"]["far"]) for seed in seeds]
    rows = own_rows((ROOT / page).read_text(encoding="utf-8"), head)
    assert rows.keys() == seeds[0]["measured"]["means"].keys() - left_out
    for model, cells in rows.items():
        assert len(cells) == head.count("|") - 2
        means = [seed["measured"]["means"][model] for seed in seeds]
        far = fmean(cells_of[model, "qa1", "128k"]["accuracy"] for cells_of in far_cells)
        measured = [100 * m for m in (*means, fmean(means), far)]
        assert [float(cell) for cell in cells] == pytest.approx(measured[: len(cells)], abs=0.0501)


def test_the_means_with_longer_rows_are_those_of_their_files():
    rows = own_rows((ROOT / "docs/results/README.md").read_text(encoding="utf-8"), LONG_HEAD)
    for number, path in enumerate(LONG):
        by_model: dict[str, list[float]] = {}
        for row in json.loads(path.read_text(encoding="utf-8"))["report"]["means"]:
            if row["condition"] == "carried":
                by_model.setdefault(row["model"], []).append(100 * row["mean"])
        shown = {model: float(cells[number]) for model, cells in rows.items() if cells[number]}
        assert shown == pytest.approx({model: fmean(means) for model, means in by_model.items()}, abs=0.0501)


@pytest.mark.parametrize("path", [*SEEDS, *BEFORE, *LONG], ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_paired_tests_are_those_of_the_published_answers(path: Path, tmp_path: Path):
    found = json.loads(path.read_text(encoding="utf-8"))
    report = found["report"] if "report" in found else found["reports"]["official"]
    cells = [cell for cell in report["cells"] if cell["length"] in CLAIMED]
    save({**report, "cells": cells}, tmp_path / "report.json")
    for other, published in found["paired"].items():
        for cell, shown in zip(compare(tmp_path, tmp_path, "LM2", other)["cells"], published, strict=True):
            assert cell == {**shown, "p": pytest.approx(shown["p"], rel=1e-9)}


@pytest.mark.parametrize(
    ("name", "rows_of"),
    [
        ("lm2", ["LM2"]),
        ("rmt", ["RMT"]),
        ("armt", ["ARMT"]),
        ("plain", ["plain last 1024", "plain last 64", "plain RAG"]),
    ],
)
def test_the_cards_of_the_pages_models_have_the_pages_numbers(name: str, rows_of: list[str]):
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    cells = main_cells(results["reports"]["official"]) | main_cells(results["reports"]["far"])
    card = (ROOT / "models" / f"{name}-reproduce" / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"\| \| (0k .*)\|\n.*\n((?:\|.*\n)+)", card)
    for row_of, (head, body) in zip(rows_of, tables, strict=True):
        lengths = [cell.strip() for cell in head.split("|")]
        rows = re.findall(r"\| (qa[1-5]), [^|]+\|(.*)\|\n", body)
        found = {(task, n): cell.strip() for task, row in rows for n, cell in zip(lengths, row.split("|"), strict=True)}
        shown = {key: float(cell) for key, cell in found.items() if cell}
        measured = {(task, n): 100 * cell["accuracy"] for (model, task, n), cell in cells.items() if model == row_of}
        assert shown == pytest.approx(measured, abs=0.0501)
