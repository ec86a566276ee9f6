"""Small models and rows that the tests of the baselines share."""

import torch
from torch import nn
from transformers import LlamaConfig, Qwen3Config

from lm2.baselines import ARMTConfig, ARMTForCausalLM, RMTConfig, RMTForCausalLM
from lm2.baselines.armt import ZeroLinear

T, M, VOCABULARY = 6, 2, 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
KINDS = {
    "rmt": (RMTConfig, RMTForCausalLM, {}),
    "armt": (ARMTConfig, ARMTForCausalLM, {"key_width": 4, "key_order": 3}),
}


def tiny(kind: str, config_class=LlamaConfig, seed: int = 0, **fields) -> RMTForCausalLM | ARMTForCausalLM:
    """An untrained model whose memory is large enough to matter."""
    torch.manual_seed(seed)
    config, model_class, own = KINDS[kind]
    shape = {**SHAPE, "head_dim": 8} if config_class is Qwen3Config else SHAPE
    fields = {"segment_length": T, "memory_tokens": M, **own, **fields}
    model = model_class(config(backbone_config=config_class(**shape), **fields)).eval()
    nn.init.normal_(memory_tokens(model), std=1.0)
    for module in model.modules():
        if isinstance(module, ZeroLinear):
            nn.init.normal_(module.weight, std=SHAPE["hidden_size"] ** -0.5)
    return model


def memory_tokens(model: RMTForCausalLM | ARMTForCausalLM) -> nn.Parameter:
    return model.memory.weight if isinstance(model, RMTForCausalLM) else model.memory.tokens.weight


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def assert_same(a: torch.Tensor, b: torch.Tensor):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-4 * b.std()


def watch_embeddings(model: RMTForCausalLM | ARMTForCausalLM) -> list[torch.Tensor]:
    """The embedded tokens of each segment of the next forward pass, with their gradients after backward."""
    embedded: list[torch.Tensor] = []

    def keep(_module, _inputs, output):
        output.retain_grad()
        embedded.append(output)

    model.get_input_embeddings().register_forward_hook(keep)
    return embedded
