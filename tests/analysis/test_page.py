"""The page, the picture and the tables of a look."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from lm2.analysis import figure, page, report
from lm2.analysis.results import Answer, Asked, Look, Place, Tried

EVIL = "<script>alert('&\"')</script>"


def a_look(places: int = 3, segments: int = 5) -> Look:
    return Look(
        places=[
            Place(f"{EVIL} before {i} ", f"[b]{i}{EVIL}", 1000 * i + 50, 7 * i, 2, 0, 0.5, False) for i in range(places)
        ],
        tokens=7 * places + 10,
        floor=0.01,
        segment_length=4,
        layers=[1, 3],
        mass_BSN=np.random.default_rng(0).random((2, segments, 6)),
        answers=[
            Answer(
                f"Where{EVIL}?",
                f"there {EVIL}",
                0.875,
                0.125,
                0.25,
                [Tried(1, 0.375, False), Tried(0, 0.625, False), Tried(2, 0.8125, True)],
                np.linspace(0.3, 0, places),
                0.4,
                [Asked(EVIL, 1.5, 1, 0.6), Asked("?", 0.0, None, 0.0)],
            )
        ],
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_the_page_shows_texts_as_they_are_and_fetches_nothing():
    html = page.page(a_look(), f"model {EVIL}", b"picture")
    tags = read(html)
    assert "script" not in tags.tags
    assert tags.text.count(f"[b]1{EVIL}") == 2  # in the table and in the text
    assert "http" not in html
    assert tags.tags.count("img") == 1
    for number in ("0.875", "0.375", "0.625", "0.812", "0.250", "0.125", "40.0 %"):
        assert number in tags.text


def test_of_many_places_those_read_or_written_most_are_shown():
    found = a_look(places=page.MOST + 7)
    last = found.places[-1]
    found.places[-1] = replace(last, written=1.0)
    html = page.page(found, "model", b"")
    assert html.count("<mark") == page.MOST + 3
    assert f"{page.MOST:,} of {page.MOST + 7:,} places are shown" in html
    assert f"[b]{page.MOST + 6}" in html


def test_text_between_places_is_shown_once_and_what_is_left_out_is_counted():
    before = ["Mary left. ", "Mary left. John ", "Ada came. "]
    at = [11, 16, 500]
    places = [Place(before[i], f"<{i}>", at[i], 10 * i, 2, 3, 0.5, False) for i in range(3)]
    places[1] = replace(places[1], at=at[1] + 3)
    html = page.page(replace(a_look(), places=places, answers=[], tokens=40), "model", b"")
    assert read(html).text.split("read most.", 1)[1].split() == [
        *("Mary", "left.", "<0>"),
        *("John", "<1>", "…", "5", "tokens", "…", "Ada", "came.", "<2>", "…", "18", "tokens"),
    ]


def test_the_numbers_are_json_values():
    found = a_look()
    values = json.loads(json.dumps(report.record(found)))
    assert values["answers"][0]["read_P"] == pytest.approx(found.answers[0].read_P.tolist(), abs=1e-6)
    assert values["places"][1]["text"] == f"[b]1{EVIL}"
    assert np.array(values["mass"]) == pytest.approx(found.mass_BSN, abs=1e-4)


def test_tables_show_texts_as_they_are():
    def shown(found: Look) -> str:
        console = Console(file=StringIO(), width=300)
        report.show(found, console)
        return console.file.getvalue()  # ty: ignore[unresolved-attribute]

    found = a_look()
    text = shown(found)
    assert f"{EVIL} before 1 [[b]1{EVIL}]" in text
    for number in ("15.0 %", "0.375", "0.625", "0.812", "0.250", "0.125", "40.0 %", "(probability 0.875)"):
        assert number in text
    alone = shown(replace(found, answers=[]))
    assert "6 of them were written (rho above 0.01), in 3 places" in alone
    assert alone.count("[b]") == 3


def test_places_of_which_nothing_was_read_are_not_marked(tmp_path):
    found = a_look()
    (answer,) = found.answers
    for read, marked in (([0.0, 0.2, 0.0], {1}), ([0.0, 0.0, 0.0], set())):
        asked = replace(found, answers=[replace(answer, read_P=np.array(read))])
        assert asked.read_most() == marked
        assert page.page(asked, "model", b"").count("<mark class=read") == len(marked) + 2  # two places were tried
        figure.draw(asked, tmp_path / "it.png")  # a panel without marks has room, or matplotlib would warn


@pytest.mark.parametrize("segments", [0, 1, figure.COLUMNS, figure.COLUMNS + 1, 5 * figure.COLUMNS + 3])
def test_the_picture_has_every_write_in_a_column(segments, tmp_path):
    mass_BSN = np.zeros((2, segments, 6))
    mass_BSN[:, -1:, 2] = 0.75
    columns = figure.shrink(mass_BSN)
    assert columns.shape[1] <= figure.COLUMNS
    assert columns.max(initial=0) == (0.75 if segments else 0)
    figure.draw(replace(a_look(), mass_BSN=mass_BSN), tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
