"""RULER through the harness: which tasks run, and what is said of the others."""

import json
import warnings

import pytest

from lm2.evaluation import ruler
from lm2.evaluation.ruler import NOT_RUN, TASKS, RulerOptions
from tests.evaluation.tiny import memory_model, save

# Other people's packages warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def _harness():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval", reason="needs the harness extra")
        pytest.importorskip("wonderwords", reason="needs the harness extra")


def test_every_task_of_the_harness_s_group_runs_or_has_a_reason():
    from pathlib import Path

    import lm_eval

    listed = (Path(lm_eval.__file__).parent / "tasks/ruler/ruler.yaml").read_text()
    assert all(f"- {task}\n" in listed + "\n" for task in (*TASKS, *NOT_RUN))
    assert listed.count("\n  - ") - listed.count("\n  - metric") == len(TASKS) + len(NOT_RUN)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tasks": ("niah_single_2",)}, "niah_single_2 is not run here, its text is a set of essays"),
        ({"tasks": ("niah",)}, "there is no RULER task 'niah'"),
        ({"lengths": (512,)}, "--lengths names 512: give 1,024"),
        ({"limit": 501}, "--limit is 501: a task has 500"),
        ({"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_options_that_cannot_be(wrong, said):
    with pytest.raises(ValueError, match=said):
        RulerOptions(("x",), **wrong)


def ask(kinds, tasks, tmp_path, **changes) -> dict:
    models = tuple(f"{kind}={save(memory_model(kind), tmp_path / kind)}" for kind in kinds)
    ruler.run(RulerOptions(models, tasks, (1024,), limit=2, out=tmp_path / "out", **changes))
    return json.loads((tmp_path / "out/ruler.json").read_text())


@pytest.mark.timeout(600)
def test_variable_tracking_runs_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    report = ask(["lm2"], ("ruler_vt",), tmp_path)
    (found,) = report["models"][0]["cells"]
    assert (found["task"], found["length"], found["n"]) == ("ruler_vt", 1024, 2)
    assert 500 < found["longest_input"] <= 1024
    assert found["score"] == sum(found["scores"]) / 2
    page = (tmp_path / "out/ruler.md").read_text()
    monkeypatch.setattr(ruler, "ask_cell", None)
    ask(["lm2"], ("ruler_vt",), tmp_path)
    assert (tmp_path / "out/ruler.md").read_text() == page


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_all_tasks_run_for_every_model_with_a_memory(tmp_path):
    report = ask(["lm2", "rmt"], TASKS, tmp_path, batch_size=2)
    for model in report["models"]:
        assert [one["task"] for one in model["cells"]] == list(TASKS)
        assert all(one["n"] == 2 and one["longest_input"] <= 1024 for one in model["cells"])
