"""What updates which weights.

AdamW has groups: no weight decay on norms, biases, gates and initial memories; the memory has its own learning rate,
and its gates, where their factor says so, have another.
With `optimizer="muon"` the matrices between embedding and head get Muon instead, whose update gives every direction of
the gradient the same weight: what few tokens ask for is learned as soon as what most tokens share.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (`torch.optim.Muon`).
"""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lm2.training.config import RunConfig

UNDECAYED_OWNERS = ("Norm", "Gate", "MemoryTokens")
ENDS = ("embed_tokens", "lm_head")


def make_optimizer(model: nn.Module, run: RunConfig) -> Optimizer:
    """The run's optimiser. Learning rates are the peaks, which the schedule multiplies."""
    groups = parameter_groups(model, run)
    muon = [group for group in groups if group.pop("muon")]
    others = [group for group in groups if not any(group is other for other in muon)]
    adamw = torch.optim.AdamW(others, lr=run.learning_rate, betas=run.betas, fused=True)
    if not muon:
        return adamw
    return Together(adamw, torch.optim.Muon(muon, lr=run.muon_learning_rate))


def parameter_groups(model: nn.Module, run: RunConfig) -> list[dict[str, Any]]:
    """Groups of parameters, base before memory, each with its rates and whether it is Muon's.

    Memory is what has `memory` in its name's path, gates are its modules whose class is named so. Decayed are matrices
    that belong to no norm, gate or initial memory, and of these Muon, if the run has it, takes all but embedding and
    head. Parameters that are treated alike share a group.
    """
    groups: dict[tuple[bool, bool, bool, bool], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        undecayed = type(module).__name__.endswith(UNDECAYED_OWNERS)
        own_rate = type(module).__name__.endswith("Gate") and run.gate_learning_rate_factor != 1
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                parts = name.split(".")
                decayed = parameter.ndim >= 2 and not undecayed
                muon = run.optimizer == "muon" and decayed and parameter.ndim == 2 and not set(parts) & set(ENDS)
                memory = is_memory(name)
                groups.setdefault((memory, muon, decayed, memory and own_rate), []).append(parameter)
    return [_group(run, groups[key], *key) for key in sorted(groups)]


def is_memory(name: str) -> bool:
    """Whether a parameter of this name belongs to a memory."""
    return "memory" in name.split(".")


def _group(
    run: RunConfig, parameters: list[nn.Parameter], memory: bool, muon: bool, decayed: bool, gate: bool
) -> dict[str, Any]:
    rate, decay = run.learning_rate, run.weight_decay
    if muon:
        rate, decay = run.muon_learning_rate, run.muon_weight_decay
    if memory:
        rate *= run.memory_learning_rate_factor
    if gate:
        rate *= run.gate_learning_rate_factor
    return {"params": parameters, "lr": rate, "weight_decay": decay if decayed else 0.0, "muon": muon}


class Together(Optimizer):
    """Several optimisers as one: a scheduler sees the groups of all, and a checkpoint holds the state of all.

    Its state has the form that every optimiser's has, which is what is gathered and divided where weights are sharded.
    """

    def __init__(self, *optimizers: Optimizer):
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give each part its very groups and this state, so that a learning rate set here is set there."""
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]
            optimizer.state = self.state

    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        """One step of each."""
        assert closure is None
        for optimizer in self.optimizers:
            optimizer.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()
