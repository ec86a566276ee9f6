"""Look-back: a segment's self-attention sees the last P tokens of the segment before, and nothing else changes."""

from types import SimpleNamespace

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lm2 import LM2Cache
from lm2.modeling import OpenSegment
from tests.contract.cases import assert_same, random_ids, tiny_model

YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
BACKBONES = {
    "llama": {},
    "qwen3": {"base_model_type": "qwen3", "head_dim": 8},
    "llama with scaled angles": {"rope_parameters": YARN},
}


def backbone(name="llama", look_back=3, **overrides):
    """A model without a bank: only attention crosses a border."""
    fields = {"segment_length": 7, "memory_layers": [], **BACKBONES[name], **overrides}
    return tiny_model("fewer slots than tokens", look_back=look_back, **fields)


def attention_by_hand(model, layer, x_TD, before):
    """Attention over `before` (keys not yet rotated, and values) at positions -P to -1, then over the segment."""
    attention = layer.self_attn
    query, key, value = (
        project(x_TD).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    key, value = torch.cat([before[0], key], 1), torch.cat([before[1], value], 1)
    tokens, back = len(x_TD), before[0].shape[1]
    rotary = model.model.rotary_emb
    query, _ = apply_rotary_pos_emb(query, query, *rotary(x_TD, torch.arange(tokens)[None]))
    turned, _ = apply_rotary_pos_emb(key, key, *rotary(x_TD, torch.arange(-back, tokens)[None]))
    heads = []
    for head, q_TE in enumerate(query[0]):
        group = head // attention.num_key_value_groups
        scores = q_TE @ turned[0, group].T * attention.head_dim**-0.5
        hidden = torch.arange(-back, tokens) > torch.arange(tokens)[:, None]
        heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[group])
    return attention.o_proj(torch.cat(heads, -1)), (key, value)


def logits_by_hand(model, ids_L):
    """Segment after segment, block after block."""
    config = model.config
    empty = torch.zeros(config.num_key_value_heads, 0, model.model.layers[0].self_attn.head_dim)
    before = [(empty, empty) for _ in model.model.layers]
    out = []
    for ids_T in ids_L.split(config.segment_length):
        h_TD = model.model.embed_tokens(ids_T)
        for i, layer in enumerate(model.model.layers):
            attended, kept = attention_by_hand(model, layer, layer.input_layernorm(h_TD), before[i])
            before[i] = tuple(x[:, x.shape[1] - config.look_back :] for x in kept)
            h_TD = h_TD + attended
            h_TD = h_TD + layer.mlp(layer.post_attention_layernorm(h_TD))
        out.append(model.lm_head(model.model.norm(h_TD)))
    return torch.cat(out)


@pytest.mark.parametrize("look_back", [0, 1, 3, 7])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_it_is_attention_over_the_keys_before_at_negative_positions(name, look_back):
    model, ids = backbone(name, look_back), random_ids(1, 24)
    expected = logits_by_hand(model, ids[0])
    assert_same(model(ids).logits[0], expected)
    cache = LM2Cache(model.config)
    streamed = [model(part, past_key_values=cache).logits for part in ids.split(5, dim=1)]
    assert_same(torch.cat(streamed, 1)[0], expected)


@pytest.mark.parametrize("look_back", [0, 1, 3, 7])
@torch.no_grad()
def test_each_token_sees_the_last_tokens_before_its_segment_and_none_before_those(look_back):
    model = backbone(look_back=look_back, num_hidden_layers=1)
    ids = random_ids(1, 14)
    logits = model(ids).logits[0, 7:]
    for t in range(7):
        changed = ids.clone()
        changed[0, t] = 1
        seen = (model(changed).logits[0, 7:] != logits).any(-1)
        assert seen.tolist() == [t >= 7 - look_back] * 7


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_a_fresh_segment_is_bit_for_bit_the_one_without_look_back(implementation):
    with_it, without = (tiny_model("qwen2", look_back=n) for n in (4, 0))
    with_it.set_attn_implementation(implementation)
    without.set_attn_implementation(implementation)
    ids = random_ids(3, 6)
    assert torch.equal(with_it(ids).logits, without(ids).logits)
    caches = LM2Cache(with_it.config), LM2Cache(without.config)
    for part in ids.split([2, 1, 3], dim=1):
        one, other = (m(part, past_key_values=c).logits for m, c in zip((with_it, without), caches, strict=True))
        assert torch.equal(one, other)


@pytest.mark.parametrize("case", ["look-back", "look-back in a window", "look-back without positions"])
@torch.no_grad()
def test_attention_implementations_agree(case):
    model, ids = tiny_model(case), random_ids(2, 25)
    expected = model(ids).logits
    model.set_attn_implementation("eager")
    assert_same(model(ids).logits, expected)


@torch.no_grad()
def test_a_row_that_starts_anew_beside_others_looks_back_at_nothing():
    """The reset row's tail still holds numbers; neither a call of several segments nor a step may see them."""
    model = backbone()
    ids, more = random_ids(2, 16), random_ids(2, 17, seed=1)
    cache = model(ids, use_cache=True).past_key_values
    cache.reset([1])
    fresh = model(more[1:]).logits[0]
    streamed = torch.cat([model(part, past_key_values=cache).logits for part in more.split([2, 3, 12], dim=1)], 1)
    assert_same(streamed[1], fresh)
    assert_same(streamed[0], model(torch.cat([ids, more], 1)).logits[0, 16:])


@torch.no_grad()
def test_keys_are_turned_back_in_float32_and_rounded_once():
    model = backbone()
    segment = OpenSegment(SimpleNamespace(border=model.model._border()), None, rotates=True)  # ty: ignore[invalid-argument-type]
    keys = torch.randn(1, 2, 3, model.model.layers[0].self_attn.head_dim).bfloat16()
    assert torch.equal(segment._turn_back(keys), segment._turn_back(keys.float()).bfloat16())


def test_the_state_holds_the_tail_once_per_block():
    model = backbone()
    for length in (3, 7, 30):
        cache = model(random_ids(2, length), use_cache=True).past_key_values
        assert [state.tail_keys.shape for state in cache.states] == [(2, 2, 3, 6)] * 2
        assert [state.tail_values.shape for state in cache.states] == [(2, 2, 3, 6)] * 2
    assert cache.tokens_R.tolist() == [30, 30]
    cache = backbone(look_back=0)(random_ids(1, 9), use_cache=True).past_key_values
    assert all(state.tail_keys is state.tail_values is None for state in cache.states)
