"""Gradients that are no numbers change nothing and are counted; norms and learning rates are told apart by group."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from lm2.training import LM2Trainer, train
from lm2.training.gradients import group_norms
from lm2.training.optimizers import make_optimizer, parameter_groups
from tests.training.test_trainer import a_run, lm2, log_of, plain, seeded


def broken_at(steps, kind="gradient"):
    """A forward whose loss, or only its gradient, is not finite at some steps."""

    def forward(model, batch, step):
        output = model(**batch, use_cache=False)
        if step in steps:
            root = (output.loss * 0).sqrt() if kind == "gradient" else output.loss * math.nan
            output.loss = output.loss + root
        return output

    return forward


def optimizer_state(checkpoint):
    """The averages that the optimiser keeps, without the learning rates, which the schedule moves in every step."""
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    parts = [saved] if "state" in saved else saved.values()
    return [{i: {k: v.tolist() for k, v in own.items()} for i, own in part["state"].items()} for part in parts]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_broken_step_changes_no_weight(tmp_path, optimizer, max_grad_norm):
    settings = {"optimizer": optimizer, "max_grad_norm": max_grad_norm, "save_every": 1, "keep_checkpoints": 9}
    run = a_run(tmp_path, lm2, training_forward=broken_at({3}), **settings)
    train(run)
    before, after, later = (load_file(tmp_path / f"checkpoint-{n}" / "model.safetensors") for n in (3, 4, 5))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(after[name], later[name]) for name in before)
    averages = [str(optimizer_state(tmp_path / f"checkpoint-{n}")) for n in (3, 4, 5)]
    assert averages[0] == averages[1] != averages[2]


@pytest.mark.parametrize("kind", ["gradient", "loss"])
def test_broken_steps_are_counted_and_the_others_make_the_loss(tmp_path, kind):
    usual = a_run(tmp_path / "usual", learning_rate=0.0)
    train(usual)
    losses = [loss for (loss,) in log_of(usual, "loss")]
    run = a_run(tmp_path / "broken", learning_rate=0.0, log_every=3, training_forward=broken_at({1, 3, 4, 5}, kind))
    train(run)
    first, second = log_of(run, "loss", "skipped_steps")
    assert first == (pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5), 1)
    assert second == (None, 3)


def test_a_broken_step_of_several_passes_takes_back_the_loss_of_all(tmp_path):
    usual = a_run(tmp_path / "usual", learning_rate=0.0, accumulation=2)
    train(usual)
    losses = [loss for (loss,) in log_of(usual, "loss")]
    broken = {"log_every": 3, "accumulation": 2, "training_forward": broken_at({1, 4})}
    run = a_run(tmp_path / "broken", learning_rate=0.0, **broken)
    train(run)
    first, _ = log_of(run, "loss", "skipped_steps")
    assert first == (pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5), 1)


def test_too_many_in_a_row_stop_the_run(tmp_path):
    run = a_run(tmp_path, training_forward=broken_at({0, 2, 3, 4}), max_skipped_steps=2)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row, up to step 5, and max_skipped_steps is 2"):
        train(run)
    assert [step for (step,) in log_of(run, "step")] == [1, 2, 3, 4]


def test_the_norms_of_memory_and_base_make_up_the_whole(tmp_path):
    run = a_run(tmp_path, lm2, max_grad_norm=1e-3)
    train(run)
    rows = log_of(run, "grad_norm", "grad_norm_base", "grad_norm_memory")
    assert len(rows) == 6
    for whole, base, memory in rows:
        assert math.hypot(base, memory) == pytest.approx(whole, rel=1e-4)
        assert base > 1e-3  # of the gradient as it was, not as it was scaled down
    model = seeded(plain)
    model(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 3, dtype=torch.long)).loss.backward()
    assert group_norms(model) == {}


class AsStepped(TrainerCallback):
    """The norm of the gradient that the optimiser gets."""

    def __init__(self):
        self.norms: list[float] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.norms.append(nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()]).item())


@pytest.mark.parametrize("most", [0.0, 0.5, 1e3])
def test_gradients_are_scaled_down_to_the_most(tmp_path, most):
    run, seen = a_run(tmp_path, lm2, max_grad_norm=most), AsStepped()
    trainer = LM2Trainer(run, seeded(lm2))
    trainer.add_callback(seen)
    trainer.train()
    logged = [norm for (norm,) in log_of(run, "grad_norm")]
    assert all(norm > 0.5 for norm in logged)
    assert seen.norms == pytest.approx([min(norm, most or math.inf) for norm in logged], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_gates_have_their_own_rate(tmp_path, optimizer):
    model = seeded(lm2)
    run = a_run(tmp_path, optimizer=optimizer, memory_learning_rate_factor=3.0, gate_learning_rate_factor=0.5)
    rates = {id(p): group["lr"] for group in make_optimizer(model, run).param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        if "_gate." in name and "memory" in name:
            assert rates[id(parameter)] == pytest.approx(1e-2 * 3 * 0.5), name
        elif "memory" in name and "norm" in name:
            assert rates[id(parameter)] == pytest.approx(1e-2 * 3), name
        elif name.endswith("mlp.gate_proj.weight"):
            assert rates[id(parameter)] == 1e-2, name
    as_before = parameter_groups(model, a_run(tmp_path, optimizer=optimizer))
    assert len(as_before) == (5 if optimizer == "muon" else 4)
