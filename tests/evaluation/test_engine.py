"""The whole command on small models: resume, refuse, share among processes, and the files it leaves."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lm2.evaluation import babilong_run, engine
from lm2.evaluation.babilong import LocalBabilong
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.engine import digest, distance, jobs, my_jobs
from lm2.evaluation.report import load
from lm2_command import main
from tests.evaluation import tiny

ROOT = Path(__file__).parents[2]
SOURCE = BabilongConfig.source
SMALL = ("--tasks", "qa1", "qa7", "--lengths", "0k", "--samples", "3", "--max-new-tokens", "3")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return [
        str(tiny.save(model, place / name))
        for name, model in (("llama", tiny.llama()), ("lm2", tiny.memory_model("lm2")))
    ]


@pytest.fixture(scope="module", autouse=True)
def source(background):
    """Samples in the small background of the suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BabilongConfig, "source", lambda self: LocalBabilong(None, background, seed=self.seed))
        yield


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """They take longer than the answers; the test of what the command leaves has them."""
    if request.node.name != "test_one_command_leaves_report_page_and_pictures":
        for draw in ("draw_heat_map", "draw_curves"):
            monkeypatch.setattr(babilong_run, draw, lambda report, path: None)


@pytest.fixture(scope="module")
def finished(models, source, tmp_path_factory) -> Path:
    """All answers, their report and page; to be read only."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(models, out) == 0
    return out


@pytest.fixture
def answered(finished, tmp_path) -> Path:
    """A folder with all answers to go on with."""
    return shutil.copytree(finished, tmp_path / "answered")


def run(models, out, *flags) -> int:
    return main(["eval", "babilong", *models, "--out", str(out), *SMALL, *flags])


def records(out: Path) -> list[dict]:
    lines = [line for path in sorted(out.glob("answers/*/records.*.jsonl")) for line in path.read_text().splitlines()]
    return [value for value in map(json.loads, lines) if "key" in value]


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_one_command_leaves_report_page_and_pictures(models, tmp_path, capsys):
    assert run(models, tmp_path, "--anchors") == 0
    assert "Saved:" in capsys.readouterr().out
    report = load(tmp_path)
    assert list(report["models"]) == ["llama", "lm2"]
    conditions = {(cell["model"], cell["condition"]) for cell in report["cells"]}
    own = {("lm2", name) for name in ("carried", "reset", "frozen", "exchanged", "question")}
    assert conditions == {("llama", "plain"), ("llama", "question")} | own
    assert {cell["n"] for cell in report["cells"]} == {3}
    assert report["models"]["lm2"]["segment_length"] == tiny.SEGMENT
    assert report["samples"]["seed"] == 0
    page = (tmp_path / "report.md").read_text()
    for expected in (
        "Rule: official",
        "without qa7",
        "| lm2 | reset |",
        "LM2-1.7B (paper)",
        "segment length 16",
        "seed 0",
    ):
        assert expected in page
    for picture in ("heatmap.png", "curves.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_asked_twice(models, answered, monkeypatch):
    first, report = records(answered), load(answered)
    assert len(first) == 2 * 3 * (2 + 5)
    monkeypatch.setattr(engine.Asker, "answer", lambda *_: pytest.fail("asked again"))
    assert run(models, answered) == 0
    assert load(answered) == report
    assert run(models, answered, "--rule", "substring", "--samples", "2", "--lengths", "0k") == 0
    assert records(answered) == first
    rescored = load(answered)
    assert rescored["rule"] == "substring"
    assert {cell["n"] for cell in rescored["cells"]} == {2}


def test_a_stopped_run_goes_on_where_it_was(models, finished, tmp_path, monkeypatch, capsys):
    stopped = tmp_path / "stopped"
    left = iter(range(9))
    answer = engine.Asker.answer

    def until_stopped(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(engine.Asker, "answer", until_stopped)
    assert run(models, stopped) == 130
    assert "Answers are kept; the same command goes on" in capsys.readouterr().err
    kept = records(stopped)
    assert len(kept) == 9
    with next(stopped.glob("answers/*/records.0.jsonl")).open("a") as file:
        file.write('{"key": ["qa1", "0')  # what a kill in the middle of a line leaves
    monkeypatch.setattr(engine.Asker, "answer", answer)
    assert run(models, stopped) == 0
    assert records(stopped)[:6] == kept[:6]
    assert without_times(load(stopped)) == without_times(load(finished))


@pytest.mark.parametrize("size", ["1", "2"])
def test_how_many_texts_are_read_side_by_side_changes_no_answer(models, finished, tmp_path, size):
    """And is no setting: a run goes on with another number."""
    other = tmp_path / "other"
    assert run(models, other, "--batch-size", size, "--samples", "2") == 0
    assert run(models, other, "--batch-size", "3") == 0
    assert without_times(load(other)) == without_times(load(finished))


def test_answers_of_other_settings_are_refused_and_kept(models, answered, capsys):
    before = records(answered)
    for flags, message in (
        (("--seed", "1"), r"samples.seed: 0 then, 1 now"),
        (("--instruction",), r"prompt.instruction: False then, True now"),
    ):
        assert run(models, answered, *flags) == 2
        error = capsys.readouterr().err
        assert re.search(message, error)
        assert "choose another --out folder" in error
    assert records(answered) == before


def test_answers_of_another_version_are_refused(models, answered, capsys):
    path = next(answered.glob("answers/llama/*.jsonl"))
    path.write_text(path.read_text().replace('{"schema": 1', '{"schema": 99', 1))
    assert run(models, answered) == 2
    assert "version 99, this program writes version 1" in capsys.readouterr().err


def test_answers_to_other_samples_are_refused(models, answered, monkeypatch, capsys):
    monkeypatch.setattr(engine, "digest", lambda sample: "another")
    assert run(models, answered) == 2
    assert re.search(r"another sample 0 of qa1 0k \(digest \w{16} then, another now\)", capsys.readouterr().err)


def test_a_prompt_that_is_too_long_marks_its_cell(models, tmp_path, capsys):
    assert run(models[:1], tmp_path, "--lengths", "0k", "1k", "--tasks", "qa1") == 0
    cells = {(c["model"], c["length"], c["condition"]): c for c in load(tmp_path)["cells"]}
    assert cells["llama", "0k", "plain"]["accuracy"] is not None
    long = cells["llama", "1k", "plain"]
    assert (long["accuracy"], long["too_long"], long["n"]) == (None, 3, 3)
    assert "too long: 3 of 3" in (tmp_path / "report.md").read_text()
    reasons = [record["too_long"] for record in records(tmp_path) if record["output"] is None]
    assert len(reasons) == 3
    assert "the model takes 256" in reasons[0]


def test_lengths_and_models_can_have_their_own_number_of_samples(models, tmp_path):
    flags = ("--tasks", "qa1", "--lengths", "0k", "1k", "--samples", "4", "2")
    assert run([models[0], f"last={models[0]}@last:200#1"], tmp_path, *flags) == 0
    report = load(tmp_path)
    assert {(c["model"], c["length"], c["n"]) for c in report["cells"]} == {
        ("llama", "0k", 4), ("llama", "1k", 2), ("last", "0k", 1), ("last", "1k", 1)
    }  # fmt: skip
    assert {c["length"]: c["n"] for c in report["constant"]} == {"0k": 4, "1k": 2}
    assert report["samples"]["asked_per_cell"] == [4, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--samples", "3", "4"), "--samples has 2 numbers and --lengths 1"),
        (("--tasks", "qa21"), "Unknown task 'qa21'"),
        (("--lengths", "1x"), "Unknown length '1x'"),
        (("--samples", "0"), "--samples is 0: it must be at least 1"),
        (("--samples", "101"), "--samples is 101, and a cell of the set has 100: give that or less, or --sample-set"),
        (("--max-new-tokens", "0"), "--max-new-tokens is 0"),
        (("--batch-size", "0"), "--batch-size is 0"),
        (("--babi", "/nowhere"), "--babi: there is nothing at /nowhere"),
        (("--released", "x", "--babi", "."), "--released x brings its own questions"),
    ],
)
def test_bad_options_are_one_line(models, tmp_path, flags, message, capsys):
    assert run(models, tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_memory_that_cannot_be_exchanged_is_told_before_anything_is_asked(models, tmp_path, monkeypatch, capsys):
    flags = ("--tasks", "qa1", "--lengths", "0k", "1k", "--samples", "2", "1")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "load_runner", lambda *_: pytest.fail("a model was loaded"))
        assert run(models, tmp_path, *flags) == 2
    assert (
        "exchanged needs at least 2 samples in a cell, and qa1 1k has 1: ask 2 or more, or leave it out with "
        "--controls reset frozen"
    ) in capsys.readouterr().err
    assert run(models[1:], tmp_path / "lm2", *flags, "--controls", "reset", "frozen") == 0
    assert run(models[:1], tmp_path / "llama", *flags) == 0


def test_a_sample_is_known_by_its_facts_and_their_places(background):
    first, second = (next(LocalBabilong(None, background, seed=seed).samples("qa2", "1k")) for seed in (0, 1))
    again = next(LocalBabilong(None, background).samples("qa2", "1k"))
    assert digest(first) == digest(again) != digest(second)
    released = [replace(first, facts=(), content=sample.content) for sample in (first, second)]
    assert digest(released[0]) != digest(released[1])
    needed = [fact.distance for fact in first.facts if fact.supporting]
    assert len(needed) == 2
    assert distance(first) == max(needed)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_long_texts_are_dealt_out_evenly_and_pairs_stay_together(background, monkeypatch, world):
    """Two samples in each of a few cells are work for all, also where long and short cells take turns."""
    sample = next(LocalBabilong(None, background, seed=0).samples("qa1", "1k"))
    cells = {
        (task, length): [replace(sample, task=task, length=length, index=index) for index in range(2)]
        for task in ("qa1", "qa2", "qa3")
        for length in ("1k", "1M")
    }
    whole = jobs(["carried", "reset"], cells)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(my_jobs(whole))
    assert sorted(job.key for share in shares for job in share) == sorted(job.key for job in whole)
    for share in shares:
        assert [job for job in whole if job in share] == share
        assert {(*job.cell, 1 - job.sample.index) for job in share} == {(*job.cell, job.sample.index) for job in share}
    for length in ("1k", "1M"):
        counts = [sum(job.cell[1] == length for job in share) for share in shares]
        assert max(counts) - min(counts) <= 4  # a pair under two conditions


def test_a_sample_more_in_each_cell_is_work_for_all(background, monkeypatch):
    """Where a run is extended, the pairs that were asked before are dealt out as they were."""
    sample = next(LocalBabilong(None, background, seed=0).samples("qa1", "1k"))
    cells = {(f"qa{n}", "1k"): [replace(sample, task=f"qa{n}", index=index) for index in range(3)] for n in range(1, 6)}
    monkeypatch.setenv("WORLD_SIZE", "2")
    more = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        before = my_jobs(jobs(["carried"], {cell: samples[:2] for cell, samples in cells.items()}))
        now = my_jobs(jobs(["carried"], cells))
        assert [job for job in now if job.sample.index < 2] == before
        more.append(len(now) - len(before))
    assert sorted(more) == [2, 3]


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_find_what_one_finds(models, tmp_path, monkeypatch):
    """Through torchrun; the pairs of samples are shared out."""
    monkeypatch.setattr(BabilongConfig, "source", SOURCE)
    book = tmp_path / "book.txt"
    book.write_text(tiny.prose(20))
    flags = ["--samples", "3", "--tasks", "qa1", "--background", str(book)]
    assert run(models[1:], tmp_path / "alone", *flags) == 0
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "lm2_command",
    ]
    command = [*launcher, "eval", "babilong", models[1], *SMALL, *flags, "--out", str(tmp_path / "both")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    both, alone = load(tmp_path / "both"), load(tmp_path / "alone")
    assert without_times(both) == without_times(alone)
    shares = [len(path.read_text().splitlines()) - 1 for path in sorted((tmp_path / "both/answers/lm2").iterdir())]
    assert shares == [2 * 5, 1 * 5]


def test_a_fact_at_another_place_is_another_sample(background):
    sample = next(LocalBabilong(None, background, seed=0).samples("qa2", "1k"))
    for change in (lambda fact: {"distance": fact.distance + 1}, lambda fact: {"supporting": not fact.supporting}):
        moved = tuple(replace(fact, **change(fact)) for fact in sample.facts)
        assert digest(replace(sample, facts=moved)) != digest(sample)
