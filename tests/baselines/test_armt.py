"""ARMT against its definition in loops, and what its associative memory does. What it shares: `test_segments`."""

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen3Config,
)

from lm2.baselines import ARMTConfig, ARMTForCausalLM
from lm2.baselines.armt import EPS, AssociativeMemory, phi
from lm2.training.config import RunConfig, Stage
from lm2.training.optimizers import parameter_groups
from lm2.training.trainer import train
from tests.baselines.cases import SHAPE, VOCABULARY, M, T, assert_same, memory_tokens, tiny, tokens


def phi_by_hand(x: torch.Tensor, order: int) -> torch.Tensor:
    r = [*x.clamp_min(0), *(-x).clamp_min(0)]
    return torch.stack([r[i] * r[i - shift] for shift in range(1, order + 1) for i in range(len(r))])


def recall_by_hand(key: torch.Tensor, A: list[torch.Tensor], z: list[torch.Tensor]) -> torch.Tensor:
    return sum(k * row for k, row in zip(key, A, strict=True)) / (sum(map(torch.mul, key, z)) + EPS)


def write_by_hand(own: AssociativeMemory, outputs: torch.Tensor, A, z):
    new_A, new_z = list(A), list(z)
    for x in outputs:
        key = phi_by_hand(own.key.weight @ x, own.order)
        value = own.value.weight @ x
        beta = (own.strength_gate.weight[0] @ x + own.strength_gate.bias[0]).sigmoid()
        gamma = (1 - sum(map(torch.mul, key, z)) / key.square().sum()).clamp(0, 1).detach()
        difference = value - recall_by_hand(key, A, z)
        for i, k in enumerate(key):
            new_A[i] = new_A[i] + beta * k * difference
            new_z[i] = new_z[i] + gamma * k
    return new_A, new_z


