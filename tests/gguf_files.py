"""A tokenizer of bytes, and the tiny Llama as a GGUF file."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.families import tiny_base

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with two specials, the ten digits, the letters and two merges: 97 tokens with fillers."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<s>", "</s>", "Ġ", *"0123456789", *letters, "th", "the"]
    words += [f"<filler{number}>" for number in range(97 - len(words))]
    core = models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[("t", "h"), ("th", "e")])
    backend = Tokenizer(core)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_gguf(
    path: Path,
    architecture: str = "llama",
    scaling: str | None = None,
    without: str = "none",
    floats: dict[str, float] | None = None,
    extra: str | None = None,
) -> Path:
    """The tiny Llama as llama.cpp lays it out in float32: Q and K rows interleaved for its kind of rotary.

    `extra` names a tensor more, of ones.
    """
    gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the gguf extra")
    base = tiny_base("llama", head_dim=8)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    config = base.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
    for name, number in (floats or {}).items():
        writer.add_float32(name, number)
    add_tokenizer(writer, gguf)
    if extra:
        writer.add_tensor(extra, np.ones(32, np.float32))
    for name, value in base.state_dict().items():
        if name != "lm_head.weight" and without not in name:  # it is tied
            add_tensor(writer, gguf, name, value.numpy(), config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer, gguf) -> None:
    words = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    normal, special = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([special if word in ("<s>", "</s>") else normal for word, _ in words])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)


def add_tensor(writer, gguf, name: str, value: np.ndarray, config) -> None:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads:  # halves [first | second] of each head become pairs, as llama.cpp rotates neighbours
        value = value.reshape(heads, 2, config.head_dim // 2, -1).swapaxes(1, 2).reshape(value.shape)
    writer.add_tensor(gguf_name(name), np.ascontiguousarray(value))


def gguf_name(name: str) -> str:
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "model.layers.": "blk.",
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name
