"""What the claims are told, from reports made by hand."""

import json
from dataclasses import replace

import pytest

from lm2.evaluation.report import save
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.results import equal_seconds, measure, paired
from lm2.reproduce.sizes import CONTENDERS, SMOKE, Cells
from lm2.reproduce.validation import VALIDATION_FILE
from tests.evaluation.test_report import Asked, four, report_of

SIZES = replace(SMOKE, controls=Cells(("qa1",), {"0k": 2, "1k": 2}))
WINDOW = "plain last 64"


def cell(model: str, length: str, right: str, condition: str = "carried", task: str = "qa1") -> dict:
    share = right.count("1") / len(right)
    return {"model": model, "condition": condition, "task": task, "length": length, "right": right, "accuracy": share}


def mean(model: str, value: float, condition: str = "carried") -> dict:
    return {"model": model, "condition": condition, "mean": value}


REPORTS = {
    "official": {
        "cells": [
            *(cell("LM2", "0k", "111"), cell("LM2", "1k", "110"), cell("LM2", "1k", "000", "question")),
            *(cell("RMT", "1k", "100"), cell("LM2", "1k", "011", task="qa2")),
            *(cell(WINDOW, "0k", "111", "plain"), cell(WINDOW, "1k", "011", "plain")),
            *(cell(WINDOW, "1k", "111", "plain", "qa2"), cell("plain full", "1k", "111", "plain")),
        ]
    },
    "far": {"cells": [cell("LM2", "2k", "1000"), cell("RMT", "2k", "0000")]},
    "controls": {
        "cells": [
            *(cell("LM2", "0k", "11", "reset"), cell("LM2", "1k", "00", "reset"), cell("LM2", "1k", "11", "frozen")),
            *(cell("LM2", "1k", "11"), cell("RMT", "1k", "11", "reset")),
        ]
    },
    "claimed": {"means": [mean("LM2", 0.8), mean("LM2", 0.6), mean("LM2", 0.1, "reset"), mean("RMT", 0.5)]},
}


def test_what_is_claimed_of_is_measured_as_the_models_work():
    found = measure(SIZES, REPORTS, {"RMT": [{"p": 0.5}, {"p": 0.01}]})
    assert found.means == {"LM2": pytest.approx(0.7), "RMT": 0.5}
    assert found.qa1 == {"LM2": {"0k": 1, "1k": 2 / 3, "2k": 0.25}, "RMT": {"1k": 1 / 3, "2k": 0}, "ARMT": {}}
    assert found.p == {"RMT": 0.01}  # of all cells, which come last


def test_reset_and_plain_are_of_the_same_samples_beyond_the_window():
    """Those of the controls: not qa2, not at 0k, and two of each cell."""
    found = measure(SIZES, REPORTS, {})
    assert (found.window, found.reset, found.plain) == (WINDOW, (0, 2), (1, 2))


def test_a_model_for_which_some_text_was_too_long_is_not_compared_with(tmp_path):
    right = ["kitchen", "garden", "kitchen", "office"]
    answers = {"LM2": right, "RMT": [*right[:3], ""], "plain full": [*right[:3], None]}
    report = report_of(*(Asked(name, {}, four(given)) for name, given in answers.items()))
    save(report, tmp_path / "claimed.json")
    found = paired(tmp_path / "claimed.json", report)
    assert list(found) == ["RMT"]
    assert [(row["first"], row["second"], row["only_first"]) for row in found["RMT"]] == [(4, 3, 1)] * 2


def test_equal_seconds_are_those_of_the_training_that_was_done_first(tmp_path):
    for name, seconds in zip(CONTENDERS, (30.0, 10.0, 20.0, 40.0), strict=True):
        (tmp_path / name).mkdir()
        lines = ({"step": step, "seconds": seconds * step} for step in (1, 2))
        (tmp_path / name / VALIDATION_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert equal_seconds(ReproduceConfig(out=tmp_path)) == 20.0
