"""The whole chain: what is done is not done again, the same samples for all, and a page with every number."""

import json

import pytest
from transformers import AutoModelForCausalLM

import lm2_command as cli
from lm2.evaluation.engine import answers_folder
from lm2.reproduce import asking, page, runner
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.results import SHOWN
from lm2.reproduce.schedule import dry_run, run_of
from lm2.reproduce.sizes import FULL, NAMES, SMOKE
from lm2.reproduce.steps import steps_of
from tests.reproduce.smallest import do


def test_every_step_is_done_once(finished):
    config, sizes, _ = finished
    assert [step.share() for step in steps_of(config, sizes)] == [1.0] * len(steps_of(config, sizes))
    assert do(config, sizes) == []


@pytest.mark.parametrize("twice", [False, True])
def test_an_answer_that_is_missing_is_the_only_one_that_is_asked(finished, twice):
    """Also where two commands at a time have written another answer twice."""
    config, sizes, _ = finished
    path = answers_folder(asking.folder_of(config), "RMT") / "records.0.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[-1:-1] = lines[-2:-1] * twice
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    assert 0 < asking.share(config, sizes, "rmt") < 1
    assert do(config, sizes) == ["rmt questions"]
    again = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert again[:-1] == lines[:-1]
    without_time = [{**json.loads(line), "seconds": 0} for line in (lines[-1], again[-1])]
    assert without_time[0] == without_time[1]


def test_all_contenders_have_equal_budgets_and_the_same_samples(finished):
    training = finished.results["training"]
    sizes = [training[name]["parameters"] for name in SHOWN]
    assert max(sizes) <= 1.02 * min(sizes)
    tokens = [training[name]["tokens"] for name in SHOWN]
    assert max(tokens) < 1.05 * min(tokens)  # four steps cannot be made an eighth more
    assert training["lm2"]["tokens"] == max(tokens)
    for report in finished.results["reports"].values():
        digests = {}
        for cell in report["cells"]:
            digests.setdefault((cell["task"], cell["length"]), set()).add((cell["n"], cell["samples"]))
        assert all(len(found) == 1 for found in digests.values())


def test_a_saved_model_has_the_parameters_that_are_told(finished):
    for name in SHOWN:
        model = AutoModelForCausalLM.from_pretrained(finished.config.out / name / "model")
        assert model.num_parameters() == finished.results["training"][name]["parameters"]


def test_memories_are_asked_with_controls_and_the_plain_model_in_four_ways(finished):
    reports = finished.results["reports"]
    assert list(reports["official"]["models"]) == [
        *("LM2", "RMT", "ARMT", "plain last 64", "plain last 128", "plain full", "plain RAG")
    ]
    conditions = {(cell["model"], cell["condition"]) for cell in reports["controls"]["cells"]}
    assert {c for m, c in conditions if m == "RMT"} == {"carried", "reset", "frozen", "exchanged", "question"}
    assert {cell["task"] for cell in reports["far"]["cells"]} == {"qa1"}
    assert reports["word"]["rule"] == "word"


def assert_cells_can_be_counted_again(kept, reports):
    """Those that the file of numbers leaves out: under the other rule, and those of the claim."""
    cells = {(c["model"], c["condition"], c["task"], c["length"]): c for c in kept["cells"]}
    for name in ("word", "claimed"):
        assert reports[name]["cells"]
        for cell in reports[name]["cells"]:
            counted = cells[cell["model"], cell["condition"], cell["task"], cell["length"]]["correct"]
            assert counted == cell["correct"]
            assert cell["accuracy"] is None or counted[reports[name]["rule"]] == round(cell["accuracy"] * cell["n"])


def test_the_page_has_every_claim_every_mean_and_its_pictures(finished):
    config, sizes, found = finished
    files = page.save(config, sizes, found)
    text = (config.out / page.PAGE_FILE).read_text(encoding="utf-8")
    assert "A smoke run: its numbers mean nothing." in text
    for claim in found["claims"]:
        assert f"| {claim['text']} | {'met' if claim['met'] else 'not met'} | {claim['numbers']} |" in text
    assert len(found["claims"]) == 5 + len(found["paired"])
    assert text.count("~ ARMT (137M) fine-tune (leaderboard)") == 3
    assert text.count("LM2-1.7B (paper)") == 3
    assert all(path.exists() for path in files)
    pictures = [path for path in files if path.suffix == ".png"]
    assert len(pictures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    kept = json.loads((config.out / page.RESULTS_FILE).read_text(encoding="utf-8"))
    assert kept["claims"] == found["claims"]
    assert_cells_can_be_counted_again(kept["reports"]["official"], found["reports"])


def test_the_dry_run_names_every_step_and_keeps_the_limit(tmp_path, capsys):
    assert cli.main(["reproduce", "--dry-run", "--out", str(tmp_path / "none")]) == 0
    printed = capsys.readouterr().out
    steps = steps_of(ReproduceConfig(), FULL)
    assert all(f"{NAMES[step.part]:<6} {step.text}" in printed for step in steps)
    assert int(printed.rsplit("about ", 1)[1].split()[0]) <= 150
    assert not (tmp_path / "none").exists()
    assert len(dry_run([run_of(ReproduceConfig(), SMOKE)]).splitlines()) == 2 + 2 + 4 * (2 + len(SMOKE.rates))


def test_a_folder_of_another_seed_is_refused(tmp_path, capsys):
    (tmp_path / "settings.json").write_text(json.dumps({"options": {"seed": 3}, "sizes": {}}))
    assert cli.main(["reproduce", "--smoke", "--out", str(tmp_path)]) == 2
    assert "seed was 3 and is 0" in capsys.readouterr().err
    assert cli.main(["reproduce", "--books", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    assert "--books: there is nothing at" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_does_the_whole_chain_in_processes_and_nothing_twice(tmp_path, capsys, monkeypatch):
    """Its short twin is the fixture of this file."""
    out = tmp_path / "run"
    assert cli.main(["reproduce", "--smoke", "--out", str(out)]) == 0
    assert "plain RAG" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in out.glob("*/model/model.safetensors")}
    assert len(made) == 5
    monkeypatch.setattr(runner, "Processes", lambda: pytest.fail("a process would be started"))
    monkeypatch.setattr(runner, "work", lambda runs, console: _nothing_left(runs[0].steps))
    assert cli.main(["reproduce", "--smoke", "--out", str(out)]) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}


def _nothing_left(steps) -> None:
    assert all(step.is_done() for step in steps)
