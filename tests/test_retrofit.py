"""`add_memory`: silent at the start, alive from the first step, and no surprises about what it takes over."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import lm2
from lm2 import LM2ForCausalLM, add_memory
from tests.families import CASES, tiny_base, tokens


def memory_parameters(model: LM2ForCausalLM) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if ".memory." in name}


def train(model: LM2ForCausalLM, steps: int) -> list[set[str]]:
    """Plain Adam without weight decay on three segments; the names of the memory parameters that moved in each step."""
    ids = tokens(2, 24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    moved = []
    for _ in range(steps):
        before = {name: parameter.detach().clone() for name, parameter in memory_parameters(model).items()}
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        moved.append({name for name, value in memory_parameters(model).items() if not torch.equal(value, before[name])})
    return moved


@pytest.mark.parametrize("case", CASES)
def test_the_value_projection_moves_at_step_one_and_everything_by_step_two(case):
    model = add_memory(tiny_base(case), memory_slots=5, segment_length=8).train()
    first, second = train(model, steps=2)
    assert first == {f"model.layers.{layer}.memory.v_proj.weight" for layer in range(4)}
    assert second == set(memory_parameters(model))


@pytest.mark.parametrize("options", [{}, {"memory_layers": [1]}, {"memory_topk": 2}, {"memory_key_value_heads": 2}])
def test_every_memory_parameter_has_a_gradient_tensor_at_the_first_step(options):
    model = add_memory(tiny_base("llama"), memory_slots=5, segment_length=8, **options).train()
    ids = tokens(2, 8)
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in memory_parameters(model).values())


@pytest.mark.parametrize("key_value_heads", [None, 2, 4])
@pytest.mark.parametrize("case", ["llama", "smollm3-nope"])
def test_slots_are_chosen_by_the_query_and_the_key_of_its_head(case, key_value_heads):
    options = {"memory_slots": 5, "segment_length": 8, "memory_key_value_heads": key_value_heads}
    layer = add_memory(tiny_base(case), **options).model.layers[2]
    attention, memory = layer.self_attn, layer.memory
    shared = 4 // (key_value_heads or 4)
    for head in range(4):
        rows, own = (slice(8 * h, 8 * h + 8) for h in (head, head // shared))
        keys = attention.k_proj.weight[8 * (head // 2) : 8 * (head // 2) + 8]
        assert torch.equal(memory.k_proj.weight[own], keys)
        assert torch.equal(memory.q_proj.weight[rows], attention.q_proj.weight[rows] + keys)


def test_what_is_written_are_the_inputs_themselves_and_scales_are_those_of_the_attention():
    base = tiny_base("qwen3-qk-norm")
    for layer in base.model.layers:
        torch.nn.init.uniform_(layer.self_attn.q_norm.weight)
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight)
    for layer in add_memory(base, memory_slots=5, segment_length=8, memory_heads=2).model.layers:
        memory, attention = layer.memory, layer.self_attn
        assert torch.equal(memory.u_proj.weight, torch.eye(memory.width))
        assert not memory.v_proj.weight.any()
        assert torch.equal(memory.q_norm.weight, attention.q_norm.weight)
        assert torch.equal(memory.k_norm.weight, attention.k_norm.weight)


@pytest.mark.parametrize("options", [{"memory_key_value_heads": 1}, {"memory_heads": 2}])
def test_where_the_keys_do_not_fit_the_queries_are_as_they_were(options):
    layer = add_memory(tiny_base("llama"), memory_slots=5, segment_length=8, **options).model.layers[0]
    assert torch.equal(layer.memory.q_proj.weight, layer.self_attn.q_proj.weight)


def test_memory_sits_only_in_the_named_blocks():
    model = add_memory(tiny_base("llama"), memory_slots=5, segment_length=8, memory_layers=(0, 3))
    assert {name.split(".")[2] for name in memory_parameters(model)} == {"0", "3"}


def test_the_base_is_left_alone_and_shares_nothing():
    base = tiny_base("llama")
    weights, config = copy.deepcopy(base.state_dict()), base.config.to_dict()
    model = add_memory(base, memory_slots=5, segment_length=8).train()
    train(model, steps=1)
    assert base.config.to_dict() == config
    for name, value in base.state_dict().items():
        assert torch.equal(value, weights[name]), name
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in base.parameters())


@pytest.mark.parametrize("case", ["llama", "qwen3-qk-norm"])
def test_tied_embeddings_stay_as_they_were(case):
    base = tiny_base(case)
    model = add_memory(base, memory_slots=5, segment_length=8)
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied == base.config.tie_word_embeddings == model.config.tie_word_embeddings


@torch.no_grad()
def test_a_head_beside_tied_embeddings_stays_the_base_s(tmp_path):
    """A checkpoint that has both although it says that they are one; transformers then leaves them apart."""
    base = tiny_base("llama")
    assert base.config.tie_word_embeddings
    base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.flip(0).clone())
    model, ids = add_memory(base, memory_slots=5, segment_length=8), tokens(2, 8)
    assert torch.equal(model(ids).logits, base(ids).logits)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, base(ids).logits)


def test_generation_settings_and_attention_kernel_are_kept():
    base = tiny_base("llama")
    base.generation_config.update(temperature=0.3, do_sample=True, eos_token_id=[4, 7])
    base.set_attn_implementation("eager")
    model = add_memory(base, memory_slots=5, segment_length=8)
    assert model.generation_config.to_dict() == base.generation_config.to_dict()
    assert model.generation_config is not base.generation_config
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_kept(training):
    assert add_memory(tiny_base("llama").train(training), memory_slots=5, segment_length=8).training is training


def test_bfloat16_weights_stay_bfloat16_and_agree(tmp_path):
    tiny_base("llama").save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    model = add_memory(base, memory_slots=5, segment_length=8)
    assert all(model.get_parameter(name).dtype == torch.bfloat16 for name, _ in base.named_parameters())
    ids = tokens(2, 8)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, base(ids).logits)


def test_options_reach_the_configuration():
    options = {"memory_heads": 2, "memory_key_value_heads": 1, "memory_topk": 3, "bptt_segments": 4}
    model = add_memory(tiny_base("llama"), memory_slots=5, segment_length=8, **options)
    assert model.config.base_model_type == "llama"
    assert (model.config.memory_slots, model.config.segment_length) == (5, 8)
    assert {name: getattr(model.config, name) for name in options} == options


def test_the_same_seed_gives_the_same_memory():
    models = []
    for _ in range(2):
        base = tiny_base("llama")
        torch.manual_seed(5)
        models.append(add_memory(base, memory_slots=40, segment_length=8))
    for ours, theirs in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(ours, theirs)


def test_auto_classes_load_the_saved_folder(tmp_path):
    model = add_memory(tiny_base("mistral-sliding"), memory_slots=5, segment_length=8)
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), lm2.LM2Config)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), LM2ForCausalLM)


def test_unsupported_family_is_refused_by_name():
    base = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=8))
    with pytest.raises(ValueError, match=r"'gpt2' model: .* llama, mistral, qwen2, qwen3, smollm3"):
        add_memory(base, memory_slots=5, segment_length=8)


def test_a_model_with_a_memory_is_refused():
    model = add_memory(tiny_base("llama"), memory_slots=5, segment_length=8)
    with pytest.raises(ValueError, match="'lm2' model"):
        add_memory(model, memory_slots=5, segment_length=8)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"memory_heads": 5}, r"32.*5|5.*32"),
        ({"memory_layers": [0, 4]}, "4"),
        ({"bptt_segments": 1}, "1"),
        ({"memory_topk": 9}, r"9.*5|5.*9"),
        ({"segment_length": 0}, "0"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_their_numbers(options, numbers):
    with pytest.raises(ValueError, match=numbers):
        add_memory(tiny_base("llama"), **{"memory_slots": 5, "segment_length": 8, **options})


def test_another_attention_kernel_becomes_sdpa():
    base = tiny_base("llama")
    base.config._attn_implementation_internal = "flash_attention_2"
    assert add_memory(base, segment_length=8, memory_slots=4).config._attn_implementation == "sdpa"


def test_one_block_is_a_list_too():
    with pytest.raises(ValueError, match=r"memory_layers is 1: give a list of blocks, such as \[1\]"):
        add_memory(tiny_base("llama"), segment_length=8, memory_slots=4, memory_layers=1)


def test_adapters_on_the_base_are_refused():
    base = tiny_base("llama")
    base.model.layers[0].self_attn.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"left over .*layers\.0\.self_attn\.extra"):
        add_memory(base, memory_slots=5, segment_length=8)


def test_weights_that_are_elsewhere_are_refused():
    base = tiny_base("llama")
    base.model.layers[1].to("meta")
    with pytest.raises(ValueError, match=r"layers\.1\.\S+ is not in memory, but offloaded: load the base whole"):
        add_memory(base, memory_slots=5, segment_length=8)


def test_integer_weights_are_refused():
    base = tiny_base("llama")
    base.lm_head = torch.nn.Linear(1, 1)
    base.lm_head.weight = torch.nn.Parameter(torch.zeros(97, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight is stored as torch\.int8"):
        add_memory(base, memory_slots=5, segment_length=8)
