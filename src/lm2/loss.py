"""Cross-entropy over a large vocabulary, in parts: the logits of all tokens (tokens x vocabulary) never exist at once.

Shape suffixes: N labelled tokens, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25
"""Logits of one part: 128 MiB in float32."""


def summed_cross_entropy(head: nn.Module, h_ND: Tensor, target_N: Tensor, vocabulary: int) -> Tensor:
    """The sum over tokens of -log softmax(head(h))[target], with its gradient.

    With more than one part, the logits of a part are made once for the loss and once more for its gradient: a third
    more work in the head, for a memory that no longer grows with the number of tokens. The head is called as a module,
    so that one that is sharded, adapted or under autocast is just as good.

    Args:
        head: from (.., D) to (.., vocabulary).
        h_ND: the hidden states of the tokens that have a label.
        target_N: their labels.
        vocabulary: the head's outputs, which decide how many tokens make a part.

    Returns:
        A float32 scalar.
    """
    tokens = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(h_ND) <= tokens:
        return _part(head, h_ND, target_N)
    parts = zip(h_ND.split(tokens), target_N.split(tokens), strict=True)
    losses = [checkpoint(_part, head, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in parts]
    return torch.stack(losses).sum()


def _part(head: nn.Module, h_ND: Tensor, target_N: Tensor) -> Tensor:
    return F.cross_entropy(head(h_ND).float(), target_N, reduction="sum")
