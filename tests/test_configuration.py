"""The configuration: what it refuses, and that it survives a round trip."""

import pytest
import torch

from lm2 import LM2Cache, LM2Config, LM2ForCausalLM
from lm2.configuration import PRESETS
from tests.contract.cases import CASES, assert_same, random_ids, tiny_config


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case, tmp_path):
    config = tiny_config(case, bptt_segments=3)
    config.save_pretrained(tmp_path)
    again = LM2Config.from_pretrained(tmp_path)
    skipped = ("_name_or_path", "transformers_version", "architectures", "dtype")
    one, other = ({k: v for k, v in c.to_dict().items() if k not in skipped} for c in (config, again))
    assert one == other


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"memory_heads": 5}, r"hidden_size must be divisible by memory_heads, and 24 is not divisible by 5"),
        (
            {"memory_heads": 4, "memory_key_value_heads": 3},
            r"memory_heads must be divisible by memory_key_value_heads, and 4 is not divisible by 3",
        ),
        ({"bptt_segments": 1}, r"bptt_segments must be 2 or more, and it is 1"),
        ({"memory_layers": [0, 2, -1]}, r"between 0 and 1 \(the model has 2 blocks\), and it names \[2, -1\]"),
        ({"base_model_type": "gpt2"}, r"one of llama, mistral, qwen2, qwen3, smollm3, and it is 'gpt2'"),
        ({"memory_topk": 6}, r"between 1 and memory_slots \(5\), and it is 6"),
        ({"memory_topk": 0}, r"between 1 and memory_slots \(5\), and it is 0"),
        ({"look_back": 7}, r"look_back must lie between 0 and segment_length \(6\), and it is 7"),
        ({"look_back": -1}, r"look_back must lie between 0 and segment_length \(6\), and it is -1"),
        ({"segment_length": 0}, r"segment_length must be 1 or more, and it is 0"),
        ({"memory_slots": 0}, r"memory_slots must be 1 or more, and it is 0"),
        ({"num_attention_heads": 7}, r"the llama fields do not fit: .*24.*7"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        tiny_config("fewer slots than tokens", **fields)


def test_a_field_set_later_is_checked_when_a_model_is_built():
    config = tiny_config("fewer slots than tokens")
    config.bptt_segments = 1
    with pytest.raises(ValueError, match="bptt_segments must be 2 or more, and it is 1"):
        LM2ForCausalLM(config)


def test_presets():
    for name in PRESETS:
        assert LM2Config.preset(name, memory_slots=3).memory_slots == 3
    with pytest.raises(ValueError, match=r"no preset 'lm2-9b': choose one of lm2-1.7b, lm2-135m, lm2-tiny"):
        LM2Config.preset("lm2-9b")


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
FACTORS = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [2.0, 3.0, 4.0], "factor": 8.0}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 8, "rope_theta": 1e4, **FACTORS}


@pytest.mark.parametrize(("rope", "limit"), [(DYNAMIC, 64), (LONG, 8)], ids=["dynamic", "longrope"])
def test_frequencies_do_not_change_with_the_length_of_a_call(rope, limit):
    fits = tiny_config("fewer slots than tokens", rope_parameters=rope, segment_length=limit)
    model, ids, cache = LM2ForCausalLM(fits).eval(), random_ids(1, limit + 9), LM2Cache(fits)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in ids.split(5, dim=1)]
        assert_same(torch.cat(parts, 1), model(ids).logits)
    with pytest.raises(ValueError, match=rf"at most {limit} with rotary frequencies of type '\w+', and it is 65"):
        tiny_config("fewer slots than tokens", rope_parameters=rope, segment_length=65)


def test_an_old_rope_theta_is_understood():
    assert LM2Config(base_model_type="llama", rope_theta=12345.0).rope_parameters["rope_theta"] == 12345.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"segment_length": "6", "memory_slots": 5.0}, r"segment_length is '6', memory_slots is 5\.0: give whole"),
        ({"memory_layers": [0, 1.5]}, r"memory_layers\[1\] is 1\.5"),
        ({"bptt_segments": 2.5}, r"bptt_segments is 2\.5"),
    ],
)
def test_sizes_are_whole_numbers(fields, said):
    with pytest.raises(ValueError, match=said):
        tiny_config("fewer slots than tokens", **fields)


def test_everything_that_does_not_fit_is_told_at_once():
    with pytest.raises(ValueError, match=r"^3 things are wrong: .*it is 0.*not divisible by 5.*it is 1"):
        tiny_config("fewer slots than tokens", memory_slots=0, memory_heads=5, bptt_segments=1)


@pytest.mark.parametrize("layers", [(0, 1), range(2), {0, 1}], ids=["tuple", "range", "set"])
def test_blocks_may_stand_in_whatever_holds_some(layers):
    config = tiny_config("fewer slots than tokens", memory_layers=layers)
    assert config.memory_layers == [0, 1]
    assert '"memory_layers": [' in config.to_json_string()
    with pytest.raises(ValueError, match=r"memory_layers is 1: give a list of blocks, such as \[1\]"):
        tiny_config("fewer slots than tokens", memory_layers=1)
