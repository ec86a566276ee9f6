"""The bake-off itself: whole on tiny sizes, resumable, with failures in its tables."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lm2.study import job as jobs
from lm2.study import write_rules
from lm2.study.config import Job, StudyConfig, plan
from lm2.study.report import cell, page, table
from tests.processes import start

SIZES = {"width": 16, "slots": 4, "blocks": 1, "base_steps": 3, "steps": 4, "samples": 6, "longest": 4}


def finished(job: Job, right: dict[int, int], **more) -> None:
    accuracy = {str(n): {"right": hits, "n": 100, "constant": 0.2} for n, hits in right.items()}
    result = {"job": job.settings(), "status": "finished", "accuracy": accuracy, "bank": None}
    jobs.write_result(job, {**result, "training_seconds": 90.0, "seconds": 100.0, **more})


@pytest.fixture
def config(tmp_path):
    variants = ("default", "mean+burn-in", "rmt-equal-time")
    return StudyConfig(
        **SIZES, variants=variants, tasks=("once",), seeds=(0,), out=tmp_path / "out", table=tmp_path / "docs" / "t.md"
    )


@pytest.fixture
def sources(monkeypatch):
    """Processes find the library that is tested."""
    folder = str(Path(write_rules.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))


@pytest.mark.slow
def test_a_study_runs_in_processes_and_resumes(config, capfd, sources):
    write_rules.run(config)
    results = {job.variant: json.loads(job.result.read_text()) for job in plan(config)}
    assert {result["status"] for result in results.values()} == {"finished"}
    assert results["rmt-equal-time"]["steps"] >= 10
    assert results["default"]["bank"]["slots"] <= 4
    text = config.table.read_text()
    right = results["default"]["accuracy"]["4"]["right"]
    assert "| default | 1 of 1" in text
    assert f"{100 * right / 6:.1f} (" in next(line for line in text.splitlines() if line.startswith("| default"))
    times = {job: job.result.stat().st_mtime_ns for job in plan(config)}
    capfd.readouterr()
    write_rules.run(config)
    assert f"{len(times)} runs, {len(times)} of them finished before" in capfd.readouterr().out
    assert times == {job: job.result.stat().st_mtime_ns for job in plan(config)}


@pytest.mark.slow
def test_a_run_ends_with_the_study_that_is_killed(config, sources):
    log = config.out / "once" / "seed-0" / "base" / "training" / "log.jsonl"
    study = start(write_rules.run, replace(config, base_steps=10**6))
    while not log.exists() or not log.stat().st_size:
        assert study.is_alive()
        time.sleep(0.1)
    runs = psutil.Process(study.pid).children()
    assert len(runs) == 1
    os.kill(study.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(runs, timeout=30)
    for run in alive:
        run.kill()
    assert not alive


def test_a_run_is_the_same_again(job):
    jobs.run(job("base"))
    first, second = (jobs.run(job("carried+mean")) for _ in range(2))
    assert first["accuracy"] == second["accuracy"]
    assert first["bank"] == second["bank"]


def test_divergence_is_a_result(job, monkeypatch):
    def diverge(model, batch, step):
        raise FloatingPointError("the loss is nan at step 2")

    monkeypatch.setattr(jobs, "forward_of", lambda variant, task: diverge)
    jobs.run(job("base"))
    result = jobs.run(job("default"))
    assert (result["status"], result["message"]) == ("diverged", "the loss is nan at step 2")
    assert jobs.read_result(job("default")) == json.loads(json.dumps(result))


def test_results_of_other_settings_are_refused(job):
    finished(job("default"), {1: 50})
    with pytest.raises(ValueError, match=r"steps: 4 then, 5 now.*choose another --out"):
        jobs.read_result(job("default", steps=5))
    job("default").result.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        jobs.read_result(job("default"))


def test_crashes_are_results_and_stop_what_needs_them(config, monkeypatch):
    monkeypatch.setattr(write_rules, "JOB_MODULE", "no_such_job")
    write_rules.run(config)
    text = config.table.read_text()
    assert re.search("base: crashed. the process of once seed 0 base failed: .*No module named no_such_job", text)
    assert "default: crashed. it needs base, which has failed" in text
    assert "| mean+burn-in | 0 of 1: crashed |" in text


def test_stages_add_up_and_end_with_long_rows():
    for steps in (4, 100, 1999):
        for make in (jobs.stages_of, jobs.fixed_stages):
            stages = make(steps, 2)
            assert sum(stage.steps for stage in stages) == steps
            assert max(stages[-1].segments) == 16


def test_cells_and_the_order_of_rows(tmp_path):
    assert str(cell([(50, 100)])) == "50.0 (40-60)"
    assert str(cell([(50, 100), (60, 100), (70, 100)])) == "60.0 (35-85)"
    variants = ("default", "mean", "convex")
    config = StudyConfig(variants=variants, tasks=("once",), seeds=(0, 1), out=tmp_path, table=tmp_path / "t.md")
    planned = plan(config)
    for job in planned:
        if job.variant == "default":
            finished(job, {1: 100, 64: 80, 256: 40})
        if job.variant == "mean":
            finished(job, {1: 30, 64: 20, 256: 90})
    rows = table("once", planned).splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == [
        "mean", "default", "convex", "best constant answer"
    ]  # fmt: skip
    assert "3.6e-03" in rows[3]  # ln(80 / 40) / 192
    assert "2 of 2, 2 not learned" in rows[2]
    assert "0 of 2: missing" in rows[4]
    text = page(config, planned)
    assert "once, seed 0, mean: not learned at the shortest length." in text
    assert "once, seed 1, convex: missing." in text
