"""A tiny training run whose losses are stored: ten steps of AdamW on fixed tokens, four segments a row."""

import json
from pathlib import Path

import torch

from lm2 import LM2Config, LM2ForCausalLM

LOSSES = Path(__file__).with_name("losses.json")
STEPS, ROWS, SEGMENTS = 10, 4, 4


def tiny_config() -> LM2Config:
    """Two blocks with memory, more tokens than slots, grouped key/value heads in attention and memory."""
    return LM2Config(
        base_model_type="llama",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        segment_length=12,
        memory_slots=8,
        memory_heads=4,
        memory_key_value_heads=2,
    )


def losses() -> list[float]:
    """Train from a fixed seed; return the loss of each step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20250209)
        config = tiny_config()
        model = LM2ForCausalLM(config).train()
        ids = torch.randint(config.vocab_size, (ROWS, SEGMENTS * config.segment_length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    values = []
    for _ in range(STEPS):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def stored() -> list[float]:
    """The losses written by `python -m tests.golden.regenerate`."""
    return json.loads(LOSSES.read_text(encoding="utf-8"))
