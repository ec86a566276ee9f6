"""The report of perplexity: perplexity.json, perplexity.md and perplexity.png from the records of documents."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm2.environment import environment, in_words
from lm2.evaluation.canvas import new_figure, save
from lm2.evaluation.figure import COLOURS, MARKERS
from lm2.evaluation.output import write_report
from lm2.evaluation.page import table
from lm2.evaluation.records import SCHEMA
from lm2.evaluation.statistics import t_interval

if TYPE_CHECKING:
    from lm2.evaluation.perplexity import PerplexityOptions

Asked = tuple[dict[str, Any], list[dict[str, Any]]]
STYLES = {"carried": "-", "full": "-", "reset": "--"}


def write(options: "PerplexityOptions", T: int, asked: Sequence[Asked]) -> None:
    """Write the three files, each whole or not at all, and print the table.

    Raises:
        ValueError: no document has a complete segment.
    """
    limit = math.inf if options.limit is None else options.limit
    kept = [(facts, [r for r in records if r["key"][0] < limit]) for facts, records in asked]
    if not any(records for _, records in kept):
        raise ValueError(f"no document of {options.text} has a whole segment of {T} tokens: give longer documents")
    report = {
        "schema": SCHEMA,
        **options.settings(T),
        "seed": "nothing is drawn",
        "scored": "the second to the last token of every complete segment",
        "environment": environment(),
        "models": [{**facts, **_results(records)} for facts, records in kept],
    }
    page = markdown(report)
    write_report(options.out, "perplexity", report, page)
    draw(report, options.out / "perplexity.png")
    print(page)


def _results(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    losses: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for condition, values in record["nll"].items():
            by_segment = losses.setdefault(condition, defaultdict(list))
            for number, value in enumerate(values, 1):
                by_segment[number].append(value)
    return {
        "documents": len(records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "nll": {
            condition: [
                {"segment": number, "documents": len(values), "nll": sum(values) / len(values)}
                for number, values in sorted(by_segment.items())
            ]
            for condition, by_segment in losses.items()
        },
        "gain": gain(records),
    }


def gain(records: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """What the memory saves: reset minus carried, nats per token, over the segments after the first.

    The mean over documents, with Student's 95 % interval when there are two or more; None without a memory.
    """
    saved = []
    for record in records:
        pairs = list(zip(record["nll"].get("reset", []), record["nll"].get("carried", []), strict=True))[1:]
        if pairs:
            saved.append(sum(reset - carried for reset, carried in pairs) / len(pairs))
    if not saved:
        return None
    found = {"nats": sum(saved) / len(saved), "documents": len(saved)}
    return found | (dict(zip(("low", "high"), t_interval(saved), strict=True)) if len(saved) > 1 else {})


def bins(last: int) -> list[tuple[int, int]]:
    """Segment numbers in doubling bins: 1, 2, 3-4, 5-8, ... up to `last`."""
    found, end = [(1, 1)], 1
    while end < last:
        found.append((end + 1, min(2 * end, last)))
        end *= 2
    return found


def pooled(rows: Sequence[dict[str, Any]], first: int, last: int) -> float | None:
    """Perplexity of segments `first` to `last`: exp of the mean loss over their tokens; None unless all were measured.

    A plain model ends at the length that it takes: a mean of fewer segments would stand beside another's of all.
    """
    chosen = [row for row in rows if first <= row["segment"] <= last]
    if len(chosen) < last - first + 1:
        return None
    n = sum(row["documents"] for row in chosen)
    return math.exp(sum(row["nll"] * row["documents"] for row in chosen) / n)


def measured(rows: Sequence[dict[str, Any]], first: int, last: int) -> str:
    """Documents that have segments `first` to `last`, from the fewest to the most."""
    found = sorted({row["documents"] for row in rows if first <= row["segment"] <= last})
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}-{found[-1]:,}"


def markdown(report: dict[str, Any]) -> str:
    """The page."""
    longest = max((rows for model in report["models"] for rows in model["nll"].values()), key=len)
    last = longest[-1]["segment"]
    spans = bins(last)
    header = ["model", "memory", *(f"{a}" if a == b else f"{a}-{b}" for a, b in spans), "all"]
    rows = [
        [model["name"], condition, *(_number(pooled(found, *span)) for span in [*spans, (1, last)])]
        for model in report["models"]
        for condition, found in model["nll"].items()
    ]
    rows.append(["documents", "", *(measured(longest, *span) for span in [*spans, (1, last)])])
    lines = [
        "# Perplexity by segment",
        f"Perplexity per token of {report['text']}, by the number of the segment in its document; segments of "
        f"{report['segment_length']:,} tokens. Scored: {report['scored']}. Reset: each segment alone. Full: a plain "
        "model under full attention, up to the length that it takes. The last row: how many documents have these "
        "segments; where they are fewer, they are the longer ones.",
        table(header, rows, 2),
        *(_gain_line(model) for model in report["models"] if model["gain"]),
        "\n".join(
            [
                *(
                    f"* {model['name']}: {model['source']}, a {model['type']} of {model['parameters']:,} parameters, "
                    f"{model['documents']} documents, {model['dtype']} on {model['device']}, "
                    f"{model['seconds']:,.0f} seconds; fingerprint {model['fingerprint']}"
                    for model in report["models"]
                ),
                f"* {in_words(report['environment'])}",
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _gain_line(model: dict[str, Any]) -> str:
    gained = model["gain"]
    interval = f" (95 %: {gained['low']:.4f} to {gained['high']:.4f})" if "low" in gained else ""
    return (
        f"{model['name']}: carrying the memory saves {gained['nats']:.4f} nats per token{interval} after the first "
        f"segment, over {gained['documents']} documents."
    )


def _number(perplexity: float | None) -> str:
    return "" if perplexity is None else f"{perplexity:,.2f}"


def draw(report: dict[str, Any], path: Any) -> None:
    """Write the curves. Needs matplotlib (extra `plot`)."""
    figure = new_figure(8, 4.8)
    axes = figure.add_subplot()
    for number, model in enumerate(report["models"]):
        for condition, rows in model["nll"].items():
            axes.plot(
                [row["segment"] for row in rows],
                [math.exp(row["nll"]) for row in rows],
                STYLES[condition],
                marker=MARKERS[number % len(MARKERS)],
                ms=4,
                color=COLOURS[number % len(COLOURS)],
                label=f"{model['name']}, {condition}",
            )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(f"number of the segment ({report['segment_length']:,} tokens each)")
    axes.set_ylabel("perplexity per token")
    axes.grid(axis="y", color="0.88", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)
