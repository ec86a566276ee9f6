"""Small models with a tokenizer, whose greedy answers depend on everything they have read."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lm2 import LM2Config, LM2ForCausalLM
from lm2.baselines.armt import ARMTForCausalLM
from lm2.baselines.rmt import RMTForCausalLM
from lm2.data import grammar
from lm2.data.tokenizer import train_tokenizer
from lm2.evaluation.codec import Codec, codec_of

SEGMENT = 16
CHAT = (
    "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.6,
    "bos_token_id": None,
    "eos_token_id": None,
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    rng = np.random.default_rng(0)
    made = train_tokenizer([grammar.sentence(rng) for _ in range(300)], 700)
    made.chat_template = CHAT
    return made


def prose(sentences: int, seed: int = 1) -> str:
    """A text of generated sentences."""
    rng = np.random.default_rng(seed)
    return " ".join(grammar.sentence(rng) for _ in range(sentences))


@cache
def llama(positions: int = 256) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer()), max_position_embeddings=positions, **SHAPE)).eval()


@cache
def memory_model(kind: str) -> PreTrainedModel:
    """An "lm2", "rmt" or "armt" with segments of 16 tokens and a memory that matters."""
    torch.manual_seed(1)
    if kind == "lm2":
        config = LM2Config(
            base_model_type="llama",
            vocab_size=len(tokenizer()),
            segment_length=SEGMENT,
            memory_slots=6,
            **SHAPE,
        )
        model = LM2ForCausalLM(config)
    else:
        wrap = RMTForCausalLM if kind == "rmt" else ARMTForCausalLM
        model = wrap.from_backbone(LlamaForCausalLM(llama().config), segment_length=SEGMENT, memory_tokens=3)
    for name, weight in model.named_parameters():
        if "memory" in name and weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.2 if kind == "armt" else 0.6)
    return model.eval()


def codec(model: PreTrainedModel, *, chat: bool = False) -> Codec:
    return codec_of(model, tokenizer(), chat=chat)


def save(model: PreTrainedModel, folder: Path) -> Path:
    """A folder that the command can load."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
