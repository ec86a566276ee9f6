"""RMT and ARMT learn, with the library's trainer: recall of a value over two segments, and simulated qa1."""

import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from lm2.demo.config import DemoConfig
from lm2.demo.contender import train_one
from lm2.demo.material import prepare_evaluation, prepare_training, sources_of
from lm2.demo.recipe import recipe_of
from lm2.demo.runner import settings_of
from lm2.settings import check_settings
from lm2.training import BatchRequest, RunConfig, Stage, train
from tests.baselines.cases import SHAPE, VOCABULARY, M, T

KINDS = {"rmt": RMTForCausalLM, "armt": ARMTForCausalLM}
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "learn_qa1.py"
VALUES = range(10, 18)
QUESTION = 5


def narrow(kind: str) -> PreTrainedModel:
    """A model of two blocks whose matrices start at std 1/sqrt(width): the usual 0.02 is far too small for it."""
    backbone = LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=SHAPE["hidden_size"] ** -0.5))
    nn.init.normal_(backbone.get_input_embeddings().weight, std=0.1)
    return KINDS[kind].from_backbone(backbone, segment_length=T, memory_tokens=M)


def recall_rows(request: BatchRequest) -> dict[str, torch.Tensor]:
    """A value in segment 0, noise, and the question at the end of segment 1: say the value."""
    draw = torch.Generator().manual_seed(1000 * request.seed + request.step)
    ids = torch.randint(30, VOCABULARY, (len(request.rows), 2 * T), generator=draw)
    value = torch.randint(VALUES.start, VALUES.stop, (len(ids),), generator=draw)
    ids[:, 1], ids[:, -2], ids[:, -1] = value, QUESTION, value
    return {"input_ids": ids, "labels": ids.masked_fill(torch.arange(2 * T) < 2 * T - 1, -100)}


def recall_run(kind: str, seed: int, folder: Path) -> RunConfig:
    return RunConfig(
        model=partial(narrow, kind),
        make_batch=recall_rows,
        stages=(Stage(steps=180, segments=(2,), rows=32),),
        output_dir=folder,
        seed=seed,
        learning_rate=3e-3,
        schedule="trapezoid",
        warmup_steps=10,
        report_to=(),
    )


def recall_accuracy(model: PreTrainedModel) -> float:
    batch = recall_rows(BatchRequest(seed=999, step=0, rows=range(1000), segments=2))
    answers = model.eval()(batch["input_ids"][:, :-1], logits_to_keep=1).logits[:, -1].argmax(-1)
    return (answers == batch["labels"][:, -1]).float().mean().item()


@pytest.mark.parametrize("kind", ["rmt", pytest.param("armt", marks=pytest.mark.slow)])
def test_recall_over_two_segments(kind, tmp_path):
    model = train(recall_run(kind, 0, tmp_path)).model
    assert recall_accuracy(model) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_recall_over_two_segments_with_other_seeds(kind, seed, tmp_path):
    model = train(recall_run(kind, seed, tmp_path)).model
    assert recall_accuracy(model) >= 0.99


def test_lengths_grow_and_each_is_asked_and_one_beyond():
    benchmark = runpy.run_path(str(BENCHMARK))
    short, long = benchmark["Options"](), benchmark["Options"](longest=8)
    assert [phase.segments for phase in short.phases] == [(2,), (1, 2, 2)]
    assert [phase.segments for phase in long.phases[1:]] == [(1, 2, 2), (1, 2, 4, 4), (1, 2, 4, 8, 8)]
    assert sum(phase.share for phase in long.phases) == pytest.approx(1)
    assert [phase.rows for phase in benchmark["Options"](longest=16).phases] == [64, 64, 64, 128, 256]
    asked = (1, 2, 4, 8, 16, 64)
    assert short.columns(asked) == [("own", 1), ("own", 2), ("earlier", 2), ("earlier", 4)]
    assert long.columns(asked)[-2:] == [("earlier", 8), ("earlier", 16)]


@pytest.mark.parametrize("longest", [1, 3])
def test_a_longest_row_that_is_no_power_of_two_is_one_sentence(longest):
    with pytest.raises(ValueError, match=f"--longest is {longest}: it must be 2, 4, 8"):
        runpy.run_path(str(BENCHMARK))["Options"](longest=longest).check()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_simulated_qa1_at_the_trained_length(tmp_path):
    """Its short twins are the recall above, and a whole small demo in `tests/demo`."""
    demo = DemoConfig(out=tmp_path / "demo", segments=(1, 2, 4))
    demo.out.mkdir()
    recipe, sources = recipe_of(demo), sources_of(demo)
    check_settings(demo.out, settings_of(demo, recipe), "demo")
    prepare_training(demo, recipe, sources)
    prepare_evaluation(demo, recipe, sources)
    (demo.out / "base").mkdir()
    train_one(demo, "base")
    benchmark = runpy.run_path(str(BENCHMARK))
    options = benchmark["Options"](demo=demo.out, folder=tmp_path / "learn", steps=1600)  # 800 depend on the rounding
    for kind in KINDS:
        result = benchmark["learn"](kind, options)
        assert min(result["own_1"], result["own_2"], result["earlier_2"]) >= 0.99, kind
