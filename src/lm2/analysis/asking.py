"""An answer, its probability, and its probability when chosen tokens of the text were never written."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lm2.analysis.trace import closed
from lm2.cache import LM2Cache
from lm2.streaming import read

ROWS = 8
"""Texts that are read side by side, each without other tokens."""


@torch.no_grad()
def answer(model: Any, question_L: Tensor, cache: LM2Cache, max_new_tokens: int) -> Tensor:
    """The likeliest tokens after a question, without the one that ends them unless it is the only one; (A,)."""
    greedy: Any = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "use_cache": True}
    output = model.generate(question_L[None], past_key_values=cache.copy(), max_new_tokens=max_new_tokens, **greedy)
    found_A = output[0, len(question_L) :]
    ends = model.generation_config.eos_token_id
    ended = len(found_A) > 1 and int(found_A[-1]) in (ends if isinstance(ends, list) else [ends])
    return found_A[:-1] if ended else found_A


@torch.no_grad()
def probabilities(model: Any, question_L: Tensor, answer_A: Tensor, cache: LM2Cache) -> Tensor:
    """The probability of an answer after a question, for each row of a cache, which stays as it is: (R,)."""
    ids_L = torch.cat([question_L, answer_A])
    logits_RAV = model(
        ids_L[:-1].expand(cache.rows, -1), past_key_values=cache.copy(), logits_to_keep=len(answer_A)
    ).logits
    log_RA = logits_RAV.float().log_softmax(-1).gather(-1, answer_A.expand(cache.rows, -1)[..., None])[..., 0]
    return log_RA.sum(-1).exp()


def unwritten(
    model: Any,
    ids_L: Tensor,
    closed_RL: Sequence[Tensor],
    question_L: Tensor,
    answer_A: Tensor,
    done: Callable[[int], Any] | None = None,
) -> list[float]:
    """The probability of an answer when chosen tokens of the text were never written, for each choice.

    The text is read again for each. What self-attention saw of these tokens stays.

    Args:
        closed_RL: for each choice, true for a token that is not written.
        done: told the number of tokens after each piece, as `read` does.
    """
    found: list[float] = []
    for some in (closed_RL[at : at + ROWS] for at in range(0, len(closed_RL), ROWS)):
        cache = LM2Cache(model.config)
        with closed(model, cache, torch.stack(list(some))):
            read(model, ids_L.expand(len(some), -1), cache, done)
            found += probabilities(model, question_L, answer_A, cache).tolist()
    return found
