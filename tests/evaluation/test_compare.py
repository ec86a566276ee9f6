"""The paired test of two reports, and what it refuses."""

import json

import pytest

from lm2.evaluation.compare import compare, markdown
from lm2.evaluation.report import save
from lm2_command import main
from tests.evaluation.test_report import Asked, four, report_of

RIGHT = ["kitchen", "garden", "kitchen", "office"]


@pytest.fixture
def reports(tmp_path):
    """One model has everything right, the other one in four at 0k and nothing at 1k."""
    good = report_of(Asked("good", {}, four(RIGHT) + four(RIGHT, length="1k")))
    bad = report_of(Asked("bad", {}, four(["kitchen", "", "", ""]) + four([""] * 4, length="1k")))
    for name, report in (("a", good), ("b", bad)):
        save(report, tmp_path / f"{name}.json")
    return tmp_path / "a.json", tmp_path / "b.json"


def change(path, edit):
    report = json.loads(path.read_text())
    edit(report)
    save(report, path)


def test_cells_and_their_total(reports):
    found = compare(*reports)
    assert found["models"] == ["good", "bad"]
    short, long, total = found["cells"]
    assert (short["first"], short["second"], short["only_first"], short["only_second"]) == (4, 1, 3, 0)
    assert short["p"] == pytest.approx(0.25)
    assert (long["n"], long["p"]) == (4, pytest.approx(0.125))
    assert (total["task"], total["n"], total["only_first"], total["p"]) == ("all", 8, 7, pytest.approx(2 / 2**4))
    assert "| all | all | 8 | 100.0 | 12.5 | 7 | 0 | 0.12 |" in markdown(found)


def test_questions_about_one_story_hang_together(reports):
    """Two stories here, each with two questions, asked at two lengths."""
    for path in reports:
        change(path, lambda report: [row.update(of="one one two two") for row in report["stories"]])
    short, long, total = compare(*reports)["cells"]
    assert [cell["p"] for cell in (short, long, total)] == [0.5, 0.5, 0.5]


def test_a_report_that_tells_no_stories_has_one_for_each_sample(reports):
    for path in reports:
        change(path, lambda report: report.pop("stories"))
    assert compare(*reports)["cells"][-1]["p"] == pytest.approx(2 / 2**7)


def test_the_command_prints_and_writes(reports, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["eval", "compare", *map(str, reports), "--out", str(out)]) == 0
    assert "exact sign-flip test over the stories" in capsys.readouterr().out
    assert json.loads(out.read_text()) == compare(*reports)


def test_the_place_of_the_file_is_looked_at_first(tmp_path, capsys):
    for out, message in ((tmp_path / "no" / "x.json", f"there is no folder {tmp_path / 'no'}"), (tmp_path, "a folder")):
        assert main(["eval", "compare", "a.json", "b.json", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert f"--out is {out}, " in error
        assert message in error


def test_cells_with_texts_that_were_too_long_are_left_out_and_named(reports):
    change(reports[1], lambda report: report["cells"][1].update(too_long=4))
    found = compare(*reports)
    assert [cell["length"] for cell in found["cells"]] == ["0k", "all"]
    assert found["cells"][-1]["n"] == 4
    assert found["too_long"] == [["qa1", "1k"]]
    assert "too long for one of the two: qa1 1k." in markdown(found)
    change(reports[0], lambda report: report["cells"][0].update(too_long=1))
    with pytest.raises(ValueError, match="of 2 none is left, so ask for shorter lengths"):
        compare(*reports)


def test_only_common_cells_are_compared(reports):
    change(reports[1], lambda report: report["cells"].pop(0))
    assert [cell["length"] for cell in compare(*reports)["cells"]] == ["1k", "all"]
    change(reports[1], lambda report: report["cells"].clear())
    with pytest.raises(ValueError, match=r"no cell in common: qa1 at 0k, 1k and  at "):
        compare(*reports)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda r: r["cells"][0].update(samples="xyz"),
            r"other samples in qa1 0k \(4 with digest \w+, 4 with digest xyz\)",
        ),
        (lambda r: r["cells"][1].update(n=3), r"other samples in qa1 1k \(4 with digest \w+, 3 with"),
        (lambda r: r.update(rule="exact"), r"by the rule official and .* by exact: .* --rule official"),
        (lambda r: r["models"].update(more={}), r"has 2 models \(bad, more\): say which one with --models"),
    ],
)
def test_reports_that_cannot_be_compared(reports, edit, message):
    change(reports[1], edit)
    with pytest.raises(ValueError, match=message):
        compare(*reports)


def test_models_are_found_by_name(reports):
    assert compare(*reports, "good", "bad")["models"] == ["good", "bad"]
    with pytest.raises(ValueError, match=r"has no model 'other': it has bad"):
        compare(*reports, "good", "other")
    with pytest.raises(FileNotFoundError):
        compare(reports[0], reports[0].with_name("none.json"))


def test_a_model_against_itself_differs_nowhere(reports):
    found = compare(reports[0], reports[0])
    assert {cell["p"] for cell in found["cells"]} == {1.0}
    assert "good (first), %" in markdown(found)


def test_controls_are_not_compared(reports):
    change(reports[0], lambda r: r["cells"].append({**r["cells"][0], "condition": "reset", "right": "0000"}))
    short, long, total = compare(*reports)["cells"]
    assert (short["first"], long["first"], total["first"]) == (4, 4, 8)
