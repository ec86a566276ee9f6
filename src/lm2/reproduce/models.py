"""The backbone and the contenders around it, with equal numbers of parameters."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from lm2.reproduce.sizes import Sizes
from lm2.retrofit import add_memory


def contender(name: str, backbone: PreTrainedModel, sizes: Sizes) -> PreTrainedModel:
    """The model called `name`, untrained, around a copy of the backbone.

    LM2 has the most parameters. The others get what they lack as units of the MLPs that change no output yet. The
    plain model attends over whole rows: it is RMT without memory whose segment is the longest row.
    """
    if name == "lm2":
        return add_memory(backbone, segment_length=sizes.recipe.segment_length, **sizes.recipe.memory)
    missing = contender("lm2", backbone, sizes).num_parameters() - _around(name, backbone, sizes).num_parameters()
    return _around(name, widened(backbone, missing), sizes)


def _around(name: str, backbone: PreTrainedModel, sizes: Sizes) -> PreTrainedModel:
    recipe, T = sizes.recipe, sizes.recipe.segment_length
    if name == "armt":
        return ARMTForCausalLM.from_backbone(
            backbone, segment_length=T, memory_tokens=sizes.write_tokens, key_width=sizes.key_width
        )
    if name == "rmt":
        return RMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=recipe.memory_tokens)
    return RMTForCausalLM.from_backbone(backbone, segment_length=T * sizes.attention_segments, memory_tokens=0)


def widened(backbone: PreTrainedModel, parameters: int) -> PreTrainedModel:
    """A copy with about so many more parameters, in MLP units whose way out is zero: its outputs are the backbone's."""
    config = copy.deepcopy(backbone.config)
    units = max(0, round(parameters / (3 * config.hidden_size * config.num_hidden_layers)))
    old = config.intermediate_size
    config.intermediate_size = old + units
    wide = type(backbone)(config)
    weights = backbone.state_dict()
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            if name.endswith("mlp.down_proj.weight"):
                nn.init.zeros_(parameter)
                parameter[:, :old] = weights[name]
            elif ".mlp." in name:
                parameter[:old] = weights[name]
            else:
                parameter.copy_(weights[name])
    return wide
