"""The parts of one block's memory."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from lm2 import LM2Config, LM2ForCausalLM
from lm2.memory import LM2Memory, Worth, WriteGate, initial_bank
from tests.contract.cases import random_ids, tiny_config, tiny_model


@pytest.fixture
def memory():
    return LM2Memory(tiny_config("fewer slots than tokens"))


@pytest.mark.parametrize(("slots", "width"), [(3, 8), (8, 8), (9, 8), (50, 12), (1, 1), (5, 1)])
def test_the_initial_bank_is_the_identity_and_then_other_orthonormal_bases(slots, width):
    bank_ND = initial_bank(slots, width)
    assert bank_ND.shape == (slots, width)
    assert torch.equal(bank_ND[:width], torch.eye(min(slots, width), width))
    for base in bank_ND.split(width):
        assert torch.allclose(base @ base.T, torch.eye(len(base)), atol=1e-5)
    assert torch.equal(bank_ND, initial_bank(slots, width))


def test_what_is_kept_of_the_bases_is_no_stand_in():
    """Neither of shapes without numbers, nor one of inference, nor of another number format."""
    with FakeTensorMode():
        assert isinstance(initial_bank(23, 7), FakeTensor)
    with torch.inference_mode():
        initial_bank(23, 7)
    start_ND, weight = initial_bank(23, 7), torch.ones(1, requires_grad=True)
    (start_ND * weight).sum().backward()
    assert weight.grad.item() == pytest.approx(start_ND.sum().item(), rel=1e-5)
    with FakeTensorMode():
        assert isinstance(initial_bank(23, 7), FakeTensor)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(initial_bank(23, 7), start_ND)
    finally:
        torch.set_default_dtype(torch.float32)


def test_initial_rows_differ():
    bank_ND = initial_bank(60, 12)
    assert (torch.cdist(bank_ND, bank_ND) + 9 * torch.eye(60)).min() > 0.1


def test_the_write_gate_has_true_zeros_and_ones_and_the_slope_of_the_unclipped_function():
    gate = WriteGate(1, 1)
    torch.nn.init.ones_(gate.weight)
    x = torch.tensor([[-9.0], [-4.0], [0.3], [4.0], [9.0]], requires_grad=True)
    rho = Worth()(gate(x))
    assert rho[:2].tolist() == [[0.0], [0.0]]
    assert rho[3:].tolist() == [[1.0], [1.0]]
    rho.sum().backward()
    sigmoid = x.detach().sigmoid()
    assert torch.allclose(x.grad, 1.2 * sigmoid * (1 - sigmoid))


def test_without_mass_the_bank_stays_bit_for_bit(memory):
    torch.nn.init.constant_(memory.write_gate.bias, -30.0)
    bank_RND = torch.randn(2, 5, 24)
    bank_RND = bank_RND / bank_RND.square().mean(-1, keepdim=True).sqrt().clamp_min(1) * 0.999
    x_RTD = torch.randn(2, 6, 24)
    _, after, _ = memory.step(x_RTD, x_RTD, bank_RND, torch.tensor([True, True]))
    assert torch.equal(after, bank_RND)


def test_step_is_forward_of_one_segment(memory):
    x_RTD, bank_RND = torch.randn(2, 6, 24), memory.initial_bank(2, torch.device("cpu"))
    complete = torch.tensor([True, False])
    with torch.no_grad():
        out, bank = memory(x_RTD[:, None], bank_RND, complete[:, None])
        step_out, step_bank, _ = memory.step(x_RTD, x_RTD, bank_RND, complete)
    assert torch.allclose(out[:, 0], step_out, atol=1e-6)
    assert torch.equal(bank, step_bank)
    assert torch.equal(bank[1], bank_RND[1])
    assert not torch.equal(bank[0], bank_RND[0])


@pytest.mark.parametrize("how", ["autocast", "bfloat16 weights"])
def test_the_bank_and_the_gates_are_float32(memory, how):
    x_RSTD = torch.randn(1, 3, 6, 24)
    if how == "bfloat16 weights":
        memory, x_RSTD = memory.to(torch.bfloat16), x_RSTD.to(torch.bfloat16)
    seen = []
    for gate in (memory.output_gate, memory.write_gate, memory.input_gate, memory.forget_gate, memory.k_proj):
        gate.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        out, bank = memory(x_RSTD, memory.initial_bank(1, torch.device("cpu")), torch.ones(1, 3, dtype=torch.bool))
    assert set(seen) == {torch.float32}
    assert bank.dtype == torch.float32
    assert out.dtype == x_RSTD.dtype


@torch.no_grad()
def test_under_autocast_only_the_token_side_is_rounded(memory):
    """What reads and writes the bank is bit for bit what it is without autocast."""
    x_RSTD, start_RND = torch.randn(2, 3, 6, 24), memory.initial_bank(2, torch.device("cpu"))
    complete_RS = torch.ones(2, 3, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q_RSTD, rho_RSTH, u_RSTD = memory.project(x_RSTD)
        out, bank = memory(x_RSTD, start_RND, complete_RS)
        step_out, step_bank, _ = memory.step(x_RSTD[:, 0], x_RSTD[:, 0], start_RND, complete_RS[:, 0])
    norm_RSND, expected = memory.scan(q_RSTD, rho_RSTH, u_RSTD, start_RND, complete_RS, None, None, True)
    assert torch.equal(bank, expected)
    assert torch.equal(out, memory.gate(memory.read(q_RSTD, norm_RSND)))
    first = q_RSTD[:, :1], rho_RSTH[:, :1], u_RSTD[:, :1]
    assert torch.equal(step_bank, memory.scan(*first, start_RND, complete_RS[:, :1], None, None, True)[1])
    own = memory.contents(norm_RSND[:, 0])
    assert torch.equal(step_out, memory.gate(memory.look_up(memory.query(x_RSTD[:, 0]), *own)))


def test_topk_of_all_slots_is_the_plain_read():
    ids = random_ids(2, 20)
    plain, topk = (tiny_model("top-k", memory_topk=k)(ids).logits for k in (None, 5))
    assert torch.allclose(plain, topk, atol=1e-4)


def test_matrices_start_at_one_over_root_d():
    memory = LM2ForCausalLM(tiny_config("fewer slots than tokens", hidden_size=96)).model.layers[0].memory
    for name, parameter in memory.named_parameters():
        if name.endswith("norm.weight"):
            assert parameter.unique().tolist() == [1.0], name
        elif name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(96**-0.5, rel=0.1), name
        else:
            start = {"forget_gate.bias": 1.0, "input_gate.bias": 2.0}.get(name, 0.0)
            assert parameter.unique().tolist() == [start], name


def test_the_large_preset_has_the_papers_size():
    """1.2 B for the backbone and 0.5 B for the memory (LM2, section 3)."""
    with torch.device("meta"):
        model = LM2ForCausalLM(LM2Config.preset("lm2-1.7b"))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    memory = sum(size for name, size in sizes.items() if ".memory." in name)
    assert sum(sizes.values()) == pytest.approx(1.74e9, rel=0.005)
    assert memory == pytest.approx(0.5e9, rel=0.02)


def test_with_activation_checkpointing_each_write_is_computed_again(monkeypatch):
    model = tiny_model("memory in one block").train()
    model.activation_checkpointing_enable()
    (memory,) = [module for module in model.modules() if isinstance(module, LM2Memory)]
    writes, own = [], LM2Memory.weigh
    monkeypatch.setattr(LM2Memory, "weigh", lambda *parts: writes.append(own(*parts)) or writes[-1])
    x_RSTD = torch.randn(1, 4, model.config.segment_length, memory.width, requires_grad=True)
    out, bank = memory(x_RSTD, memory.initial_bank(1, x_RSTD.device), torch.ones(1, 4, dtype=torch.bool))
    assert len(writes) == 4
    (out.sum() + bank.sum()).backward()
    assert len(writes) == 8
    memory.eval()(x_RSTD, memory.initial_bank(1, x_RSTD.device), torch.ones(1, 4, dtype=torch.bool))[1].sum().backward()
    assert len(writes) == 12
