"""Greedy decoding, the same for every model, and what prompts have in common."""

from collections.abc import Callable, Container, Sequence
from itertools import takewhile

from torch import Tensor

# V = vocabulary


def greedy(logits_V: Tensor, feed: Callable[[int], Tensor], stop: Container[int], max_new_tokens: int) -> list[int]:
    """The likeliest token each time, up to a stop token (not returned) or `max_new_tokens`.

    Args:
        logits_V: after the prompt.
        feed: gives the model a token, and returns the logits (V,) after it.

    Raises:
        ValueError: `max_new_tokens` below 1.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, and it is {max_new_tokens}")
    found: list[int] = []
    while (token := int(logits_V.argmax())) not in stop:
        found.append(token)
        if len(found) == max_new_tokens:
            break
        logits_V = feed(token)
    return found


def shared_start(*prompts: Sequence[int]) -> int:
    """Tokens with which all prompts begin."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False)))
