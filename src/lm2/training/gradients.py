"""What a step's gradient looks like: its norm over the memory and over the rest, and whether it is a number at all."""

import math

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lm2.training.optimizers import is_memory


def group_norms(model: nn.Module) -> dict[str, Tensor]:
    """The gradient's norm over the memory and over the rest; nothing for a model without memory.

    Returns:
        `grad_norm_memory` and `grad_norm_base`, scalars; sqrt of their squares' sum is the norm of all.
    """
    parts: dict[str, list[Tensor]] = {"grad_norm_memory": [], "grad_norm_base": []}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts["grad_norm_memory" if is_memory(name) else "grad_norm_base"].append(parameter.grad)
    return {name: _norm(gradients) for name, gradients in parts.items()} if parts["grad_norm_memory"] else {}


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # a sharded model's is spread out


class SkippedSteps:
    """Leaves out the steps whose gradient is not finite, and ends a run that has too many of them in a row.

    Such a step's gradients are removed, so that the optimiser passes all parameters over: weights, averages and decay
    stay as they were. All processes see the same norm, hence do the same.
    """

    def __init__(self, most: int):
        self.most, self.in_a_row = most, 0
        self._skipped = self._steps = 0  # since the last log
        self._begun: tuple[int, Tensor] | None = None

    def begin(self, step: int, loss_sum: Tensor) -> None:
        """Note the sum of the losses before a step, to go back to; called before each pass of it."""
        if self._begun is None or self._begun[0] != step:
            self._begun = step, loss_sum.clone()

    def check(self, model: nn.Module, norm: Tensor | float, loss_sum: Tensor, step: int) -> bool:
        """Let a step with a finite gradient pass; else take back its loss and remove its gradients.

        Returns:
            Whether the step is skipped.

        Raises:
            FloatingPointError: it is one more than `most` in a row.
        """
        self._steps += 1
        if math.isfinite(norm):  # waits for the device: the price of not stepping on a broken gradient
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self._skipped += 1
        if self.in_a_row > self.most:
            raise FloatingPointError(
                f"The gradient was not finite in {self.in_a_row} steps in a row, up to step {step + 1}, and "
                f"max_skipped_steps is {self.most}: lower the learning rate, lengthen the warm-up, or look at the rows "
                "of these steps."
            )
        model.zero_grad(set_to_none=True)
        assert self._begun is not None
        loss_sum.copy_(self._begun[1])
        return True

    def log(self, logs: dict[str, float]) -> None:
        """Put the count into a log, and make its loss the mean over the other steps (nan if there is none)."""
        if self._skipped:
            counted = self._steps - self._skipped
            logs["loss"] = logs["loss"] * self._steps / counted if counted else math.nan
            logs["skipped_steps"] = self._skipped
        self._skipped = self._steps = 0
