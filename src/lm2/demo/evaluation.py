"""A model's answers to the questions of an evaluation set: the likeliest of all tokens after the text.

Texts are read in chunks that carry the state, so memory does not grow with their length.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

ROWS = 128
TOKENS = 8192
"""Rows, and tokens of all rows together, that one call reads."""


@torch.no_grad()
def answer(model: PreTrainedModel, ids_NL: Tensor, segment_length: int) -> Tensor:
    """The greedy next token of each text: (N,). The model is LM2 or RMT, in evaluation mode."""
    answers = []
    for ids_BL in ids_NL.split(ROWS):
        width = max(1, TOKENS // (len(ids_BL) * segment_length)) * segment_length
        first_BC, *further = ids_BL.split(width, dim=1)
        output = model(first_BC, use_cache=True, logits_to_keep=1)
        for chunk_BC in further:
            output = model(chunk_BC, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        answers.append(output.logits[:, -1].argmax(-1))
    return torch.cat(answers)


def last_segment(ids_NL: Tensor, segment_length: int) -> Tensor:
    """All that a model without memory sees of texts of whole segments when it answers."""
    return ids_NL[:, -segment_length:]
