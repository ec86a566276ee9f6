"""A device that is not the CPU, on a machine that has nothing else: what was left on the wrong one shows here.

Tensors on it hold their numbers on the CPU and say that they are on `cuda:0`. As on a GPU, an operation takes tensors
of one device, but for scalars and the indices of an indexing, and NumPy sees none of them. What a GPU computes
otherwise (its kernels, its rounding, its speed) does not show.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "cuda:0"
MOVES = ("aten::_to_copy", "aten::copy_")
"""Operations that take tensors of both devices."""
INDEXINGS = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
"""Operations whose second argument, the indices, may be on the CPU wherever the others are."""


class Away(Tensor):
    """A tensor on the accelerator. To torch it is on the meta device, which has no kernels that would touch it."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Away":
        """An accelerator's tensor with the numbers of a CPU's."""
        shape = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        self = Tensor._make_wrapper_subclass(cls, here.shape, device="meta", **shape)  # ty: ignore
        self.here = here
        return self

    @property
    def device(self) -> torch.device:  # ty: ignore[invalid-method-override]
        return torch.device(DEVICE)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(torch.tensor(index, dtype=torch.long) if isinstance(index, list) else index)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **kwargs: Any) -> str:
        return f"Away({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """What makes tensors on the accelerator, of others or of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def accelerator() -> Generator[Callable[[Any], Any]]:
    """While open, `cuda:0` is there. Gives what moves a tensor or a model to it; tied weights stay tied."""
    with mock.patch("torch.cuda._lazy_init", return_value=None), _Factories():
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(.., device=..) would go past us
        try:
            yield _moved
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


def _moved(what: Any) -> Any:
    moved = what.to(DEVICE)
    if isinstance(moved, torch.nn.Module) and hasattr(moved, "tie_weights"):
        moved.tie_weights()
    return moved


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU, and its result on the device that it would be on."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    away = any(isinstance(each, Away) for each in tensors)
    assert not any(each.is_meta and not isinstance(each, Away) for each in tensors), "made where we do not see it"
    asked = kwargs.get("device")
    to_away = away if asked is None else torch.device(asked).type != "cpu"
    name = func._schema.name
    bound = tree_flatten((args[0], *args[2:], kwargs))[0] if name in INDEXINGS else tensors
    left = [tuple(each.shape) for each in bound if type(each) is not Away and isinstance(each, Tensor) and each.dim()]
    if away and left and name not in MOVES:
        raise RuntimeError(f"{name}: expected all tensors on one device, but of {DEVICE} and cpu, there {left}")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    here_args, here_kwargs = tree_map(_here, (args, kwargs))
    result = func(*here_args, **here_kwargs)
    if not to_away:
        return result
    result = tree_map(lambda each: Away(each) if isinstance(each, Tensor) else each, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if away else result


def _here(each: Any) -> Any:
    return each.here if isinstance(each, Away) else each
