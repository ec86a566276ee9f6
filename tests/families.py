"""Tiny random base models, one per family, each with what sets that family apart switched on."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SLIDING = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]

CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama-rope-bias": (
        LlamaForCausalLM,
        LlamaConfig,
        {"rope_parameters": LLAMA3_ROPE, "attention_bias": True, "mlp_bias": True, "head_dim": 12},
    ),
    "mistral-sliding": (MistralForCausalLM, MistralConfig, {"sliding_window": 5, "head_dim": 8}),
    "qwen2-bias": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen2-sliding": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": SLIDING},
    ),
    "qwen3-qk-norm": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
    "smollm3-nope": (SmolLM3ForCausalLM, SmolLM3Config, {"no_rope_layers": [1, 0, 1, 0]}),
}


def tiny_base(case: str, seed: int = 0, **overrides) -> PreTrainedModel:
    """A random float32 model in evaluation mode, its biases and norm weights drawn too, so that each of them counts."""
    model_class, config_class, special = CASES[case]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, **special, **overrides})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=0.2)
    return model


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token numbers without the padding token, of shape (rows, length)."""
    return torch.randint(1, SHAPE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))
