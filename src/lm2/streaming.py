"""Reading a text of any length into a cache, in pieces, so that its length costs no memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lm2.cache import LM2Cache

SEGMENTS_AT_ONCE = 16


@torch.no_grad()
def read(model: Any, ids_BL: Tensor, cache: LM2Cache, done: Callable[[int], Any] | None = None) -> None:
    """Read tokens into a cache, which then is the state after the last of them.

    Args:
        model: the model of the cache.
        ids_BL: (B, L), any L; nothing is done for none.
        cache: what was read before; it goes on from there.
        done: told the number of tokens after each piece, for a progress bar.
    """
    if not ids_BL.shape[1]:
        return
    for piece in ids_BL.split(SEGMENTS_AT_ONCE * model.config.segment_length, dim=1):
        model(piece, past_key_values=cache, logits_to_keep=1)
        if done is not None:
            done(piece.shape[1])
