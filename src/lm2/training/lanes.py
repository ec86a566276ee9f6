"""Long documents over several steps: each row of the batch is a lane, and its banks go on from step to step.

Rows with the same index in consecutive steps are consecutive pieces of a text. The state is detached between steps, so
the gradient stays inside a step, while the memory meets what long texts leave in it.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lm2.cache import LM2Cache, cache_of, tensors_of
from lm2.configuration import LM2Config
from lm2.files import replacing


class Lanes:
    """The state of this process's rows between steps, a cache for each pass of a step.

    A batch of a run with lanes has `fresh`, (B,): the rows whose piece begins a text, and whose state begins anew. What
    a piece's last token predicts is the next piece's first, which it does not see: that label has no loss.
    """

    def __init__(self, config: LM2Config, passes: int):
        self.config = config
        self.caches = [LM2Cache(config) for _ in range(passes)]
        self._before, self._step, self._pass = list(self.caches), -1, 0

    def forward(self, model: Any, batch: dict[str, Any], step: int) -> Any:
        """One pass from where its rows were.

        Raises:
            ValueError: the batch does not say which rows begin a text.
        """
        if "fresh" not in batch:
            raise ValueError(
                f"a run with lanes needs `fresh` in each batch, and step {step} has {', '.join(sorted(batch))}: give a "
                "boolean for each row, true where its text begins"
            )
        if step != self._step:
            self._step, self._pass, self._before = step, 0, list(self.caches)
        cache = self.caches[self._pass].copy()
        if cache.rows:
            cache.reset(batch["fresh"].cpu().nonzero()[:, 0])
        self._before[self._pass] = cache.copy()
        inputs = {name: value for name, value in batch.items() if name != "fresh"}
        output = model(**inputs, past_key_values=cache)
        self.caches[self._pass] = output.past_key_values.detach()
        self._pass += 1
        return output

    def undo(self) -> None:
        """Go back to the state before the step: it was skipped, and what it left may be no numbers.

        Rows whose text began with the step begin all the same: what they go on with is of that text.
        """
        self.caches = list(self._before)

    def save(self, path: Path) -> None:
        """Write all caches to a safetensors file, whole or not at all."""
        tensors, header = {}, {"passes": str(len(self.caches))}
        for i, cache in enumerate(self.caches):
            header[f"{i}.seen"] = str(cache.seen)
            tensors |= {f"{i}.{name}": tensor for name, tensor in tensors_of(cache).items()}
        with replacing(path) as beside:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, header)

    def load(self, path: Path, device: Any) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: there is no such file, or it has another number of passes.
        """
        if not path.exists():
            raise ValueError(f"{path} is missing: resume a run with lanes with as many processes as it was saved with")
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        if int(header["passes"]) != len(self.caches):
            raise ValueError(
                f"{path} has lanes of {header['passes']} passes, and the run has {len(self.caches)}: set accumulation "
                "to what it was"
            )
        self.caches = [self._cache(i, tensors, int(header[f"{i}.seen"])) for i in range(len(self.caches))]

    def _cache(self, i: int, tensors: dict[str, Tensor], seen: int) -> LM2Cache:
        passes = ((name.split(".", 1), tensor) for name, tensor in tensors.items())
        return cache_of(self.config, {name: tensor for (own, name), tensor in passes if own == str(i)}, seen)
