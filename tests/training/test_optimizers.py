"""Which parameters share a rate and a decay, and which optimiser has them."""

import pytest
import torch
from torch import nn

from lm2.training.optimizers import make_optimizer, parameter_groups
from tests.training.test_trainer import a_run, lm2, plain, rmt


class WriteGate(nn.Linear):
    pass


class ToyNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(2, 2)
        self.norm = ToyNorm()
        self.memory = nn.ModuleDict({"query": nn.Linear(2, 2, bias=False), "gate": WriteGate(2, 2)})
        self.tied = self.base
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = self.base.weight


@pytest.mark.parametrize("prefix", ["", "wrapped"])
def test_parameter_groups(tmp_path, prefix):
    toy = Toy()
    model = nn.ModuleDict({prefix: toy}) if prefix else toy
    groups = parameter_groups(model, a_run(tmp_path, memory_learning_rate_factor=3.0, weight_decay=0.1))
    found = [(len(g["params"]), round(g["lr"], 6), g["weight_decay"]) for g in groups]
    assert found == [(2, 0.01, 0.0), (1, 0.01, 0.1), (2, 0.03, 0.0), (1, 0.03, 0.1)]
    assert groups[1]["params"] == [toy.base.weight]
    assert groups[3]["params"] == [toy.memory["query"].weight]


@pytest.mark.parametrize("model", [rmt, lm2])
def test_every_parameter_is_in_one_group(tmp_path, model):
    built = model()
    groups = parameter_groups(built, a_run(tmp_path))
    assert sum(len(group["params"]) for group in groups) == len(list(built.parameters()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    spared = ("norm", "bias", "memory.write_gate", "memory.output_gate", "memory.input_gate", "memory.forget_gate")
    assert not any(id(p) in decayed for name, p in built.named_parameters() if any(part in name for part in spared))
    assert any(id(p) in decayed for name, p in built.named_parameters() if "memory" in name) == (model is lm2)


@pytest.mark.parametrize("model", [rmt, lm2])
def test_muon_takes_the_matrices_between_the_ends(tmp_path, model):
    built = model()
    run = a_run(tmp_path, optimizer="muon", muon_learning_rate=0.5, memory_learning_rate_factor=3.0)
    groups = parameter_groups(built, run)
    assert sum(len(group["params"]) for group in groups) == len(list(built.parameters()))
    taken = {id(p) for group in groups if group["muon"] for p in group["params"]}
    names = {name for name, p in built.named_parameters() if id(p) in taken}
    assert any(name.endswith("down_proj.weight") for name in names)
    assert not any("norm" in name or "embed" in name or "lm_head" in name or "gate.weight" in name for name in names)
    assert {group["lr"] for group in groups if group["muon"]} == ({0.5, 1.5} if model is lm2 else {0.5})
    optimizer = make_optimizer(built, run)
    optimizer.param_groups[-1]["lr"] = 7.0
    assert any(group["lr"] == 7.0 for part in optimizer.optimizers for group in part.param_groups)


def test_muon_takes_no_weights_of_more_than_two_dimensions(tmp_path):
    (group,) = parameter_groups(nn.Conv1d(2, 2, 3, bias=False), a_run(tmp_path, optimizer="muon", weight_decay=0.02))
    assert (group["muon"], group["lr"], group["weight_decay"]) == (False, 1e-2, 0.02)


def test_muon_has_its_own_decay(tmp_path):
    run = a_run(tmp_path, optimizer="muon", weight_decay=0.02, muon_weight_decay=0.3)
    decays = {(group["muon"], group["weight_decay"]) for group in parameter_groups(lm2(), run)}
    assert decays == {(True, 0.3), (False, 0.02), (False, 0.0)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_adamw_averages_as_asked(tmp_path, optimizer):
    made = make_optimizer(plain(), a_run(tmp_path, optimizer=optimizer, betas=(0.8, 0.7)))
    assert {group["betas"] for group in made.param_groups if "betas" in group} == {(0.8, 0.7)}
