"""What a call of the model is given: checked before anything is computed."""

import torch
from torch import Tensor, nn

from lm2.cache import LM2Cache
from lm2.configuration import LM2Config


def check_attentions(asked: bool | None, config: LM2Config) -> None:
    """Check that nobody waits for attention weights, whether a call or the configuration asks for them.

    Raises:
        ValueError: they are asked for; None would come in their place.
    """
    if config.output_attentions if asked is None else asked:
        raise ValueError(
            "output_attentions is True, and an LM2 model returns no attention weights: leave it out; lm2.analysis.look "
            "tells what was read of the memory"
        )


def check_carries(model: nn.Module) -> None:
    """Check that gradients reach what a call leaves in a cache.

    Raises:
        ValueError: a reentrant checkpoint gives gradients to plain tensors only, and a state is none: it would have
            none, in silence.
    """
    settings = getattr(getattr(model, "_gradient_checkpointing_func", None), "keywords", {})
    checkpoints = getattr(model, "gradient_checkpointing", False) and model.training and torch.is_grad_enabled()
    if checkpoints and settings.get("use_reentrant"):
        raise ValueError(
            "use_reentrant is True, and with such checkpoints no gradient reaches what a call leaves in a cache: "
            "enable activation checkpointing with use_reentrant False"
        )


def check_inputs(embeds_BLD: Tensor, cache: LM2Cache | None, config: LM2Config) -> None:
    """Check that embedded tokens are a batch that a cache can go on with.

    Raises:
        ValueError: they are no batch, empty, or do not fit the cache.
    """
    if embeds_BLD.dim() != 3:
        raise ValueError(
            "input_ids are (rows, tokens) and inputs_embeds (rows, tokens, width), and what came is embedded as "
            f"{tuple(embeds_BLD.shape)}: give one text as a batch of one row, input_ids[None]"
        )
    rows, length = embeds_BLD.shape[:2]
    if rows < 1 or length < 1:
        raise ValueError(f"the input is empty (it has {rows} rows of {length} tokens): pass at least one token")
    if cache is not None and not isinstance(cache, LM2Cache):
        raise ValueError(
            f"past_key_values must be an LM2Cache, and it is a {type(cache).__name__}: make one with LM2Cache(config)"
        )
    if cache is not None:
        cache.check_fits(config, rows)
