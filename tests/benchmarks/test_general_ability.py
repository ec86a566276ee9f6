"""Continued training of a tiny base with and without a memory, and what it costs, as one command in pieces."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lm2.data.prepare import prepare
from lm2.data.sources import FileSource
from tests.benchmarks.scripts import script
from tests.evaluation import plain_mmlu, tiny

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("default")  # the harness warns about its own dependencies
ARMS = ("control", "lm2", "rmt")


@pytest.fixture(scope="module")
def ability():
    return script("general_ability")


@pytest.fixture
def options(ability, tmp_path):
    """Five updates of each arm, three held-out documents and four questions."""
    for name, first in (("train", 0), ("test", 10)):
        lines = [json.dumps({"text": tiny.prose(100, seed)}) for seed in range(first, first + 3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    base = tiny.save(tiny.llama(2048), tmp_path / "base")
    prepare([FileSource("texts", tmp_path / "train.jsonl")], tiny.tokenizer(), tmp_path / "store", processes=1)
    return ability.Options(
        data=tmp_path / "store",
        text=tmp_path / "test.jsonl",
        base=str(base),
        out=tmp_path / "out",
        segment_length=32,
        whole=256,
        memory_layers=(0, 1),
        memory_slots=4,
        memory_tokens=4,
        steps=5,
        segments=3,
        rows=2,
        learning_rate=1e-3,
        text_segments=4,
        mmlu=plain_mmlu.write_csv(tmp_path / "mmlu", ["anatomy"], questions=4),
        subjects=("anatomy",),
        shots=0,
    )


@pytest.mark.slow
def test_the_arms_in_pieces_and_what_they_cost(ability, options, capsys):
    assert not ability.main(replace(options, minutes=0))
    assert not (options.out / "general_ability.json").exists()
    assert ability.main(options)
    report = json.loads((options.out / "general_ability.json").read_text())
    models = report["models"]
    assert list(models) == ["base", "base in segments", *(f"{arm}{end}" for arm in ARMS for end in ("", " whole"))]
    assert all(model["documents"] == 3 for model in models.values())
    check_the_base(options)
    check_whole_segments(options)
    pairs = {(pair["first"], pair["second"]): pair for pair in report["paired"]}
    assert {("lm2", "base in segments"), ("rmt whole", "base"), ("lm2 whole", "control whole")} < set(pairs)
    for (first, second), pair in pairs.items():
        assert pair["loss"]["low"] <= pair["loss"]["mean"] <= pair["loss"]["high"]
        assert pair["loss"]["n"] == 3
        assert pair["mmlu"]["n"] == 4
        difference = models[first]["mmlu"] - models[second]["mmlu"]
        assert pair["mmlu"]["mean"] == pytest.approx(difference)
        if first.endswith("whole") == second.endswith("whole"):
            assert pair["loss"]["mean"] == pytest.approx(models[first]["loss"] - models[second]["loss"])
    assert "| lm2 | base in segments |" in (options.out / "general_ability.md").read_text()


def check_the_base(options) -> None:
    """In segments it is the base without a memory, and the control has moved away from it."""
    plain = tiny.llama(2048).state_dict()
    alone, control = (load_file(options.out / name / "model.safetensors") for name in ("segments", "control/model"))
    assert set(alone) == set(control) == set(plain)
    assert all(torch.equal(alone[name], plain[name]) for name in alone)
    assert any(not torch.equal(control[name], plain[name]) for name in control)


def check_whole_segments(options) -> None:
    """The weights of the trained models, read in longer segments."""
    for arm in ARMS:
        trained, whole = (AutoModelForCausalLM.from_pretrained(options.out / arm / f) for f in ("model", "model-256"))
        assert (trained.config.segment_length, whole.config.segment_length) == (32, 256)
        assert all(torch.equal(value, whole.state_dict()[name]) for name, value in trained.state_dict().items())


def test_held_out_documents_that_are_too_short_are_refused_before_any_training(ability, options):
    with pytest.raises(
        ValueError, match=r"must have 1,000,000 tokens .*the longest of 3 has [0-9,]+: give longer documents"
    ):
        ability.main(replace(options, whole=1_000_000))
    assert not any((options.out / arm / "all").exists() for arm in ARMS)


def test_all_arms_read_the_same_rows(ability, options):
    plans = {arm: ability.plan_of(arm, options).phases["all"] for arm in ARMS}
    described = {arm: run.describe() for arm, run in plans.items()}
    same = ("make_batch", "stages", "seed", "learning_rate", "memory_learning_rate_factor", "schedule", "weight_decay")
    for name in same:
        assert described["control"][name] == described["lm2"][name] == described["rmt"][name]
