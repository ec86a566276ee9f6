"""The retrofit of docs/results/retrofit_smollm2.md: its held-out passages, and what was measured on them.

    python benchmarks/retrofit_smollm2.py passages --books books --out passages.jsonl
    python benchmarks/retrofit_smollm2.py report --runs runs --evaluations eval --out docs/results/retrofit_smollm2.json

The commands between the two are on that page. A passage begins with a paragraph; those of a book of the validation or
the test split are evenly spaced.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lm2.evaluation.canvas import new_figure, save
from lm2.evaluation.statistics import t_interval
from lm2.files import write_json, write_text

PHASES = ("memory", "all")
PAIRS = {"lm2": "control", "memory-only": "base"}
"""Each evaluated model, and the one without memory that was trained the same way: the second not at all."""


@dataclass(frozen=True)
class Passages:
    """Cut the passages."""

    books: Path
    """Folder with validation.jsonl.gz and test.jsonl.gz"""
    out: Path
    """JSON lines, a passage each"""
    characters: int = 3000
    """Length of a passage"""
    per_book: int = 8
    """Passages of a book"""

    def run(self) -> None:
        lines = []
        for split in ("validation", "test"):
            with gzip.open(self.books / f"{split}.jsonl.gz", "rt", encoding="utf-8") as books:
                lines += [json.dumps(passage) for line in books for passage in self.of(json.loads(line))]
        write_text(self.out, "\n".join(lines) + "\n")
        print(f"{len(lines)} passages in {self.out}")

    def of(self, book: dict[str, Any]) -> list[dict[str, str]]:
        """The passages of one book."""
        text, found = book["text"], []
        for i in range(self.per_book):
            start = text.index("\n\n", int(len(text) * (i + 0.5) / self.per_book)) + 2
            found.append({"id": f"{book['id']}-{i}", "text": text[start : start + self.characters].strip()})
        return found


@dataclass(frozen=True)
class Report:
    """Compare the retrofit with its memory carried and reset, and with the control."""

    runs: Path
    """Folder with smollm2-lm2 and control, made by `lm2 train retrofit`"""
    evaluations: Path
    """Folder with lm2, control, memory-only and base, made by `lm2 eval perplexity`"""
    out: Path

    def run(self) -> None:
        pairs = {name: compare(self.evaluations, name, control) for name, control in PAIRS.items()}
        report = {
            **pairs,
            "training": {phase: lines(self.runs / "smollm2-lm2" / phase) for phase in PHASES},
            "control_training": lines(self.runs / "control" / "all"),
        }
        write_json(self.out, report)
        draw(report, self.out.with_suffix(".png"))
        print(json.dumps(pairs, indent=1))


def compare(folder: Path, name: str, control: str) -> dict[str, Any]:
    """A model with memory, itself with the memory reset, and its control, which reads each segment alone."""
    own, other = losses(folder / name), losses(folder / control)
    assert own.keys() == other.keys()
    pairs = [(own[key], other[key]) for key in sorted(own)]
    return {
        "documents": len(pairs),
        "later_reset_minus_carried": paired([later(a, "reset") - later(a, "carried") for a, _ in pairs]),
        "later_control_minus_carried": paired([later(b, "reset") - later(a, "carried") for a, b in pairs]),
        "first_control_minus_own": paired([b["reset"][0] - a["carried"][0] for a, b in pairs]),
        "by_segment": {
            "carried": by_segment([a["carried"] for a, _ in pairs]),
            "reset": by_segment([a["reset"] for a, _ in pairs]),
            "control": by_segment([b["reset"] for _, b in pairs]),
        },
    }


def losses(folder: Path) -> dict[int, dict[str, list[float]]]:
    """The losses of each document with more than one segment."""
    (file,) = folder.glob("answers/*/records.*.jsonl")
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    return {record["key"][0]: record["nll"] for record in found if len(record["nll"]["reset"]) > 1}


def later(nll: dict[str, list[float]], condition: str) -> float:
    return sum(nll[condition][1:]) / len(nll[condition][1:])


def paired(values: list[float]) -> dict[str, float]:
    low, high = t_interval(values)
    return {"mean": sum(values) / len(values), "low": low, "high": high, "better": sum(v > 0 for v in values)}


def by_segment(documents: list[list[float]]) -> list[float]:
    """The mean over the documents that have the segment."""
    columns = [[d[i] for d in documents if len(d) > i] for i in range(max(map(len, documents)))]
    return [sum(column) / len(column) for column in columns]


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = ("step", "loss", "tokens_per_second", "watch_carried", "watch_reset", "watch_loss_first", "train_runtime")
    return [{name: line[name] for name in kept if name in line} for line in found]


def draw(report: dict[str, Any], path: Path) -> None:
    figure = new_figure(10, 3.6)
    training, watching, segments = figure.subplots(1, 3)
    border, step = report["training"]["memory"][-1]["step"], 0
    for phase in PHASES:
        logged = report["training"][phase]
        training.plot(*points(logged, "loss", step), color="tab:blue", label="LM2" if step == 0 else None)
        for name, colour in (("watch_reset", "tab:orange"), ("watch_carried", "tab:green")):
            label = name.removeprefix("watch_") if step == 0 else None
            watching.plot(*points(logged, name, step), "o-", color=colour, label=label)
        step += logged[-1]["step"]
    training.plot(*points(report["control_training"], "loss", border), color="tab:grey", label="control")
    for name, style in (("control", "s:"), ("reset", "o--"), ("carried", "o-")):
        values = report["lm2"]["by_segment"][name]
        colour = {"control": "tab:grey", "reset": "tab:orange", "carried": "tab:green"}[name]
        segments.plot(range(1, len(values) + 1), values, style, color=colour, label=name)
    for axes in (training, watching):
        axes.axvline(border, color="lightgrey", zorder=0)
        axes.set_xlabel("step; behind the line the base too")
    training.set(title="training loss", ylabel="nats per token")
    watching.set(title="4 held-out rows, segments 2 to 8")
    segments.set(title=f"{report['lm2']['documents']} held-out passages", xlabel="segment")
    for axes in (training, watching, segments):
        axes.legend()
    save(figure, path)


def points(logged: list[dict[str, Any]], name: str, before: int) -> tuple[list[int], list[float]]:
    chosen = [(before + line["step"], line[name]) for line in logged if name in line]
    return [step for step, _ in chosen], [value for _, value in chosen]


if __name__ == "__main__":
    tyro.cli(
        Annotated[Passages, tyro.conf.subcommand("passages")] | Annotated[Report, tyro.conf.subcommand("report")]
    ).run()
