"""What answers BABILong's questions, loaded onto a device that is not the CPU."""

import pytest

from lm2.evaluation.models import RunnerOptions, load_runner, parse_spec
from tests.accelerator import DEVICE, accelerator
from tests.evaluation import tiny

BEFORE, AFTER, NEW = "<context>\n", "\n</context>\n\nQuestion: Where is Mary?", 8
TEXT = tiny.prose(3)
"""Short: random weights make much of a difference in rounding, segment after segment."""


@pytest.fixture
def load(tmp_path):
    def load(kind: str, how: str = "", device: str = DEVICE, dtype: str = "auto"):
        folder = tiny.save(tiny.llama() if kind == "llama" else tiny.memory_model(kind), tmp_path / kind)
        return load_runner(parse_spec(f"{kind}={folder}{how}"), RunnerOptions(device=device, dtype=dtype))

    return load


@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
def test_a_text_is_read_as_on_the_cpu(load, kind):
    """By the next token's logits: a greedy answer of random weights may turn on a difference in rounding."""
    wanted = load(kind, device="cpu").read(BEFORE, [TEXT]).logits_RV
    with accelerator():
        found = load(kind, dtype="float32").read(BEFORE, [TEXT]).logits_RV.cpu()
    assert (found - wanted).norm() <= 0.05 * wanted.norm()


@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
def test_a_memory_answers_in_bfloat16_unless_asked_otherwise(load, kind):
    with accelerator():
        runner = load(kind)
        assert runner.description["dtype"] == "bfloat16"
        assert runner.answer(BEFORE, [TEXT], AFTER, NEW)


def test_attention_answers_as_on_the_cpu(load):
    wanted = load("llama", "@last:48", device="cpu").answer(BEFORE, [TEXT], AFTER, NEW)
    with accelerator():
        assert load("llama", "@last:48", dtype="float32").answer(BEFORE, [TEXT], AFTER, NEW) == wanted


@pytest.mark.parametrize("how", ["@full", "@window:24", "@rag:2"])
def test_other_ways_to_read(load, how):
    with accelerator():
        assert load("llama", how).answer(BEFORE, [TEXT], AFTER, NEW)


@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
def test_controls_and_texts_side_by_side(load, kind):
    with accelerator():
        runner = load(kind)
        for policy in (None, runner.reset, runner.frozen_after(2)):
            readings = runner.read_all(BEFORE, [[TEXT], ["Hi"], [tiny.prose(5, seed=3)]], policy)
            assert all(runner.finish(reading, AFTER, 2) for reading in readings)
        assert runner.finish(runner.exchange(readings[0], readings[2]), AFTER, 2)
