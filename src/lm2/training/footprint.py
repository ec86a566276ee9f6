"""How much memory a computation takes, and how much arithmetic: without doing it, on the meta device."""

import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lm2.loss import LOGITS_AT_ONCE, summed_cross_entropy
from lm2.modeling import LM2ForCausalLM


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


def _fused(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """The fused kernel's shapes: an output, and one number per query for its backward pass."""
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, dropout_p, is_causal)[0]


@contextmanager
def _fused_attention() -> Generator[None]:
    """On the meta device, count attention as the kernel that CPUs and GPUs use, which keeps no table of scores.

    The meta device would choose the one with a table, and has no autocast, which is off here anyway.
    """
    no_autocast = patch.object(torch, "autocast", lambda *arguments, **settings: nullcontext())
    with patch.object(F, "scaled_dot_product_attention", _fused), no_autocast:
        yield


def row_bytes(model: LM2ForCausalLM, segments: int, checkpointing: bool) -> int:
    """`peak_bytes` of a training step on one row in float32, for a model on the meta device."""
    ids = torch.zeros(1, segments * model.config.segment_length, dtype=torch.long, device="meta")
    if checkpointing:
        model.activation_checkpointing_enable()

    def step() -> Tensor:
        h_ND = model.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
        return summed_cross_entropy(model.lm_head, h_ND, ids[:, 1:].flatten(), model.config.vocab_size)

    with _fused_attention():
        return peak_bytes(step, model.parameters())


def estimated_row_bytes(model: LM2ForCausalLM, checkpointing: bool) -> Callable[[int], int]:
    """A function of the segments that is about `row_bytes`, in a fraction of its time, all of which is taken here.

    The blocks' part is a straight line in the segments, of which 2 and 3 are measured. The loss adds a part of the
    logits with its softmax and its gradient, and the gradient of the head.
    """
    if checkpointing:
        model.activation_checkpointing_enable()
    two, three = (_hidden_bytes(model, n) for n in (2, 3))
    head = model.lm_head.weight.numel()

    def of(segments: int) -> int:
        logits = min(segments * model.config.segment_length * model.config.vocab_size, LOGITS_AT_ONCE)
        return two + (segments - 2) * (three - two) + 4 * (3 * logits + head)

    return of


def _hidden_bytes(model: LM2ForCausalLM, segments: int) -> int:
    ids = torch.zeros(1, segments * model.config.segment_length, dtype=torch.long, device="meta")
    with _fused_attention():
        return peak_bytes(lambda: model.model(ids).last_hidden_state.sum(), model.parameters())
