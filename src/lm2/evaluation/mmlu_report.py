"""The report of MMLU: mmlu.json and mmlu.md from the records of a folder."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lm2.environment import environment, in_words
from lm2.evaluation.anchors import paper_mmlu, source
from lm2.evaluation.output import write_report
from lm2.evaluation.page import interval, table
from lm2.evaluation.records import SCHEMA
from lm2.evaluation.statistics import Z95, wilson
from lm2.evaluation.subjects import GROUPS, SUBJECTS, paper_rows

if TYPE_CHECKING:
    from lm2.evaluation.mmlu import MmluOptions

Asked = tuple[dict[str, Any], dict[str, dict[str, Any]]]
"""A model's description, and its record of each subject."""
MEAN = "Mean of the eight rows"
Counts = dict[str, tuple[int, int]]
"""Subject -> (right, questions)."""
PAPER_NAMES = {"Social sciences": "Social Sciences", "Other": "Others", "High school": "High School"}
PAPER_NAMES |= {"General knowledge": "General", MEAN: "Average"}
"""What the published table calls the rows that have another name here."""


@dataclass(frozen=True)
class Line:
    """One line of a table: accuracy with its 95 % interval, and the questions it stands on."""

    accuracy: float
    low: float
    high: float
    n: int


def pooled(counts: Counts, subjects: Sequence[str]) -> Line | None:
    """Accuracy over all questions of the subjects, and Wilson's interval; None if none was asked."""
    right, n = (sum(counts[subject][i] for subject in subjects if subject in counts) for i in (0, 1))
    return Line(right / n, *wilson(right, n), n) if n else None


def standard_lines(counts: Counts) -> dict[str, Line | None]:
    """The harness's four groups and the whole, each over its questions."""
    return {**{name: pooled(counts, group) for name, group in GROUPS.items()}, "All": pooled(counts, SUBJECTS)}


def paper_lines(counts: Counts, general: Sequence[str]) -> dict[str, Line | None]:
    """The paper's eight rows and their plain mean; the mean is None unless every row has questions."""
    rows = paper_rows(general)
    lines = {name: pooled(counts, subjects) for name, subjects in rows.items()}
    whole = [line for line in lines.values() if line is not None]
    mean = _mean_of_rows(counts, rows, whole) if len(whole) == len(rows) else None
    return {**lines, MEAN: mean}


def _mean_of_rows(counts: Counts, rows: dict[str, tuple[str, ...]], lines: Sequence[Line]) -> Line:
    """The mean, and a normal interval that knows that a subject stands in several rows.

    var = sum over subjects of n v (sum over its rows of 1 / (8 n_row))^2          v: see `_variance`
    """
    mean, variance = sum(line.accuracy for line in lines) / len(lines), 0.0
    all_right, all_n = (sum(column) for column in zip(*counts.values(), strict=True))
    for subject, (right, n) in counts.items():
        weight = sum(
            1 / (len(lines) * line.n) for line, row in zip(lines, rows.values(), strict=True) if subject in row
        )
        variance += n * (_variance(right, n) if n > 1 else _variance(all_right, all_n)) * weight**2
    half = Z95 * math.sqrt(variance)
    return Line(mean, max(0.0, mean - half), min(1.0, mean + half), all_n)


def _variance(right: int, n: int) -> float:
    """Of one answer, without bias: p (1 - p) n / (n - 1). One question alone shows none; all questions' is wider."""
    return right / n * (1 - right / n) * n / (n - 1)


def write(options: "MmluOptions", asked: Sequence[Asked]) -> None:
    """Write mmlu.json and mmlu.md, each whole or not at all, and print the tables."""
    found = [results_of(facts, options, records) for facts, records in asked]
    report = {
        "schema": SCHEMA,
        **options.settings(),
        "limit": options.limit,
        "seed": "nothing is drawn",
        "rule": "the letter with the highest log-likelihood",
        "general": list(options.general),
        "environment": environment(("lm_eval", "datasets")),
        "models": found,
    }
    page = markdown(report, anchors=options.anchors)
    write_report(options.out, "mmlu", report, page)
    print(page)


