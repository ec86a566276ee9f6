"""Each family keeps its own arithmetic inside a segment: the retrofitted model is the base until it is trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2 import LM2Cache, LM2ForCausalLM, add_memory
from tests.families import CASES, tiny_base, tokens

SEGMENT = 12


def retrofit(case: str, **options):
    base = tiny_base(case)
    options = {"memory_slots": 6, "segment_length": SEGMENT, "memory_layers": [0, 2, 3], **options}
    return base, add_memory(base, **options)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5 * max(1.0, float(expected.std())), rtol=0)


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 5, SEGMENT - 1, SEGMENT])
def test_one_segment_is_the_base_bit_for_bit(case, length):
    base, model = retrofit(case)
    ids = tokens(3, length)
    assert torch.equal(model(ids).logits, base(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "without"),
    [
        ("llama-rope-bias", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
        ("mistral-sliding", {"sliding_window": None}),
        ("qwen2-sliding", {"layer_types": ["full_attention"] * 4}),
        ("smollm3-nope", {"no_rope_layers": [1, 1, 1, 1]}),
    ],
)
def test_what_is_special_shows_within_one_segment(case, without):
    """Were a window or a NoPE layer without effect at this length, the equality above would prove nothing."""
    ids = tokens(2, SEGMENT)
    difference = tiny_base(case, **without)(ids).logits - tiny_base(case)(ids).logits
    assert difference.abs().max() > 1e-3


@torch.no_grad()
@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, SEGMENT), min_size=2, max_size=4), st.booleans(), st.sampled_from(sorted(CASES)))
def test_padded_rows_are_the_base_on_each_row_alone(lengths, left, case):
    base, model = retrofit(case)
    ids, mask = padded(lengths, left)
    logits = model(ids, attention_mask=mask).logits
    for row in range(len(lengths)):
        real = mask[row].bool()
        close(logits[row, real], base(ids[row : row + 1, real]).logits[0])


def padded(lengths: list[int], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if left else slice(0, length)
        ids[row, place], mask[row, place] = tokens(1, length, seed=row)[0], 1
    return ids, mask


@torch.no_grad()
def test_cached_decode_within_a_segment_is_the_base(case):
    base, model = retrofit(case)
    ids = tokens(2, SEGMENT)
    cache = LM2Cache(model.config)
    pieces = [
        model(chunk, past_key_values=cache, use_cache=True).logits for chunk in ids.split([4, 1, 1, 3, 1, 1, 1], dim=1)
    ]
    close(torch.cat(pieces, dim=1), base(ids).logits)


@torch.no_grad()
def test_each_segment_of_a_longer_input_is_the_base_on_that_segment(case):
    """Self-attention and positions restart at each border, and a silent memory carries nothing over it."""
    base, model = retrofit(case)
    ids = tokens(2, 2 * SEGMENT + 5)
    expected = torch.cat([base(segment).logits for segment in ids.split(SEGMENT, dim=1)], dim=1)
    close(model(ids).logits, expected)


@torch.no_grad()
def test_greedy_generation_within_a_segment_is_the_base(case):
    base, model = retrofit(case)
    ids = tokens(1, 4)
    options = {"max_new_tokens": SEGMENT - 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), base.generate(ids, **options))


def test_gradients_of_the_base_parameters_are_the_base_gradients(case):
    base, model = retrofit(case)
    ids = tokens(2, SEGMENT)
    base(ids, labels=ids).loss.backward()
    model(ids, labels=ids).loss.backward()
    own = dict(model.named_parameters())
    for name, parameter in base.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, atol=1e-6, rtol=1e-4)


def test_saving_and_loading_keeps_every_bit(case, tmp_path):
    _, model = retrofit(case)
    model.save_pretrained(tmp_path)
    loaded = LM2ForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
    for (name, ours), (other, theirs) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name
    ids = tokens(2, 2 * SEGMENT + 3)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)


def test_a_plain_checkpoint_lacks_only_the_memory(case, tmp_path):
    base, model = retrofit(case)
    base.save_pretrained(tmp_path)
    loaded, info = LM2ForCausalLM.from_pretrained(tmp_path, config=model.config, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    memory = {name for name in model.state_dict() if ".memory." in name}
    assert set(info["missing_keys"]) == memory & dict(model.named_parameters()).keys()
    own = loaded.state_dict()
    for name, value in base.state_dict().items():
        assert torch.equal(own[name], value), name
