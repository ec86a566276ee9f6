"""The whole demo with hardly any training: its files agree, and a second run does only what is missing."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from lm2 import LM2ForCausalLM, processes
from lm2.baselines import RMTForCausalLM
from lm2.demo import evaluation, runner
from lm2.demo.config import DemoConfig
from lm2.demo.contender import run_of, training_run
from lm2.demo.evaluation import answer, last_segment
from lm2.demo.material import load_set, load_tokenizer, training_rows
from lm2.demo.recipe import BUILT_IN, CONTENDERS, recipe_of
from lm2.demo.report import show, wilson
from lm2.demo.runner import Watch
from lm2.evaluation.page import interval
from lm2.files import read_lines


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> DemoConfig:
    """A finished demo of a few steps."""
    options = DemoConfig(out=tmp_path_factory.mktemp("runs") / "demo", scale=0.003, questions=12, segments=(1, 2, 5))
    runner.run(options)
    return options


@pytest.fixture
def results(options):
    return json.loads((options.out / "results.json").read_text(encoding="utf-8"))


def times(options: DemoConfig) -> dict[str, int]:
    """When the expensive files were written."""
    found = [*options.out.glob("*/model/model.safetensors"), *options.out.glob("*/answers.jsonl")]
    found += [*options.out.glob("evaluation/*"), options.out / "background.npz"]
    return {str(path.relative_to(options.out)): path.stat().st_mtime_ns for path in found}


def test_results_are_those_of_the_answers(options, results):
    assert len(results["accuracy"]) == 5 * len(CONTENDERS)
    for row in results["accuracy"]:
        asked = load_set(options.out, row["where"], row["segments"])
        lines = read_lines(options.out / row["model"] / "answers.jsonl")
        given = next(li for li in lines if (li["where"], li["segments"]) == (row["where"], row["segments"]))["answers"]
        assert row["n"] == len(given) == len(asked) == 12
        assert row["correct"] == sum(a == b for a, b in zip(given, asked.answers, strict=True))
        assert row["accuracy"] == row["correct"] / row["n"]
        assert (row["low"], row["high"]) == wilson(row["correct"], 12)
        assert row["constant"] == asked.constant
        assert row["tokens"] == 32 * row["segments"]


def test_the_table_shows_the_results(results):
    text = StringIO()
    show(results, Console(file=text, width=80))
    printed = text.getvalue()
    assert all(interval(row) in printed for row in results["accuracy"])
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert len(results["examples"]) == 3
    for example in results["examples"]:
        assert example["fact"] in printed
        right = example["answer"] == example["right_answer"]
        said = "right" if right else f"wrong: {example['right_answer']}"
        assert f"{example['question']}  LM2: {example['answer']} ({said})" in printed
        assert f"{example['distance']:,} tokens ago" in printed
        assert example["distance"] > 32 - 5
        assert example["right_answer"] in example["fact"]


def test_the_page_has_every_accuracy_and_the_picture(options, results):
    page = (options.out / "results.md").read_text(encoding="utf-8")
    assert all(interval(row) in page for row in results["accuracy"])
    assert "![Accuracy against distance](accuracy.png)" in page
    assert f"| steps | {results['training']['base']['steps']} |" in page


def test_all_that_a_reader_needs_is_in_the_results(options, results):
    assert results["options"] == options.to_json()
    assert results["recipe"]["segment_length"] == 32
    assert results["environment"]["versions"]["torch"] == torch.__version__
    training = results["training"]
    assert len({training[name]["tokens"] for name in CONTENDERS}) == 1
    assert training["rmt"]["parameters"] == training["plain"]["parameters"] + 16 * 64
    assert training["lm2"]["parameters"] > training["plain"]["parameters"]
    assert all(training[name]["seconds"] > 0 for name in training)
    assert (options.out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_only_lm2_pays_for_writing_and_only_the_base_reads_rows_of_its_own(tmp_path):
    runs = {name: training_run(BUILT_IN, name, None, None, tmp_path, seed=3) for name in ("base", *CONTENDERS)}
    assert [name for name, run in runs.items() if run.training_forward is not None] == ["lm2"]
    assert {runs[name].seed for name in CONTENDERS} == {runs["lm2"].seed} != {runs["base"].seed}


@pytest.mark.parametrize("name", ["base", "lm2"])
def test_training_tokens_are_those_of_the_batches(options, results, name):
    recipe = recipe_of(options)
    run = run_of(options, recipe, name, training_rows(options, recipe), len(load_tokenizer(options.out)))
    trainer_batches = (run.make_batch(runner_request(run, step))["input_ids"].numel() for step in range(run.steps))
    assert results["training"][name]["tokens"] == sum(trainer_batches)


def runner_request(run, step):
    from lm2.training import BatchRequest

    return BatchRequest(run.seed, step, range(run.stage_at(step).rows), run.segments_at(step))


def test_the_saved_models_give_the_answers(options, monkeypatch):
    """Also in one call, and also when the plain model reads the whole text."""
    monkeypatch.setattr(evaluation, "TOKENS", 10**9)
    ids = torch.from_numpy(load_set(options.out, "earlier", 5).ids)
    for name in CONTENDERS:
        kind = LM2ForCausalLM if name == "lm2" else RMTForCausalLM
        model = kind.from_pretrained(options.out / name / "model").eval()
        given = read_lines(options.out / name / "answers.jsonl")[-1]["answers"]
        assert answer(model, ids, 32).tolist() == given
        assert (answer(model, last_segment(ids, 32), 32).tolist() == given) or name != "plain"


def test_a_second_run_does_nothing_again(options, monkeypatch, capsys):
    before = times(options)
    monkeypatch.setattr(processes, "subprocess", None)  # so no process can be started
    runner.run(options)
    assert times(options) == before
    assert "earlier segment" in capsys.readouterr().out


def test_a_run_goes_on_with_the_part_that_is_missing(options):
    before = times(options)
    path = options.out / "plain" / "answers.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    runner.run(options)
    changed = {name for name, at in times(options).items() if before[name] != at}
    assert changed == {"plain/answers.jsonl"}
    kept = [json.loads(line)["answers"] for line in lines]
    assert [line["answers"] for line in read_lines(path)] == kept


def test_other_settings_are_refused(options):
    with pytest.raises(ValueError, match="seed was 0 and is 5"):
        runner.run(replace(options, seed=5))
    with pytest.raises(ValueError, match=r"scale was 0\.003 and is 0\.006; base_steps was"):
        runner.run(replace(options, scale=0.006))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="holds other files"):
        runner.run(DemoConfig(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def watch_with(tmp_path, program: str) -> Watch:
    """A watch over a process that is not a model."""
    options = DemoConfig(out=tmp_path, segments=(1,))
    watch = Watch(options, recipe_of(options), Console(file=StringIO()))
    (tmp_path / "rmt").mkdir()
    with (tmp_path / "rmt" / "errors.txt").open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", program], stderr=errors)
    watch.processes.add("RMT", process, tmp_path / "rmt")
    return watch


@pytest.mark.parametrize(
    ("program", "error", "match"),
    [
        ("import sys; print('b.zip: no such file', file=sys.stderr); sys.exit(2)", ValueError, "RMT: b.zip: no such"),
        ("import os; os.kill(os.getpid(), 9)", ValueError, r"ended from outside \(SIGKILL\)"),
        ("raise KeyError('ours')", RuntimeError, "RMT failed: KeyError: 'ours'"),
    ],
)
def test_the_error_of_a_model_is_told(tmp_path, program, error, match):
    with pytest.raises(error, match=match), watch_with(tmp_path, program) as watch:
        watch.finish()


def test_nothing_runs_on_after_ctrl_c(tmp_path):
    watch = watch_with(tmp_path, "import time; time.sleep(60)")
    process = watch.processes.running["RMT"]
    with pytest.raises(KeyboardInterrupt), watch:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM
