"""A price on writing: what a segment does not need to write, it does not write.

Once every training answer is right, nothing in the loss asks for less writing from segments that hold nothing of
interest, and what such writes do to a bank shows only in texts much longer than those of training.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lm2.memory import WriteGate

Forward = Callable[[Any, dict[str, Any], int], Any]


def fresh_rows(model: nn.Module, batch: dict[str, Any], step: int) -> Any:
    """The plain pass: every row starts from M_0."""
    return model(**batch, use_cache=False)


def with_write_cost(
    model: nn.Module, batch: dict[str, Any], step: int, cost: float, forward: Forward = fresh_rows
) -> Any:
    """A `training_forward`: one pass whose loss is loss + cost * mean rho, over tokens, heads and memories.

    Passes and processes share the cost as they share the loss, by their number of labels. A model without write gates
    trains as it is. `forward` makes the pass that is paid for.
    """
    shares: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda gate, inputs, rho: shares.append(rho.mean()))
        for module in model.modules()
        if isinstance(module, WriteGate)
    ]
    try:
        output = forward(model, batch, step)
    finally:
        for hook in hooks:
            hook.remove()
    if shares:
        part = (batch["labels"][:, 1:] != -100).sum() / batch["num_items_in_batch"]
        output.loss = output.loss + cost * part * torch.stack(shares).mean()
    return output
