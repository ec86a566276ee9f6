"""How much memory a computation takes, and how much arithmetic: without doing it, on the meta device."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, and the most that lived at one time."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}
        for tensor in known:
            self._alive[id(tensor.untyped_storage())] = tensor  # kept alive, so that no other gets its id

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(step: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """The most bytes that live at one time in a forward and backward pass, above weights and gradients.

    Args:
        step: makes the loss. With its parameters on the meta device nothing is computed, so that a model is measured
            that would not fit.
        parameters: the weights; they get zero gradients, which do not count either.
    """
    parameters = list(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with _LiveBytes([*parameters, *gradients]) as live:
        step().backward()
    return live.peak
