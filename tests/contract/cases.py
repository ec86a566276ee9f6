"""The tiny models that the contract is tested on, and what "same" means in it."""

import torch
from torch import Tensor

from lm2 import LM2Config, LM2ForCausalLM

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "segment_length": 6,
    "memory_slots": 5,
    "initializer_range": 0.3,
}

CASES = {
    "fewer slots than tokens": {},
    "as many slots as tokens": {"memory_slots": 6, "memory_heads": 2},
    "more slots than tokens": {"memory_slots": 11, "tie_word_embeddings": True},
    "more slots than width": {
        "hidden_size": 12,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "memory_slots": 29,
    },
    "memory in one block": {"memory_layers": [1]},
    "top-k": {"memory_topk": 2},
    "grouped memory heads": {"memory_heads": 4, "memory_key_value_heads": 2},
    "segments of one token": {"segment_length": 1},
    "mistral": {"base_model_type": "mistral", "sliding_window": 3},
    "qwen2": {
        "base_model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 3,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "qwen3": {"base_model_type": "qwen3", "head_dim": 8},
    "smollm3": {"base_model_type": "smollm3", "no_rope_layers": [1, 0], "tie_word_embeddings": False},
    "look-back": {"segment_length": 7, "look_back": 3},
    "look-back over a whole segment": {"base_model_type": "qwen3", "head_dim": 8, "look_back": 6, "memory_layers": [0]},
    "look-back in a window": {"base_model_type": "mistral", "sliding_window": 3, "look_back": 4},
    "look-back without positions": {
        "base_model_type": "smollm3",
        "no_rope_layers": [0, 1],
        "tie_word_embeddings": False,
        "segment_length": 5,
        "look_back": 5,
    },
}
FEW = ("fewer slots than tokens", "more slots than width", "top-k", "qwen2", "look-back")


def tiny_config(case: str, **overrides) -> LM2Config:
    return LM2Config(**{**SHAPE, **CASES[case], **overrides})


def tiny_model(case: str, **overrides) -> LM2ForCausalLM:
    """A random model in evaluation mode. Its weights are large, so that each part of it shows in the logits."""
    torch.manual_seed(1)
    return LM2ForCausalLM(tiny_config(case, **overrides)).eval()


def random_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, SHAPE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_same(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    """The contract's "same": the largest difference is at most `tolerance` of the standard deviation."""
    assert one.shape == other.shape
    assert torch.isfinite(one).all()
    assert torch.isfinite(other).all()
    assert (one - other).abs().max() <= tolerance * other.std()


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows of unequal length in one batch: ids and mask. `side`: left, right or scattered (pads between tokens)."""
    width = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for b, row in enumerate(rows):
        if side == "scattered":
            place = torch.randperm(width, generator=torch.Generator().manual_seed(b))[: len(row)].sort().values
        else:
            place = torch.arange(len(row)) + (width - len(row) if side == "left" else 0)
        ids[b, place], mask[b, place] = row, 1
    return ids, mask
