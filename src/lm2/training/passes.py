"""A run's batches, pass by pass: arithmetic in the number of the pass, so that no loader has a state to save."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lm2.training.config import BatchRequest, RunConfig


class Passes(Dataset):
    """Item i is the batch of pass i (counted over the whole run) for one process."""

    def __init__(self, run: RunConfig, process: int, processes: int):
        self.run, self.process, self.processes = run, process, processes

    def __len__(self) -> int:
        return self.run.steps * self.run.accumulation

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step, part = divmod(index, self.run.accumulation)
        rows = self.run.stage_at(step).rows // (self.run.accumulation * self.processes)
        first = (part * self.processes + self.process) * rows
        request = whole_step(self.run, step)
        return self.run.make_batch(replace(request, rows=request.rows[first : first + rows]))


class StillToDo(Sampler):
    """The numbers of the passes after the steps that are done, of which a trainer knows only when it begins."""

    def __init__(self, run: RunConfig, steps_done: Callable[[], int]):
        self.run, self.steps_done = run, steps_done

    def __len__(self) -> int:
        return self.run.steps * self.run.accumulation

    def __iter__(self):
        return iter(range(self.steps_done() * self.run.accumulation, len(self)))


def whole_step(run: RunConfig, step: int) -> BatchRequest:
    """All rows of a step, whoever trains on them."""
    return BatchRequest(run.seed, step, range(run.stage_at(step).rows), run.segments_at(step))
