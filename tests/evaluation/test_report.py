"""From answers to numbers, on answers made by hand."""

import json

import pytest

from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.engine import Asked
from lm2.evaluation.page import interval, markdown, published
from lm2.evaluation.report import by_distance, cells_of, collect, constants, distance_bin, load, means, ordered, save

TARGETS = ("kitchen", "garden", "kitchen", "office")


def record(index, output, *, task="qa1", length="0k", condition="plain", target=None, distance=10, **more):
    return {
        "key": [task, length, index, condition],
        "output": output,
        "question": "Where is Mary? ",
        "target": target or TARGETS[index],
        "distance": distance,
        "sample": f"{task}{length}{index}",
        "seconds": 1.5,
        **more,
    }


def four(outputs, **options):
    return [record(i, output, **options) for i, output in enumerate(outputs)]


def report_of(*models: Asked) -> dict:
    config = BabilongConfig(models=tuple(model.name for model in models))
    return collect(config, {"samples": "made by hand", "seed": 3}, models)


def test_cells_count_under_every_rule():
    asked = Asked("m", {}, four(["kitchen.", "In the garden or office.", "the KITCHEN", "office"]))
    (cell,) = cells_of(asked, "official")
    assert cell["correct"] == {"official": 3, "word": 3, "exact": 1, "substring": 4}
    assert (cell["n"], cell["right"], cell["accuracy"], cell["seconds"]) == (4, "1011", 0.75, 6.0)
    assert cells_of(asked, "substring")[0]["right"] == "1111"
    assert (cell["low"], cell["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_a_cell_with_a_prompt_that_was_too_long_has_no_accuracy():
    asked = Asked("m", {}, four(["kitchen", None, "kitchen", "office"]))
    (cell,) = cells_of(asked, "official")
    assert (cell["too_long"], cell["accuracy"], cell["correct"]["official"]) == (1, None, 3)
    assert interval(cell) == "too long: 1 of 4"


def test_the_constant_answer_is_the_best_under_the_rule():
    (found,) = constants(four([None] * 4), "official")
    assert (found["answer"], found["correct"], found["accuracy"]) == ("kitchen", 2, 0.5)
    sevens = [record(i, None, task="qa7", target=t) for i, t in enumerate(["none", "none", "one", "two"])]
    assert constants(sevens, "official")[0]["correct"] == 1  # the rule judges every "none" wrong
    assert constants(sevens, "word")[0]["correct"] == 2
    assert constants(sevens, "substring")[0]["correct"] == 3  # "none" has "one" in it


def test_distances_fall_into_doubling_bins():
    assert [distance_bin(n) for n in (0, 127, 128, 255, 256, 1023, 1024)] == [0, 0, 1, 1, 2, 3, 4]
    rows = [
        record(0, "kitchen", distance=5),
        record(1, "office", distance=100),
        record(2, "kitchen", distance=600),
        record(3, None, distance=600),
        record(0, "kitchen", distance=5, condition="question"),
        record(0, "kitchen", distance=None, length="1k"),
    ]
    found = by_distance(Asked("m", {}, rows), "official")
    assert [(r["from"], r["below"], r["n"], r["correct"]) for r in found] == [(0, 128, 2, 1), (512, 1024, 1, 1)]


def test_means_are_over_tasks_with_and_without_qa7():
    rows = four(["kitchen"] * 4) + four(["none"] * 4, task="qa7", target="none")
    report = {"cells": cells_of(Asked("m", {}, rows), "official"), "constant": []}
    (mean,) = means(report)
    assert (mean["tasks"], mean["mean"], mean["mean_without_qa7"]) == (2, 0.25, 0.5)
    too_long = {"cells": cells_of(Asked("m", {}, [*rows, *four([None] * 4, task="qa2")]), "official"), "constant": []}
    assert means(too_long)[0]["mean"] is None


def a_report() -> dict:
    memory = [r for c in ("carried", "reset", "question") for r in four(["kitchen"] * 4, condition=c)]
    memory += [r for c in ("carried", "reset", "question") for r in four(["garden"] * 4, condition=c, length="1k")]
    plain = four(["kitchen", "garden", "kitchen", "office"]) + four([None] * 4, length="1k")
    return report_of(Asked("plain", {"kind": "full"}, plain), Asked("memory", {"segment_length": 16}, memory))


def test_the_page_says_what_the_numbers_are():
    report = a_report()
    page = markdown(report, published(report))
    for line in (
        "| plain | all | 100.0 | too long |",
        "| memory | all | 50.0 | 25.0 |",
        "| memory | reset | 50.0 | 25.0 |",
        "| constant answer | 50.0 kitchen | 50.0 kitchen |",
        "| plain | 100.0 (51-100) | too long: 4 of 4 |",
        "| LM2-1.7B (paper) | 99.0 | 85.0 |",
        "* Samples: samples made by hand; seed 3; asked per cell all",
        "* memory: segment length 16; seconds 36.0",
    ):
        assert line in page
    assert "(paper)" not in markdown(report)
    assert "without qa7" not in page


def test_a_report_without_a_memory_says_so():
    assert "No model of this report has a memory." in markdown(report_of(Asked("m", {}, four(["kitchen"] * 4))))


def test_what_is_saved_is_loaded(tmp_path):
    report = json.loads(json.dumps(a_report()))
    save(report, tmp_path / "report.json")
    assert load(tmp_path) == load(tmp_path / "report.json") == report
    assert len((tmp_path / "report.json").read_text().splitlines()) > len(report["cells"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a report of `lm2 eval babilong`, or is damaged"),
        ("[]", "is not a report"),
        ('{"kind": "lm2 eval needle", "schema": 1}', "is a report of 'lm2 eval needle', not of 'lm2 eval babilong'"),
        ('{"kind": "lm2 eval babilong", "schema": 7}', "has report version 7, and this program reads version 1"),
    ],
)
def test_files_that_are_no_report(text, message, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_tasks_and_lengths_have_their_natural_order():
    assert ordered(["qa10", "qa2", "qa2"]) == ["qa2", "qa10"]
    assert ordered(["1M", "0k", "128k", "16k"]) == ["0k", "16k", "128k", "1M"]
