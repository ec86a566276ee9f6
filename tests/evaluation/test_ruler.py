"""RULER through the harness: which tasks run, and what is said of the others."""

import json
import random
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.evaluation import ruler
from lm2.evaluation.options import RulerOptions
from lm2.evaluation.ruler_tasks import NOT_RUN, TASKS
from lm2.evaluation.statistics import t_interval, wilson
from tests.evaluation.tiny import llama, memory_model, save

# Other people's packages warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")
ROOT = Path(__file__).parents[2]
LENGTH = 4096
"""The small tokenizer cuts words into many tokens."""


@pytest.fixture(scope="module", autouse=True)
def _harness():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval", reason="needs the harness extra")
        pytest.importorskip("wonderwords", reason="needs the harness extra")


def test_every_task_of_the_harness_s_group_runs_or_has_a_reason():
    import lm_eval

    listed = (Path(lm_eval.__file__).parent / "tasks/ruler/ruler.yaml").read_text()
    assert all(f"- {task}\n" in listed + "\n" for task in (*TASKS, *NOT_RUN))
    assert listed.count("\n  - ") - listed.count("\n  - metric") == len(TASKS) + len(NOT_RUN)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tasks": ("niah_single_2",)}, "niah_single_2 is not run here, its text is a set of essays"),
        ({"tasks": ("niah",)}, "there is no RULER task 'niah'"),
        ({"tasks": ()}, "--tasks names 0 tasks: choose among niah_single_1"),
        ({"lengths": (512,)}, "--lengths names 512: give 1,024"),
        ({"limit": 501}, "--limit is 501: a task has 500"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"lengths": (4096, 4096)}, "--lengths names 4096 twice"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_that_cannot_be(wrong, said):
    with pytest.raises(ValueError, match=said):
        RulerOptions(("x",), **wrong)


def test_the_same_seed_draws_the_same_common_words():
    from lm_eval.tasks.ruler import cwe_utils

    drawn = []
    for seed in (0, 0, 1):
        ruler.seed_everything(seed)
        drawn.append(cwe_utils.get_example(20))
    assert drawn[0] == drawn[1] != drawn[2]


def ask(kinds, tasks, tmp_path) -> dict:
    models = tuple(f"{kind}={save(memory_model(kind), tmp_path / kind)}" for kind in kinds)
    ruler.run(RulerOptions(models, tasks, (LENGTH,), limit=2, out=tmp_path / "out"))
    return json.loads((tmp_path / "out/ruler.json").read_text())


def test_a_run_writes_its_report_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """The texts are made up here; making RULER's takes the harness most of a minute (the slow test below)."""
    asked = []

    def ask_cell(harness, task, length, folder, options):
        assert (Path(folder) / "tokenizer.json").is_file()
        asked.append(task)
        return {"score": 0.25, "scores": [0.5, 0.0], "outputs": ["", ""], "longest_input": 7, "seconds": 0.1}

    monkeypatch.setattr(ruler, "ask_cell", ask_cell)
    report = ask(["lm2", "rmt"], TASKS[:2], tmp_path)
    (first, second) = report["models"][0]["cells"]
    assert (first["task"], first["length"], first["n"], first["score"]) == (TASKS[0], LENGTH, 2, 0.25)
    assert report["not_run"] == NOT_RUN
    assert (first["low"], first["high"]) == (0.0, 1.0)
    assert f"| {TASKS[1]} | 25.0 (0-100) | 25.0 (0-100) |" in (tmp_path / "out/ruler.md").read_text()
    assert second["task"] == TASKS[1]
    ask(["lm2", "rmt"], TASKS[:3], tmp_path)
    assert asked == [*TASKS[:2], *TASKS[:2], TASKS[2], TASKS[2]]
    save(memory_model("rmt"), tmp_path / "lm2")
    with pytest.raises(ValueError, match=r"of other settings \(fingerprint: \w+ then, \w+ now\)"):
        ruler.run(RulerOptions((f"lm2={tmp_path / 'lm2'}",), TASKS[:1], (LENGTH,), limit=2, out=tmp_path / "out"))


def test_the_texts_of_a_cell_are_those_of_the_seed_and_its_score_is_the_mean(harness, monkeypatch):
    """A stub draws from the three generators that the harness draws from."""
    from lm_eval.tasks.ruler import cwe_utils

    def run_task(model, task, shots, limit):
        model.longest = max(model.longest, 7)
        drawn = (random.random(), np.random.random(), cwe_utils.RNG.random())
        return [{str(LENGTH): score, "filtered_resps": [score]} for score in drawn]

    monkeypatch.setattr(harness, "run_task", run_task)
    monkeypatch.setattr(harness, "load_tasks", lambda manager, names: names)
    monkeypatch.setattr(harness, "task_manager", lambda *folder, **metadata: None)
    first, again, other = (
        ruler.ask_cell(SimpleNamespace(longest=99), "ruler_cwe", LENGTH, "", RulerOptions(("x",), seed=seed))
        for seed in (0, 0, 1)
    )
    assert first["scores"] == again["scores"]
    assert not {*first["scores"]} & {*other["scores"]}
    assert first["score"] == pytest.approx(sum(first["scores"]) / 3)
    assert first["outputs"] == [str(score) for score in first["scores"]]
    assert first["longest_input"] == 7  # of this cell, not of the one before


