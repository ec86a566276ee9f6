"""Options of the demo: what is refused, and what is asked."""

from pathlib import Path

import pytest

from lm2.demo.config import DemoConfig


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"babi": Path("b")}, ValueError, "they are b and None"),
        ({"books": Path("b")}, ValueError, "they are None and b"),
        ({"seed": -1}, ValueError, "--seed is -1: it must be 0 or more"),
        ({"scale": 0.0}, ValueError, r"above 0, it is 0\.0"),
        ({"scale": float("inf")}, ValueError, "a number above 0, it is inf"),
        ({"scale": float("nan")}, ValueError, "a number above 0, it is nan"),
        ({"questions": 3}, ValueError, "4 or more, it is 3"),
        ({"segments": (2, 2)}, ValueError, r"\(2, 2\)"),
        ({"segments": (0, 2)}, ValueError, r"\(0, 2\)"),
        ({"segments": ()}, ValueError, r"they are \(\)"),
        ({"segment_length": 23}, ValueError, "23: it must be 24 or more"),
        ({"babi": Path("no-babi"), "books": Path("no-books")}, FileNotFoundError, "no-babi"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        DemoConfig(**options).check()


def test_the_columns_are_own_and_earlier_but_one_segment_has_no_earlier():
    options = DemoConfig(segments=(4, 1, 256))
    assert options.columns() == [("own", 1), ("own", 4), ("earlier", 4), ("own", 256), ("earlier", 256)]
    assert [options.questions_at(n) for n in (1, 64, 256)] == [400, 400, 200]


def test_options_come_back_from_json(tmp_path):
    options = DemoConfig(out=tmp_path, seed=3, babi=tmp_path / "a", books=tmp_path / "b", scale=0.5, segments=(1, 2))
    assert DemoConfig.from_json(options.to_json(), tmp_path) == options
    assert DemoConfig.from_json(DemoConfig(out=tmp_path).to_json(), tmp_path) == DemoConfig(out=tmp_path)
