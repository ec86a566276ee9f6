"""A tiny chat model, its store and its texts."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lm2 import add_memory
from lm2.data.babi import ACTORS, PLACES
from lm2.data.prepare import prepare
from lm2.data.sources import FileSource

CHAT = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} <e> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
MARKS = ["<s>", "<e>", "<unk>", "user", "assistant", ".", "?"]
WORDS = [*ACTORS, *PLACES, *MARKS, "went", "to", "the", "is", "Where", "a", "long", "story", "of", "it"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word; unknown ones share one."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(WORDS))}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<e>", pad_token="<e>", chat_template=CHAT
    )


@pytest.fixture(scope="session")
def base(tmp_path_factory, tokenizer):
    """The folder of a Llama model of three blocks."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory, base, tokenizer):
    """The folder of the same model with a memory."""
    folder = tmp_path_factory.mktemp("model")
    plain = LlamaForCausalLM.from_pretrained(base)
    add_memory(plain, memory_slots=4, segment_length=16, memory_layers=[1]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory, tokenizer):
    """A token store of a few long texts."""
    folder = tmp_path_factory.mktemp("store")
    lines = [json.dumps({"text": f"{ACTORS[i % 4]} went to the {PLACES[i % 6]} . " * 40}) for i in range(12)]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = FileSource("texts", folder / "texts.jsonl")
    prepare([source], tokenizer, folder / "store", tokenizer_name="words", processes=1)
    return folder / "store"


@pytest.fixture
def chats(tmp_path):
    """A file of conversations: one with a document, one of two turns, one short."""
    lines = [
        {
            "document": "a long story . " * 8,
            "messages": [{"role": "user", "content": "Where is it ?"}, {"role": "assistant", "content": "office"}],
        },
        {
            "messages": [
                {"role": "user", "content": "Where is Mary ?"},
                {"role": "assistant", "content": "garden ."},
                {"role": "user", "content": "Where is John ?"},
                {"role": "assistant", "content": "kitchen"},
            ]
        },
        {"messages": [{"role": "user", "content": "it"}, {"role": "assistant", "content": "is"}]},
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path
