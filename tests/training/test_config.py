"""A run's values: checks, the curriculum's arithmetic, and the description that is saved."""

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from transformers import LlamaConfig

from lm2.training import BatchRequest, RunConfig, Stage
from lm2.training.config import differences


def build(width: int):
    raise AssertionError(f"not called here: {width}")


def rows(request: BatchRequest):
    raise AssertionError(f"not called here: {request}")


def a_run(**fields) -> RunConfig:
    stages = (Stage(steps=5), Stage(steps=200, segments=(1, 2, 4), rows=8))
    defaults = {"model": partial(build, width=4), "make_batch": rows, "stages": stages, "output_dir": Path("out")}
    return RunConfig(**{**defaults, **fields})


def test_stages_follow_each_other():
    run = a_run()
    assert run.steps == 205
    assert [run.stage_at(step).rows for step in (0, 4, 5, 204, 1000)] == [32, 32, 8, 8, 8]


def test_segments_are_a_function_of_seed_and_step():
    run, again, other = a_run(), a_run(), a_run(seed=1)
    drawn = [run.segments_at(step) for step in range(205)]
    assert drawn == [again.segments_at(step) for step in range(205)]
    assert drawn != [other.segments_at(step) for step in range(205)]
    assert drawn[:5] == [1] * 5
    counts = Counter(drawn[5:])
    assert set(counts) == {1, 2, 4}
    assert min(counts.values()) > 40


def test_description_is_json_and_names_functions_with_their_arguments():
    described = a_run(model=partial(build, width=LlamaConfig(hidden_size=64))).describe()
    read_back = json.loads(json.dumps(described))
    assert read_back["model"]["function"].endswith("test_config.build")
    assert read_back["model"]["width"]["hidden_size"] == 64
    assert read_back["stages"][1]["segments"] == [1, 2, 4]
    assert read_back["output_dir"] == "out"


def test_differences_name_only_what_changes_the_weights():
    one, two = a_run().describe(), a_run(output_dir=Path("b"), log_every=3, learning_rate=0.5).describe()
    assert differences(one, two) == ["learning_rate: 0.001 then, 0.5 now"]


def test_differences_inside_a_value_are_named_by_their_path():
    one, two = (
        a_run(model=partial(build, LlamaConfig(vocab_size=32 * n)), betas=(0.9, 1 - 0.25 * n)).describe()
        for n in (1, 2)
    )
    assert differences(one, two) == ["betas.1: 0.75 then, 0.5 now", "model.arguments.0.vocab_size: 32 then, 64 now"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ()}, "0 steps"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"learning_rate": -1.0}, r"learning_rate must be a finite number of 0 or more, got -1\.0"),
        ({"learning_rate": math.inf}, r"learning_rate must be a finite number of 0 or more, got inf"),
        ({"warmup_steps": 205}, "got 205 of 205"),
        ({"evaluation_every": 7}, "got None and 7"),
    ],
)
def test_errors_name_the_values(fields, message):
    with pytest.raises(ValueError, match=message):
        a_run(**fields)


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ValueError, match=r"^5 things are wrong") as raised:
        a_run(accumulation=3, learning_rate=float("nan"), save_every=0, held_out=dict)
    for part in (
        "save_every must be at least 1, got 0",
        "got nan",
        "3 passes, got 32",
        "got builtins.dict and None",
        "3 passes, got 8",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0}, "^steps is 0: each must be 1 or more"),
        ({"steps": 1, "segments": ()}, "^segments is 0: each"),
        ({"steps": -1, "rows": 0, "segments": (2, 0)}, "^steps is -1 and rows is 0 and segments is 0: each"),
    ],
)
def test_stage_errors_name_the_values(fields, said):
    with pytest.raises(ValueError, match=said):
        Stage(**fields)


def test_a_field_that_an_older_description_lacks_has_its_default():
    older = a_run().describe()
    del older["gate_learning_rate_factor"], older["schedule"]
    assert differences(older, a_run().describe()) == []
    changed = a_run(gate_learning_rate_factor=0.5).describe()
    assert differences(older, changed) == ["gate_learning_rate_factor: 1.0 then, 0.5 now"]
