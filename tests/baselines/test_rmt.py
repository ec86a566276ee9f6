"""RMT against its definition: what each test pins is named by its first line. What it shares: `test_segments`."""

from contextlib import nullcontext

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen3Config

from lm2.baselines import RMTConfig, RMTForCausalLM
from tests.baselines.cases import SHAPE, VOCABULARY, M, T, assert_same, tiny, tokens


def by_hand(model: RMTForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The definition for one row without padding, through the backbone's own forward."""
    memory, logits = model.memory.weight[None], []
    m = memory.shape[1]
    for segment in ids.split(model.config.segment_length, dim=1):
        inputs = torch.cat([memory, model.get_input_embeddings()(segment), memory], dim=1)
        output = model.backbone(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        logits.append(output.logits[:, m : m + segment.shape[1]])
        memory = output.hidden_states[-1][:, m + segment.shape[1] :]
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig, Qwen3Config])
@pytest.mark.parametrize("length", [1, T - 1, T, T + 1, 3 * T + 2])
def test_equals_the_definition(config_class, length):
    model, ids = tiny("rmt", config_class), tokens(2, length)
    assert_same(model(ids).logits, torch.cat([by_hand(model, row[None]) for row in ids]))


@pytest.mark.parametrize("changed", [0, T - 1, T, 2 * T + 1])
def test_bidirectional_blocks_are_causal_for_the_text(changed):
    ids = tokens(1, 3 * T)
    other = ids.clone()
    other[0, changed] = (ids[0, changed] + 1) % VOCABULARY
    model = tiny("rmt", memory_attention="bidirectional")
    moved = (model(ids).logits - model(other).logits).abs().amax(-1)[0]
    assert (moved[:changed] == 0).all()
    assert (moved[(changed // T + 1) * T :] > 1e-6).all()


def test_bidirectional_blocks_are_the_same_with_every_attention():
    model, ids = tiny("rmt", memory_attention="bidirectional"), tokens(2, 3 * T)
    expected = model(ids).logits
    model.set_attn_implementation("eager")
    assert_same(model(ids).logits, expected)


def test_bidirectional_blocks_differ_from_causal_ones():
    ids = tokens(1, 2 * T)
    causal, both = tiny("rmt"), tiny("rmt", memory_attention="bidirectional")
    assert (causal(ids).logits - both(ids).logits).abs().max() > 1e-4


def test_the_memory_of_a_state_is_what_the_write_block_says():
    model, ids = tiny("rmt"), tokens(2, T)
    state = model(ids, use_cache=True).past_key_values
    assert state.memory_BMD.shape == (2, M, SHAPE["hidden_size"])
    assert state.memory_BMD is state.memory[0]


def test_a_wrapped_model_keeps_its_weights_and_gives_memory_the_spread_of_its_embedding():
    torch.manual_seed(0)
    backbone = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    model = RMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=29).eval()
    assert model.backbone is backbone
    spread = backbone.get_input_embeddings().weight.detach().std().item()
    assert model.memory.weight.detach().std().item() == pytest.approx(spread, rel=0.1)
    bare = RMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=0).eval()
    assert_same(bare(tokens(1, T)).logits, backbone(tokens(1, T)).logits)


def test_a_window_shorter_than_a_segment_goes_with_causal_blocks_only():
    windowed = {"config_class": MistralConfig, "segment_length": 61, "memory_tokens": 1}
    shape = MistralConfig(**SHAPE, sliding_window=8)
    with pytest.raises(ValueError, match="memory_tokens = 63, got 8"):
        type(tiny("rmt", **windowed).config)(
            backbone_config=shape, segment_length=61, memory_tokens=1, memory_attention="bidirectional"
        )


@pytest.mark.parametrize("short", [0, 1])
def test_a_window_of_a_whole_segment_lets_memory_tokens_see_each_other(short):
    """Of the segment and of the memory before and behind it."""
    backbone = MistralConfig(**SHAPE, sliding_window=T + 2 * M - short)
    with pytest.raises(ValueError, match=f"got {T + 2 * M - 1}") if short else nullcontext():
        RMTConfig(backbone_config=backbone, segment_length=T, memory_tokens=M, memory_attention="bidirectional")
