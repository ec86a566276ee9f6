"""What a look found, as JSON values and as tables in the terminal."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm2.analysis.figure import shrink
from lm2.analysis.results import Answer, Look, Place

SHOWN = 10
"""Places in the table of what was written most."""


def record(found: Look) -> dict[str, Any]:
    """Everything, as JSON values; what was written to the slots in the columns that the picture has."""
    answers = [{**asdict(answer), "read_P": answer.read_P.round(6).tolist()} for answer in found.answers]
    return {
        "tokens": found.tokens,
        "segment_length": found.segment_length,
        "layers": found.layers,
        "floor": found.floor,
        "answers": answers,
        "places": [asdict(place) for place in found.places],
        "mass": shrink(found.mass_BSN).round(4).tolist(),
    }


def show(found: Look, console: Console) -> None:
    """Print what was written most, or what was read for each question."""
    console.print(found.summary(), highlight=False)
    if not found.answers:
        console.print(_most_written(found))
    for answer in found.answers:
        console.print(f"\n{_line(answer)}", highlight=False, markup=False, style="bold")
        console.print(_most_read(found, answer))


def _line(answer: Answer) -> str:
    return f"{answer.question.strip()} {answer.text.strip()}   (probability {answer.probability:.3f})"


def _most_written(found: Look) -> Table:
    table = _table("written", "tokens ago", "what was written, after what")
    order = sorted(range(len(found.places)), key=lambda i: -found.places[i].written)
    for i in order[:SHOWN]:
        place = found.places[i]
        table.add_row(f"{place.written:.2f}", f"{found.tokens - place.first:,}", _passage(place))
    return table


def _most_read(found: Look, answer: Answer) -> Table:
    """The places that were tried, and what the answer is without them."""
    table = _table("read", "written", "tokens ago", "without it", "what was written, after what")
    for cells, note, place in rows(found, answer):
        table.add_row(*cells, Text(note, style="italic") + (_passage(place) if place else Text()))
    return table


def rows(found: Look, answer: Answer) -> Iterator[tuple[list[str], str, Place | None]]:
    """The table of a question: read, written, tokens ago, the probability without it; a note; and a place or none."""
    for one in answer.tried:
        place = found.places[one.place]
        numbers = [f"{100 * answer.read_P[one.place]:.1f} %", f"{place.written:.2f}", f"{found.tokens - place.first:,}"]
        yield [*numbers, f"{one.probability:.3f}"], "control: " if one.control else "", place
    n = sum(not one.control for one in answer.tried)
    if n > 1:
        yield ["", "", "", f"{answer.together:.3f}"], f"the first {n} together", None
    yield ["", "", "", f"{answer.nothing_written:.3f}"], "nothing written at all", None
    yield [f"{100 * answer.start:.1f} %", "", "", ""], "what the slots began with", None


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns[:-1]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


def _passage(place: Place) -> Text:
    """The text before a place, and its tokens in brackets."""
    before = " ".join(place.before.split())
    space = " " if place.before[-1:].isspace() or place.text[:1].isspace() else ""
    return Text(before + space) + Text(f"[{' '.join(place.text.split())}]", style="bold")
