"""A tiny model of each rule."""

import pytest
import torch

from lm2 import LM2Config, LM2ForCausalLM
from lm2.study.config import Job
from lm2.study.rules import use_rule


@pytest.fixture
def tiny():
    """Builds a tiny model with the rule of a variant; all weights are drawn, also those that a retrofit zeroes."""

    def build(variant: str) -> LM2ForCausalLM:
        torch.manual_seed(0)
        config = LM2Config(
            base_model_type="qwen3",
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=4,
            segment_length=4,
            memory_slots=5,
            memory_layers=[1],
        )
        return use_rule(LM2ForCausalLM(config), variant).eval()

    return build


@pytest.fixture
def job(tmp_path):
    """Builds a job that takes a second."""

    def build(variant: str, **changes) -> Job:
        sizes = {"width": 16, "slots": 4, "blocks": 1, "base_steps": 3, "steps": 4, "samples": 6, "longest": 4}
        return Job(**{"variant": variant, "task": "once", "seed": 0, "out": tmp_path, **sizes, **changes})

    return build
