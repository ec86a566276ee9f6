"""Does the memory do anything? Measured on a held-out batch.

* The loss of each segment, with the memory carried from segment to segment and with it reset before each: a memory that
  does nothing shows no difference.
* What the banks do: how far the gates are open, how much is offered to how many slots, how much a write changes.

Shape suffixes: B rows, L columns, T columns of a segment, S segments; others as in `lm2.memory`.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm2.memory import LM2Memory, normalise

BINS = 20
GATES = ("write_gate", "output_gate", "input_gate", "forget_gate", "mass")
"""Values between 0 and 1 of which histograms are made."""


@dataclass
class BankRecord:
    """What one block's bank did, summed over the segments it was watched for."""

    histograms: dict[str, Tensor] = field(default_factory=lambda: {name: torch.zeros(BINS) for name in GATES})
    sums: dict[str, float] = field(default_factory=dict)
    segments: int = 0

    def add(self, values: dict[str, Tensor], slots_used: Tensor, write_norm: Tensor) -> None:
        """Count one segment: gate values in [0, 1], the number of slots used, and a write's relative size."""
        self.segments += 1
        for name, value in values.items():
            self.histograms[name] += torch.histc(value.float(), BINS, 0, 1).cpu()
            self._sum(name, value.mean())
        self._sum("slots_used", slots_used)
        self._sum("write_norm", write_norm)

    def _sum(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value.item()

    def means(self) -> dict[str, float]:
        """The mean of each quantity over the segments."""
        return {name: total / self.segments for name, total in self.sums.items()}


@dataclass(frozen=True)
class Watched:
    """One measurement: nats per label by segment, (S,) each, and a record for each block with a bank."""

    carried: list[float]
    reset: list[float]
    banks: dict[str, BankRecord]

    def scalars(self) -> dict[str, float]:
        """Means for the log. `gain` is what the memory saves per label after the first segment."""
        later_carried, later_reset = (_mean(losses[1:] or losses) for losses in (self.carried, self.reset))
        values = {"carried": later_carried, "reset": later_reset, "gain": later_reset - later_carried}
        values |= {"loss_first": self.carried[0], "loss_last": self.carried[-1]}
        means = [record.means() for record in self.banks.values() if record.segments]
        return values | {name: _mean([own[name] for own in means]) for name in (means[0] if means else ())}

    def record(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        banks = {
            name: {"histograms": {key: counts.tolist() for key, counts in record.histograms.items()}, **record.means()}
            for name, record in self.banks.items()
            if record.segments
        }
        return {"carried": self.carried, "reset": self.reset, "banks": banks}

    def histograms(self) -> dict[str, Tensor]:
        """Counts over `BINS` equal bins of [0, 1], by block and quantity."""
        return {
            f"watch/{block}.{name}": counts
            for block, record in self.banks.items()
            for name, counts in record.histograms.items()
        }


@torch.no_grad()
def watch(model: Any, batch: dict[str, Tensor]) -> Watched:
    """Read a batch segment by segment, and measure.

    Args:
        model: LM2 or one of the baselines with segments.
        batch: input_ids and labels, (B, L), without padding.
    """
    ids_BL, labels_BL = (batch[name].to(model.device) for name in ("input_ids", "labels"))
    T = model.config.segment_length
    banks = {name: BankRecord() for name, module in model.named_modules() if isinstance(module, LM2Memory)}
    reset = _segment_losses(model, ids_BL, labels_BL, T, carry=False)
    with ExitStack() as hooks:
        for name, record in banks.items():
            memory = model.get_submodule(name)
            hooks.enter_context(memory.register_forward_pre_hook(partial(_look, record=record)))
        carried = _segment_losses(model, ids_BL, labels_BL, T, carry=True)
    return Watched(carried, reset, banks)


def _segment_losses(model: Any, ids_BL: Tensor, labels_BL: Tensor, T: int, carry: bool) -> list[float]:
    """The mean loss of the labels that each segment's positions predict: the last predicts the next one's first."""
    state, losses = None, []
    next_BL = F.pad(labels_BL[:, 1:], (0, 1), value=-100)
    for start in range(0, ids_BL.shape[1], T):
        output = model(ids_BL[:, start : start + T], past_key_values=state if carry else None, use_cache=True)
        state = output.past_key_values
        target = next_BL[:, start : start + T].flatten()
        total = F.cross_entropy(output.logits.flatten(0, 1).float(), target, reduction="sum")
        losses.append(total.item() / max(1, int((target != -100).sum())))
    return losses


def _look(memory: LM2Memory, inputs: tuple[Any, ...], *, record: BankRecord) -> None:
    """Before a memory reads and writes a segment: do the same beside it, and note what comes out on the way."""
    x_RTD, bank_RND = inputs[0][:, 0], inputs[1]
    with torch.autocast(x_RTD.device.type, enabled=False):
        q_RTD, rho_RTH, u_RTD = memory.project(x_RTD)
        norm_RND = normalise(bank_RND)
        read_RTD = memory.read(q_RTD[:, None], norm_RND[:, None])
        mass_RND, offer_RND = memory.offer(memory.align(q_RTD, norm_RND), rho_RTH, u_RTD)
        both = torch.cat([offer_RND, norm_RND], -1)
        start_ND = memory.initial_bank(1, x_RTD.device)[0]
        change_RND = memory.update(bank_RND, norm_RND, start_ND, mass_RND, offer_RND) - bank_RND
        values = {
            "write_gate": rho_RTH,
            "output_gate": memory.output_gate(read_RTD).sigmoid(),
            "input_gate": memory.input_gate(both).sigmoid(),
            "forget_gate": memory.forget_gate(both).sigmoid(),
            "mass": mass_RND,
        }
    record.add(values, _slots_used(mass_RND), change_RND.norm() / bank_RND.norm())


def _slots_used(mass_RND: Tensor) -> Tensor:
    """exp of the entropy of the mass over the slots, a mean over rows and heads: N where all get as much, 1 where one
    gets all, 0 where nothing is written."""
    share_RND = mass_RND / mass_RND.sum(1, keepdim=True).clamp_min(1e-9)
    return (torch.special.entr(share_RND).sum(1).exp() * (mass_RND.sum(1) > 1e-6)).mean()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def has_segments(model: nn.Module) -> bool:
    """Whether a model can be watched."""
    return hasattr(getattr(model, "config", None), "segment_length")
