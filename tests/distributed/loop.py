"""A plain training loop that one process and two do alike, with a price on writing: rows, model and steps."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lm2 import LM2ForCausalLM
from lm2.training.optimizers import make_optimizer
from lm2.training.write_cost import QUIET, with_write_cost
from tests.training.test_trainer import SHAPE, T, a_run, lm2

ROWS, STEPS, SEGMENTS = 4, 3, 4


def build() -> LM2ForCausalLM:
    torch.manual_seed(1)
    return lm2().train()


def rows_of(step: int, first: int, last: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(SHAPE["vocab_size"], (ROWS, SEGMENTS * T), generator=generator)[first:last]


def adamw(model: LM2ForCausalLM) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def muon(model: LM2ForCausalLM) -> Optimizer:
    """As a run has it: Muon for matrices, AdamW for the rest."""
    return make_optimizer(model, a_run(Path(), lm2, optimizer="muon", muon_learning_rate=1e-2, learning_rate=1e-2))


def loop(model: LM2ForCausalLM, optimizer: Optimizer, first: int, last: int) -> list[tuple[float, float]]:
    """Loss over all rows and gradient norm of each step, trained on rows `first` to `last` of each."""
    found = []
    share = ROWS // (last - first)
    for step in range(STEPS):
        ids = rows_of(step, first, last)
        batch = {"input_ids": ids, "labels": ids, "num_items_in_batch": ROWS * (SEGMENTS * T - 1)}
        batch[QUIET] = rows_of(STEPS + step, 0, 1)
        loss = with_write_cost(model, batch, step, cost=1.0).loss * share
        loss.backward()  # gradients are averaged over the processes
        norm = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / share
        if share > 1:
            torch.distributed.all_reduce(mean)
        found.append((mean.item(), norm.item()))
    return found
