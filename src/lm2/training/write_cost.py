"""A price on writing: what a segment does not need to write, it does not write.

Once every training answer is right, nothing in the loss asks for less writing from segments that hold nothing of
interest, and what such writes do to a bank shows only in texts much longer than those of training.

The price can be on the rows themselves, or on quiet text that is read beside them: text of which nothing will be asked.
A price on the rows is one on facts, too, and closes gates on what is hard to learn (docs/log.md, 2026-11-27).
"""

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lm2.memory import Worth

Forward = Callable[[Any, dict[str, Any], int], Any]
QUIET = "quiet_ids"
"""Name of the quiet text, (R, L), in a batch that has any."""
FIRST = 0.005
"""What a rising price is at first, whatever it ends at: several tasks are not learned where each attempt costs."""


def fresh_rows(model: nn.Module, batch: dict[str, Any], step: int) -> Any:
    """The plain pass: every row starts from M_0."""
    return model(**batch, use_cache=False)


def price(cost: float, rise: tuple[int, int], step: int) -> float:
    """FIRST up to the first step of `rise`, the cost from the second on, between by equal factors, never above it."""
    first, last = rise
    if step >= last or cost <= FIRST:
        return cost
    return cost * (FIRST / cost) ** (1 if step <= first else (last - step) / (last - first))


def priced(cost: float, rise: tuple[float, float], steps: int, forward: Forward = fresh_rows) -> Forward:
    """The `training_forward` of a run of so many steps whose price rises between these shares of them.

    Raises:
        ValueError: the cost is below 0 or no number, or the shares are out of order, or not between 0 and 1.
    """
    if not 0 <= cost < math.inf:
        raise ValueError(f"the price on writing must be 0 or more, and write_cost is {cost:g}: 0 is none")
    first, last = rise
    if not 0 <= first <= last <= 1:
        raise ValueError(
            f"the price on writing rises between two shares of the steps, 0 to 1, the first not above the second, and "
            f"write_cost_rise is {first:g} {last:g}"
        )
    at = round(first * steps), round(last * steps)
    return partial(with_write_cost, cost=cost, rise=at, forward=forward)


def with_write_cost(
    model: nn.Module,
    batch: dict[str, Any],
    step: int,
    cost: float,
    rise: tuple[int, int] = (0, 0),
    forward: Forward = fresh_rows,
) -> Any:
    """A `training_forward`: one pass whose loss is loss + price * mean rho, over tokens, heads and memories.

    The rho are those of the batch's rows or, where it has quiet text, of that alone, which costs a pass of its own.
    Passes and processes share the price as they share the loss, by their number of labels. A model without write gates
    trains as it is.

    Args:
        cost: the price, see `price`.
        rise: steps between which it rises. What is hard to learn is not learned where each attempt costs: gates are
            closed on facts before the memory can use them.
        forward: makes the pass that is paid for.
    """
    quiet_RL = batch.get(QUIET)
    rows = {name: value for name, value in batch.items() if name != QUIET}
    with watched_gates(model) as rhos:
        output = forward(model, rows, step)
        if quiet_RL is not None and rhos:
            rhos.clear()
            # FSDP gathers a block's weights when a gradient comes to its output, be it one of zeros
            output.loss = output.loss + 0 * model(quiet_RL, logits_to_keep=1, use_cache=False).logits.sum()
    if rhos:
        part = (batch["labels"][:, 1:] != -100).sum() / batch["num_items_in_batch"]
        mean = torch.stack([rho.mean() for rho in rhos]).mean()
        output.loss = output.loss + price(cost, rise, step) * part * mean
    return output


@contextmanager
def watched_gates(model: nn.Module) -> Generator[list[Tensor]]:
    """While open, the rho of every write gate in every pass is appended to the list."""
    rhos: list[Tensor] = []
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, Worth):
                hooks.enter_context(module.register_forward_hook(lambda gate, inputs, rho: rhos.append(rho)))
        yield rhos
