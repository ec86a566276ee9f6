"""How fast a run is: tokens per second and, where model and device are known, the share of the device's peak."""

import time
from typing import Any

from lm2.modeling import LM2ForCausalLM
from lm2.training.config import RunConfig
from lm2.training.flops import device_peak, forward_flops


class Speed:
    """Counts the tokens and operations of all processes between two logs; time spent elsewhere can be taken out."""

    def __init__(self, run: RunConfig, model: Any, processes: int):
        self.model, self.processes = model, processes
        self.peak = run.device_flops or device_peak(run.bf16)
        self._flops_of: dict[int, int] = {}  # by segments of a row
        self._restart()

    def count(self, rows: int, columns: int) -> None:
        """Count a pass of one process, as which all are."""
        self._tokens += rows * columns * self.processes
        if self.peak is not None and isinstance(self.model, LM2ForCausalLM):
            segments = -(-columns // self.model.config.segment_length)
            if segments not in self._flops_of:
                self._flops_of[segments] = 3 * forward_flops(self.model, segments)
            self._flops += rows * self._flops_of[segments] * self.processes

    def leave_out(self, seconds: float) -> None:
        """Do not count this time."""
        self._since += seconds

    def log(self, logs: dict[str, float]) -> None:
        """Put the speed since the last log into a log."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        logs["tokens_per_second"] = round(self._tokens / seconds, 1)
        if self._flops:
            assert self.peak is not None
            logs["mfu"] = self._flops / seconds / (self.peak * self.processes)
        self._restart()

    def _restart(self) -> None:
        self._tokens = self._flops = 0
        self._since = time.perf_counter()
