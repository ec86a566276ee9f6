"""What a folder of a model and a tokenizer must hold together."""

import pytest

from lm2.folders import check_vocabulary
from tests.gguf_files import byte_tokenizer


def test_every_token_that_is_written_has_an_embedding():
    tokenizer = byte_tokenizer()  # of 97 tokens
    check_vocabulary(tokenizer, 97, "it")
    with pytest.raises(
        ValueError, match=r"^it: the tokenizer writes ids up to 96, and the model has embeddings of 96 "
    ):
        check_vocabulary(tokenizer, 96, "it")


def test_special_tokens_need_an_embedding_where_they_are_written():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    check_vocabulary(tokenizer, 97, "it")  # as published models have it: nothing writes a pad
    tokenizer.chat_template = f"{tokenizer.chat_template}<pad>"
    with pytest.raises(ValueError, match=r"ids up to 97, .* 97 tokens: .* resize_token_embeddings\(98\)$"):
        check_vocabulary(tokenizer, 97, "it")
    tokenizer.chat_template = None
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    with pytest.raises(ValueError, match="ids up to 98, and"):
        check_vocabulary(tokenizer, 97, "it")