def test_an_interval_is_never_without_width():
    """Also of one sample, and where all scores are the same."""
    assert tuple(ruler.bounds([0.0] * 20).values()) == wilson(0, 20)
    assert tuple(ruler.bounds([0.0, 1.0, 1.0]).values()) == wilson(2, 3)
    assert tuple(ruler.bounds([0.4]).values()) == (0.0, 1.0)
    assert tuple(ruler.bounds([0.5] * 3).values()) == (wilson(1, 3)[0], wilson(2, 3)[1])
    scores = [0.4, 0.5, 0.6, 0.5]
    assert tuple(ruler.bounds(scores).values()) == t_interval(scores)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.9, 1.0]), min_size=1, max_size=8))
def test_an_interval_holds_the_mean_and_ends_at_none_and_all(scores):
    low, high = ruler.bounds(scores).values()
    assert 0 <= low <= sum(scores) / len(scores) + 1e-9
    assert sum(scores) / len(scores) - 1e-9 <= high <= 1
    assert low < high


def test_a_length_that_the_harness_would_never_fill_is_refused(tmp_path):
    model = save(memory_model("lm2"), tmp_path / "lm2")
    with pytest.raises(ValueError, match=r"--lengths names 1,024, and with this tokenizer.* the prompts need [12],\d+"):
        ruler.run(RulerOptions((str(model),), lengths=(8192, 1024), out=tmp_path / "out"))


def test_cells_stand_in_the_order_of_the_options():
    """Of several processes each has a file of its own, and lengths are added later."""
    records = [{"key": [task, length], "scores": [1.0]} for length in (8192, 4096) for task in TASKS[1::-1]]
    cells = ruler._cells(records, RulerOptions(("x",), TASKS[:2], (4096, 8192)))
    expected = [(task, length) for task in TASKS[:2] for length in (4096, 8192)]
    assert [(cell["task"], cell["length"]) for cell in cells] == expected


def test_a_length_that_a_model_does_not_take_is_refused_before_the_first_question(tmp_path):
    """What did not fit stopped the run when its turn came, with no report of the cells before it."""
    model = save(llama(LENGTH), tmp_path / "plain")
    with pytest.raises(ValueError, match=r"--lengths names 8,192, and plain takes 4,096 tokens: give that or less"):
        ruler.run(RulerOptions((str(model),), TASKS[:1], (LENGTH, 8192), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    ruler._check_limit("plain", llama(LENGTH), (LENGTH,))  # a text as long as the model takes is one that it takes


def test_a_tokenizer_without_an_end_token_is_refused():
    """The harness fails in the middle of a run, when it looks for the end of the first answer."""
    with pytest.raises(ValueError, match=r"eos_token of base is None: set tokenizer\.eos_token"):
        ruler._check_end("base", SimpleNamespace(eos_token_id=None))
    ruler._check_end("base", SimpleNamespace(eos_token_id=0))


def test_a_kind_that_would_cut_is_refused(tmp_path):
    with pytest.raises(ValueError, match="leave out @last"):
        ruler.run(RulerOptions(("x=somewhere@last:100",), out=tmp_path))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("ruler_vt", r"ruler_vt, which needs 5\d\d tokens .* has 500: leave it out$"),
        ("ruler_cwe", r"ruler_cwe, which needs \d,\d\d\d tokens .* has 4,096: leave it out, or give a greater length$"),
    ],
)
def test_a_task_whose_shortest_text_does_not_fit_is_refused(task, said, tmp_path):
    """The harness would look for a shorter one for ever, or find one without words; the small tokenizer cuts words."""
    with pytest.raises(ValueError, match=said):
        ask(["lm2"], (task,), tmp_path)


@pytest.mark.parametrize(("task", "room"), [("ruler_vt", 500 - 30), ("ruler_cwe", LENGTH - 120)])
def test_a_text_leaves_the_tokens_free_that_its_answer_may_have(task, room):
    ruler._check_texts(lambda text: SimpleNamespace(input_ids=range(room)), (task,), (LENGTH,))
    with pytest.raises(ValueError, match=rf"{task}, which needs (501|4,097) tokens"):
        ruler._check_texts(lambda text: SimpleNamespace(input_ids=range(room + 1)), (task,), (LENGTH,))


def test_a_worked_example_whose_variables_share_a_name_is_drawn_again():
    """The harness fails on it, and twenty are drawn before the first question."""
    from lm_eval.tasks.ruler import vt_utils

    def fails(seed: int) -> bool:
        random.seed(seed)
        try:
            vt_utils.generate_chains(1, 4, is_icl=True)
        except IndexError:
            return True
        return False

    seed = next((seed for seed in range(20_000) if fails(seed)), None)
    if seed is None:
        pytest.skip("this version of the harness gives each variable its own name")
    random.seed(seed)
    shortest = ruler._shortest("ruler_vt", LENGTH)
    assert shortest.room == 500
    assert shortest.text.count("VAR ") == 9  # a chain of five variables: each but the first names the one before


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_all_tasks_run_for_every_model_with_a_memory(tmp_path):
    """Models that ship, whose tokenizer has room for the shortest text of each."""
    models = tuple(str(ROOT / "models" / name) for name in ("lm2-reproduce", "rmt-reproduce"))
    ruler.run(RulerOptions(models, TASKS, (LENGTH,), limit=2, out=tmp_path / "out", batch_size=2))
    report = json.loads((tmp_path / "out/ruler.json").read_text())
    for model in report["models"]:
        assert [one["task"] for one in model["cells"]] == list(TASKS)
        for one in model["cells"]:
            assert one["n"] == 2
            assert LENGTH // 4 < one["longest_input"] <= LENGTH
            assert one["score"] == sum(one["scores"]) / 2
