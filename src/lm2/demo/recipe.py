"""What is trained and how: the numbers of the demo, in one place.

1. One backbone without memory learns on single segments to bind names to places. Rows of two facts and one question
   come first: without them training stays on the plateau of answering with some place of the text.
2. The three contenders start from it and read the same rows of 1 to 16 segments: LM2 and RMT add a memory, the plain
   model goes on as it is, segment by segment.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from lm2.baselines import RMTForCausalLM
from lm2.demo.config import DemoConfig
from lm2.retrofit import add_memory
from lm2.training import Stage

CONTENDERS = ("lm2", "rmt", "plain")
NAMES = {"base": "base", "lm2": "LM2", "rmt": "RMT", "plain": "plain"}
LONGEST = {"pair": 1, "repeated": 2, "dense": 4}
"""Segments up to which rows of a kind are used; scattered rows have any length."""
EMBEDDING_STD = 0.1
BACKBONE_TRAINING: dict[str, Any] = {"optimizer": "muon", "muon_learning_rate": 0.005, "muon_weight_decay": 1.0}
"""AdamW, and Muon with less decay or twice the rate, leave the backbone for long with one code for three of the four
people, on which no memory can be built (docs/log.md)."""


@dataclass(frozen=True)
class Phase:
    """A share of the steps, the numbers of segments it draws from, and its kinds of rows (twice: twice as often)."""

    share: float
    segments: tuple[int, ...]
    kinds: tuple[str, ...]
    rows: int = 64
    """Segments of a step: so many rows of one segment, half as many of two."""


@dataclass(frozen=True)
class Recipe:
    """Sizes of the models and their training."""

    segment_length: int = 32
    vocabulary: int = 1536
    hidden_size: int = 64
    intermediate_size: int = 170
    layers: int = 2
    heads: int = 4
    memory: dict[str, Any] = field(
        default_factory=lambda: {"memory_slots": 16, "memory_layers": [1], "memory_heads": 4, "look_back": 8}
    )
    """Options of `lm2.add_memory`."""
    memory_tokens: int = 16
    """RMT's memory tokens, as many as LM2 has slots."""
    rope_theta: float = 100.0
    """Angles that differ within a short segment"""
    output_scale: float = 1.0
    """What the matrices that write to the residual stream are multiplied by at first"""
    schedule: Literal["trapezoid", "linear"] = "trapezoid"
    """The learning rate of all trainings: constant for most of the steps, or falling from the start"""
    base_steps: int = 1600
    steps: int = 1500
    learning_rate: float = 3e-3
    write_cost: float = 0.05
    """Price on LM2's writes; without it the bank wears out in texts much longer than those of training."""
    write_cost_rise: tuple[float, float] = (0.0, 0.0)
    """Shares of the steps between which the price rises to that"""
    base_phases: tuple[Phase, ...] = (
        Phase(0.25, (1,), ("pair",)),
        Phase(0.75, (1,), ("pair", "dense", "dense", "scattered")),
    )
    phases: tuple[Phase, ...] = (
        Phase(0.06, (2,), ("repeated",)),
        Phase(0.24, (1, 2, 3, 4), ("repeated", "dense", "scattered", "scattered")),
        Phase(0.2, (1, 2, 4, 8), ("dense", "scattered", "scattered", "scattered")),
        Phase(0.5, (1, 2, 4, 8, 16), ("dense", "scattered", "scattered", "scattered")),
    )


BUILT_IN = Recipe()
REAL = Recipe(
    segment_length=48,
    vocabulary=1024,
    layers=3,
    memory={"memory_slots": 16, "memory_layers": [1, 2], "memory_heads": 4, "look_back": 12},
    base_steps=2400,
    steps=3600,
)


def recipe_of(options: DemoConfig) -> Recipe:
    """The recipe for the built-in or the real texts, with the user's segment length and step count."""
    recipe = REAL if options.is_real else BUILT_IN
    return replace(
        recipe,
        segment_length=options.segment_length or recipe.segment_length,
        base_steps=max(4, round(recipe.base_steps * options.scale)),
        steps=max(4, round(recipe.steps * options.scale)),
    )


def stages(phases: tuple[Phase, ...], steps: int) -> tuple[Stage, ...]:
    """The phases as stages of the trainer; together they have about `steps` steps, each at least one."""
    return tuple(Stage(steps=max(1, round(p.share * steps)), segments=p.segments, rows=p.rows) for p in phases)


def kind_at(phases: tuple[Phase, ...], plan: tuple[Stage, ...], seed: int, step: int, segments: int) -> str:
    """The kind of the rows of a step, drawn among those of its phase that suit so many segments."""
    done, phase = 0, phases[-1]
    for candidate, stage in zip(phases, plan, strict=True):
        done += stage.steps
        if step < done:
            phase = candidate
            break
    kinds = [k for k in phase.kinds if segments <= LONGEST.get(k, segments) and (k != "repeated" or segments > 1)]
    return random.Random(f"{seed}/{step}/kind").choice(kinds)


def new_backbone(recipe: Recipe, vocabulary: int) -> PreTrainedModel:
    """A small Qwen3 with matrices of std 1/sqrt(width): the usual 0.02 is far too small for so narrow a model."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.hidden_size // recipe.heads,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        initializer_range=recipe.hidden_size**-0.5,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = Qwen3ForCausalLM(config)
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(recipe.output_scale)
    return model


def contender(name: str, backbone: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """The model called `name` around the backbone. Without memory tokens RMT is the backbone run segment by segment."""
    if name == "lm2":
        return add_memory(backbone, segment_length=recipe.segment_length, **recipe.memory)
    tokens = recipe.memory_tokens if name == "rmt" else 0
    return RMTForCausalLM.from_backbone(backbone, segment_length=recipe.segment_length, memory_tokens=tokens)
