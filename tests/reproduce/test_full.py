"""A full reproduction: its runs, their order, their hours, and a page that says what their results say together."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lm2_command as cli
from lm2.evaluation.report import CONSTANT
from lm2.evaluation.statistics import t_interval
from lm2.reproduce import full, full_page, page, results
from lm2.reproduce.config import TASKS, ReproduceConfig
from lm2.reproduce.full import OTHERS, Plan, planned, runs_of
from lm2.reproduce.schedule import BASE, Part, dry_run, expected_seconds, next_part, run_of, whole_seconds
from lm2.reproduce.sizes import FULL, sizes_of
from lm2.settings import check_settings
from tests.reproduce.smallest import SMALLEST, do

PLAN = Plan(seeds=2, alone=("qa1",), others=("qa6", "qa8"))


def test_the_runs_are_ordinary_ones_and_the_first_is_the_folders_own(tmp_path):
    config = ReproduceConfig(out=tmp_path, seed=4, full=True)
    runs = runs_of(config)
    assert [run.config.tasks for run in runs[::3]] == [TASKS, *((task,) for task in TASKS), OTHERS]
    assert [run.config.seed for run in runs] == [4, 5, 6] * 7
    (ordinary,) = runs_of(replace(config, full=False))
    assert runs[0].config == ordinary.config
    assert runs[0].sizes == ordinary.sizes
    folders = [run.config.out for run in runs]
    assert len(set(folders)) == len({run.name for run in runs}) == 21
    assert all(folder.parent == tmp_path / "full" for folder in folders[1:])


def test_a_folder_of_another_version_of_the_plan_is_known_by_its_options():
    for run in runs_of(ReproduceConfig(full=True)):
        assert ReproduceConfig.from_json(run.config.to_json(), run.config.out) == run.config


def test_other_tasks_are_asked_to_4k_and_one_alone_trains_half():
    others, alone = sizes_of(False, OTHERS), sizes_of(False, ("qa1",))
    assert others.main.samples == {"0k": 200, "1k": 200, "2k": 200, "4k": 200}
    assert others.claimed == ("1k", "2k", "4k")
    assert not others.far.tasks
    assert not others.controls.tasks
    assert others.recipe == FULL.recipe
    assert alone.main.samples == FULL.main.samples
    assert alone.far == FULL.far
    assert alone.controls.tasks == ("qa1",)
    assert alone.recipe.steps == FULL.recipe.steps / 2
    assert not sizes_of(False, ("qa2",)).far.tasks


@given(
    st.dictionaries(
        st.builds(Part, st.sampled_from(["a", "b", "c"]), st.sampled_from([BASE, "lm2", "rmt"])),
        st.integers(1, 100).map(float),
        min_size=1,
    )
)
def test_two_processes_take_between_half_and_all_of_the_time_of_one(parts):
    whole = sum(parts.values())
    assert whole_seconds(parts, processes=1) == pytest.approx(whole)
    assert whole / 2 - 1e-6 <= whole_seconds(parts) <= whole + 1e-6


def test_no_part_starts_before_its_backbone_has_ended():
    a, b = (Part(run, BASE) for run in "ab")
    assert next_part([a, Part("a", "lm2"), b], []) == a
    assert next_part([Part("a", "lm2"), b], [a]) == b
    assert next_part([Part("a", "lm2")], [a]) is None
    assert next_part([Part("a", "lm2")], [b]) == Part("a", "lm2")
    assert whole_seconds({a: 5.0, Part("a", "lm2"): 1.0, Part("a", "rmt"): 3.0}) == 8.0


def test_the_hours_are_printed_and_less_than_those_of_the_runs_one_after_another(capsys):
    assert cli.main(["reproduce", "--full", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    runs = runs_of(ReproduceConfig(full=True))
    assert all(run.name in printed for run in runs)
    hours = float(printed.rsplit("about ", 1)[1].split()[0])
    assert hours == pytest.approx(expected_seconds(runs) / 3600, abs=0.05)
    assert hours < sum(expected_seconds([run]) for run in runs) / 3600
    one = run_of(ReproduceConfig(), FULL)
    assert dry_run([one]).endswith("minutes with two processes side by side")
    assert expected_seconds([one]) <= 150 * 60  # what the help says of one run


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--full", "--tasks", "qa3"], "--full has tasks of its own, and --tasks is qa3"),
        (["--tasks", "qa3", "qa11"], "--tasks has qa11: choose among qa1, qa2"),
        (["--tasks", "qa3", "qa3"], "different tasks, at least one, and they are qa3 qa3"),
    ],
)
def test_impossible_tasks_are_one_sentence(words, sentence, tmp_path, capsys):
    assert cli.main(["reproduce", *words, "--out", str(tmp_path / "x")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_babi_folder_without_a_task_is_refused_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "qa1_x_train.txt").write_text("1 Mary went to the garden.\n2 Where is Mary? \tgarden\t1\n")
    assert cli.main(["reproduce", "--babi", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "No file for task 'qa1', split 'test'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_page_without_qa1_and_controls_leaves_them_out(finished):
    found = copy.deepcopy(finished.results)
    for name in ("far", "controls"):
        found["reports"][name] |= {"cells": [], "means": [], "constant": []}
    sizes = replace(finished.sizes, main=replace(finished.sizes.main, tasks=("qa2",)))
    sizes = replace(sizes, far=sizes.far.of(("qa2",)), controls=sizes.controls.of(("qa2",)))
    text = page.page(sizes, found)
    for section in ("## Controls", "## qa1", "The same as published"):
        assert section in page.page(finished.sizes, finished.results)
        assert section not in text


def renamed(found: dict, tasks: dict[str, str], right: float) -> dict:
    """Results as if other tasks had been asked, and so many of the answers of LM2 had been right."""
    found = copy.deepcopy(found)
    for report in found["reports"].values():
        for name in ("cells", "constant"):
            report[name] = [{**cell, "task": tasks[cell["task"]]} for cell in report[name] if cell["task"] in tasks]
        for cell in report["cells"]:
            if cell["model"] == "LM2":
                cell["accuracy"] = right
    return found


def test_the_page_has_means_and_intervals_over_seeds_and_the_difference_of_each_task(finished, tmp_path):
    """The results of one run stand for those of all: the slow twin below trains them."""
    config = replace(finished.config, out=tmp_path, full=True)
    runs = planned(config, SMALLEST, PLAN)
    same, other = {"qa1": "qa1", "qa2": "qa2"}, {"qa1": "qa6", "qa2": "qa8"}
    rights = [(same, 0.25), (same, 0.75), ({"qa1": "qa1"}, 0.5), ({"qa1": "qa1"}, 1.0), (other, 0.0), (other, 1.0)]
    found = full.collect(runs, [renamed(finished.results, *which) for which in rights])
    cells = {(c["tasks"], c["rule"], c["model"], c["task"], c["length"]): c for c in found["cells"]}
    own = cells["qa1-qa2", "official", "LM2", "qa2", "1k"]
    assert (own["shares"], own["accuracy"]) == ([0.25, 0.75], 0.5)
    assert (own["low"], own["high"]) == (0.0, 1.0)  # 0.5 -+ 12.7 x 0.25, cut
    assert cells["qa6-qa8", "word", CONSTANT, "qa8", "0k"]["accuracy"] > 0
    (folder := tmp_path / "full").mkdir()
    full_page.save(tmp_path, found)
    text = (folder / page.PAGE_FILE).read_text(encoding="utf-8")
    assert "A smoke run: its numbers mean nothing." in text
    assert "| LM2 | 50.0 (0-100) | 50.0 (0-100) |\n" in text
    low, high = t_interval([25.0, 25.0])
    assert f"| qa1 | LM2 | 50.0 (0-100) | 75.0 (0-100) | +25.0 ({low:+.1f} to {high:+.1f}) |" in text
    assert text.count("| constant answer |") == 2 + 2 + 2 + 1  # two means, qa1, two other tasks, and alone
    assert text.count("| LM2-1.7B (paper) |") == 4  # two means and two other tasks
    for claim in finished.results["claims"]:
        assert f"| {claim['text']} | {2 * claim['met']} of 2 |" in text
    assert "[qa6-qa8 seed 1](../full/qa6-qa8-seed-1/results.md)" in text
    assert "[qa1-qa2 seed 0](../results.md)" in text
    assert json.loads((folder / page.RESULTS_FILE).read_text(encoding="utf-8")) == found
    assert (folder / page.CURVES_FILE).read_bytes().startswith(b"\x89PNG")


def test_curves_are_means_of_what_every_task_was_asked_with_the_lowest_and_the_highest_seed():
    shares = {("LM2", "qa1", "1k"): [0.2, 0.6], ("LM2", "qa2", "1k"): [0.4, 0.4], ("LM2", "qa1", "128k"): [1.0, 1.0]}
    shares |= {(CONSTANT, task, "1k"): [0.3, 0.3] for task in ("qa1", "qa2")}
    curves = full.curves_of(shares)
    assert curves["models"] == ["LM2"]
    ours, constant = curves["means"]
    assert (ours["length"], ours["mean"], ours["low"], ours["high"]) == ("1k", *map(pytest.approx, (0.4, 0.3, 0.5)))
    assert (constant["model"], constant["mean"]) == (CONSTANT, 0.3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_runs_are_trained_asked_and_told(tmp_path):
    """Its short twin is above."""
    config = ReproduceConfig(out=tmp_path, smoke=True, full=True)
    runs, found = planned(config, SMALLEST, PLAN), []
    for run in runs:
        run.config.out.mkdir(parents=True, exist_ok=True)
        check_settings(run.config.out, {"options": run.config.to_json(), "sizes": {}}, "reproduction")
        assert do(run.config, run.sizes)
        assert do(run.config, run.sizes) == []
        found.append(results.collect(run.config, run.sizes))
        assert all(path.exists() for path in page.save(run.config, run.sizes, found[-1]))
    together = full.collect(runs, found)
    assert all(path.exists() for path in full_page.save(tmp_path, together))
    tasks = {(cell["tasks"], cell["task"]) for cell in together["cells"]}
    assert tasks == {*(("qa1-qa2", "qa1"), ("qa1-qa2", "qa2"), ("qa1", "qa1"), ("qa6-qa8", "qa6"), ("qa6-qa8", "qa8"))}