def results_of(facts: dict[str, Any], options: "MmluOptions", records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One model's numbers over the subjects and the number of questions asked for; records may have more of both."""
    subjects = {subject: records[subject] for subject in sorted(options.subjects)}
    answers = {s: {kind: r[kind][: options.limit] for kind in ("picks", "targets")} for s, r in subjects.items()}
    counts = {
        subject: (sum(p == t for p, t in zip(*both.values(), strict=True)), len(both["picks"]))
        for subject, both in answers.items()
    }
    lines = {"standard": standard_lines(counts), "paper": paper_lines(counts, options.general)}
    return {
        **facts,
        "inputs_cut": sum(r["inputs_cut"] for r in subjects.values()),
        "longest_input": max(r["longest_input"] for r in subjects.values()),
        "seconds": round(sum(r["seconds"] for r in subjects.values()), 1),
        **{kind: {n: asdict(v) if v else None for n, v in rows.items()} for kind, rows in lines.items()},
        "subjects": {subject: {"right": right, "n": n} for subject, (right, n) in counts.items()},
        "answers": answers,
    }


def markdown(report: dict[str, Any], *, anchors: bool = False) -> str:
    """The page."""
    models = report["models"]
    limit = f"the first {report['limit']} questions of each subject" if report["limit"] else "all questions"
    lines = [
        "# MMLU",
        "",
        f"Right answers in %, with 95 % intervals and the number of questions. {report['shots']} worked examples, "
        f"{limit}, from {report['data']}; the answer is {report['rule']}. Chance is 25.",
        "",
        "## The harness's groups: averages over questions",
        "",
        _table("group", "standard", models, ()),
        "",
        "## The LM2 paper's rows: four groups, then the same subjects by difficulty",
        "",
        "The paper's average is the plain mean of the eight rows, so each question counts twice: not comparable with "
        'the average above. "General knowledge" is not defined in the paper; here: '
        f"{_general(report['general'])}.",
        "",
        _table("row", "paper", models, paper_mmlu() if anchors else ()),
        "",
        "## How",
        "",
        *(_how(model) for model in models),
        f"* {in_words(report['environment'])}",
        *([f"* paper: {source('paper_mmlu')}"] if anchors else []),
    ]
    return "\n".join(lines) + "\n"


def _table(first: str, kind: str, models: Sequence[dict[str, Any]], anchors: Sequence[dict[str, Any]]) -> str:
    theirs = {row["category"]: row["percent"] for row in anchors}
    names = list(next(iter(theirs.values()))) if theirs else []
    rows = [
        [
            name,
            *(_cell(model[kind][name]) for model in models),
            *(f"{theirs[PAPER_NAMES.get(name, name)][other]:.1f}" for other in names),
        ]
        for name in models[0][kind]
    ]
    return table([first, *(model["name"] for model in models), *(f"paper: {name}" for name in names)], rows)


def _cell(line: dict[str, Any] | None) -> str:
    return "not asked" if line is None else f"{interval(line)}, {line['n']:,}"


def _general(general: Sequence[str]) -> str:
    named = sorted(general) != sorted(paper_rows()["General knowledge"])
    return ", ".join(general) if named else f"the {len(general)} subjects without a difficulty in their name"


def _how(model: dict[str, Any]) -> str:
    segment = f", segments of {model['segment_length']:,} tokens" if model["segment_length"] else ""
    return (
        f"* {model['name']}: {model['source']}, a {model['type']} of {model['parameters']:,} parameters{segment}, "
        f"{model['dtype']} on {model['device']}; {model['inputs_cut']} inputs cut, the longest had "
        f"{model['longest_input']:,} tokens; {model['seconds']:,.0f} seconds; fingerprint {model['fingerprint']}"
    )