def by_hand(model: ARMTForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The definition for one row without padding: position by position, key by key, block by block."""
    decoder, width = model.backbone.model, model.config.backbone_config.hidden_size
    keys = 2 * model.config.key_order * model.config.key_width
    memories = [([torch.zeros(width)] * keys, [torch.zeros(())] * keys) for _ in decoder.layers]
    logits = []
    for segment in ids.split(model.config.segment_length, dim=1):
        h = torch.cat([decoder.embed_tokens(segment), memory_tokens(model)[None]], dim=1)
        rotary = decoder.rotary_emb(h, torch.arange(h.shape[1])[None])
        for i, (block, own) in enumerate(zip(decoder.layers, model.memory.blocks, strict=True)):
            A, z = memories[i]
            h = torch.stack([x + recall_by_hand(phi_by_hand(own.query.weight @ x, own.order), A, z) for x in h[0]])
            h = block(h[None], attention_mask=None, position_embeddings=rotary)
            memories[i] = write_by_hand(own, h[0, segment.shape[1] :], A, z)
        logits.append(model.backbone.lm_head(decoder.norm(h))[:, : segment.shape[1]])
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig, Qwen3Config])
@pytest.mark.parametrize("length", [1, T, 2 * T + 2])
def test_equals_the_definition(config_class, length):
    model, ids = tiny("armt", config_class), tokens(1, length)
    with torch.no_grad():
        assert_same(model(ids).logits, by_hand(model, ids))


def test_gradients_are_those_of_the_definition():
    ids, weights = tokens(1, 3 * T), torch.randn(1, 3 * T, VOCABULARY)
    gradients = []
    for forward in (lambda model: model(ids).logits, lambda model: by_hand(model, ids)):
        model = tiny("armt")
        (forward(model) * weights).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        scale = gradients[1][name].abs().max()
        assert (gradient - gradients[1][name]).abs().max() <= 1e-4 * scale, name


def test_phi_has_its_width_and_is_never_negative():
    x = torch.randn(5, 7, 8)
    features = phi(x, order=3)
    assert features.shape == (5, 7, 48)
    assert features.min() >= 0
    assert torch.equal(features[2, 3], phi_by_hand(x[2, 3], 3))
    torch.testing.assert_close(phi(3 * x, order=3), 9 * features)


def sure_memory(width: int = 6) -> AssociativeMemory:
    """One that keeps its inputs as values, and replaces wholly."""
    own = AssociativeMemory(width, key_width=4, key_order=3)
    nn.init.eye_(own.value.weight)
    nn.init.constant_(own.strength_gate.bias, 1e4)
    return own


def test_what_is_written_is_recalled_and_written_again_is_replaced():
    own = sure_memory()
    own.query.load_state_dict(own.key.state_dict())
    x = torch.randn(1, 1, 6)
    A, z = torch.zeros(1, own.width, 6), torch.zeros(1, own.width)
    A, z = own.write(x, A, z)
    torch.testing.assert_close(own.read(x, A, z) - x, x, rtol=1e-3, atol=1e-3)
    nn.init.zeros_(own.value.weight)
    cleared, same = own.write(x, A, z)
    torch.testing.assert_close(own.read(x, cleared, same), x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(same, z, rtol=1e-4, atol=1e-4)  # a known key adds nothing to z


def test_a_key_of_zeros_is_finite_and_writes_nothing():
    own = sure_memory()
    nn.init.zeros_(own.key.weight)
    A, z = torch.randn(2, own.width, 6), torch.rand(2, own.width)
    new_A, new_z = own.write(torch.randn(2, 3, 6), A, z)
    assert torch.equal(new_A, A)
    assert torch.equal(new_z, z)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_untrained_it_is_the_backbone(family):
    torch.manual_seed(0)
    gpt2 = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    backbone = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "gpt2": lambda: GPT2LMHeadModel(gpt2),
    }[family]().eval()
    model = ARMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=M).eval()
    assert model.backbone is backbone
    ids = tokens(2, 3 * T + 1)
    assert torch.equal(model(ids[:, :T]).logits, backbone(ids[:, :T]).logits)
    assert_same(model(ids).logits, torch.cat([backbone(piece).logits for piece in ids.split(T, dim=1)], dim=1))
    for own in model.memory.blocks:
        nn.init.normal_(own.value.weight)
    assert (model(ids).logits[:, T:] - backbone(ids[:, T:]).logits).abs().max() > 1e-3
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in backbone.modules())


def test_wrapped_write_tokens_have_the_spread_of_the_embedding():
    backbone = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model = ARMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=29)
    spread = backbone.get_input_embeddings().weight.detach().std().item()
    assert memory_tokens(model).detach().std().item() == pytest.approx(spread, rel=0.1)


def test_w_v_moves_first_and_every_parameter_of_the_memory_by_the_second_step():
    torch.manual_seed(0)
    model = ARMTForCausalLM.from_backbone(LlamaForCausalLM(LlamaConfig(**SHAPE)), segment_length=T, memory_tokens=M)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2, weight_decay=0.0)
    start = {name: p.detach().clone() for name, p in model.memory.named_parameters()}
    for step in range(2):
        ids = tokens(4, 3 * T, seed=step)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        moved = {name for name, p in model.memory.named_parameters() if not torch.equal(p, start[name])}
        assert moved == (set(start) if step else {name for name in start if "value" in name})


def test_a_row_of_one_segment_gives_every_parameter_a_gradient():
    model, ids = tiny("armt").train(), tokens(2, T)
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.memory.parameters())
    assert all(p.grad.abs().max() == 0 for p in model.memory.parameters())


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_memory_stays_float32_in_bfloat16(how):
    model, ids = tiny("armt"), tokens(2, 3 * T)
    expected = model(ids).logits
    if how == "weights":
        output = model.to(torch.bfloat16)(ids, use_cache=True)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            output = model(ids, use_cache=True)
    assert {part.dtype for part in output.past_key_values.memory} == {torch.float32}
    assert output.logits.dtype == torch.bfloat16
    assert (output.logits - expected).abs().mean() <= 5e-2 * expected.std()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at it
def test_compiled_it_is_the_same():
    """Its hooks come and go with each segment, and a compiler takes them to be as they were at first."""
    model, ids = tiny("armt").train(), tokens(2, 3 * T)
    compiled, loss = torch.compile(model, backend="eager"), model(ids, labels=ids).loss
    for _ in range(2):
        torch.testing.assert_close(compiled(ids, labels=ids).loss, loss)


def test_memory_stays_finite_over_many_segments():
    model, ids = tiny("armt"), tokens(2, 200 * T)
    logits, state = model.stream(ids.split(50 * T, dim=1))
    assert logits.isfinite().all()
    assert all(part.isfinite().all() for part in state.memory)


def batch(request) -> dict[str, torch.Tensor]:
    ids = tokens(len(request.rows), request.segments * T, seed=request.step)
    return {"input_ids": ids, "labels": ids}


def test_the_trainer_trains_it_on_one_and_more_segments(tmp_path):
    def build() -> ARMTForCausalLM:
        backbone = LlamaForCausalLM(LlamaConfig(**SHAPE))
        return ARMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=M)

    run = RunConfig(
        model=build,
        make_batch=batch,
        stages=(Stage(steps=2, segments=(1,), rows=4), Stage(steps=2, segments=(3,), rows=4)),
        output_dir=tmp_path,
        warmup_steps=0,
        report_to=(),
        memory_learning_rate_factor=2.0,
    )
    groups = parameter_groups(build(), run)
    assert sum(len(group["params"]) for group in groups) == len(list(build().parameters()))
    memory = [group for group in groups if group["lr"] == 2 * run.learning_rate]
    undecayed = {p.shape for group in memory if group["weight_decay"] == 0 for p in group["params"]}
    assert undecayed == {(M, 32), (1, 32), (1,)}  # write tokens, and the strength gate's weight and bias
    trained = train(run).model
    assert trained.memory.blocks[0].value.weight.abs().max() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key_order": 0}, "below key_width = 64, .* got 0"),
        ({"key_width": 3, "key_order": 3}, "below key_width = 3, .* got 3"),
    ],
)
def test_config_errors_name_the_values(fields, message):
    with pytest.raises(ValueError, match=message):
        ARMTConfig(backbone_config=LlamaConfig(**SHAPE), segment_length=T, **fields)


def test_a_backbone_without_a_list_of_blocks_is_refused():
    model = tiny("armt")
    model.backbone.model.layers = nn.Sequential(*model.backbone.model.layers)
    with pytest.raises(ValueError, match="list of 2 blocks, and LlamaForCausalLM has none"):
        model(tokens(1, T))
