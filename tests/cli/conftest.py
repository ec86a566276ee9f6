"""A tiny saved model with a tokenizer, made once."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lm2 import LM2Config, LM2ForCausalLM

WORDS = ["Daniel", "Sandra", "Mary", "went", "to", "the", "kitchen", "garden", "John", "is", "in", ".", "Where", "?"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word of `WORDS`."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """A saved LM2 model of two blocks with segments of 4 tokens."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    config = LM2Config(
        base_model_type="llama",
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        segment_length=4,
        memory_slots=6,
        bos_token_id=None,
        eos_token_id=None,
    )
    LM2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
