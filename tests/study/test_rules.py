"""Every write rule keeps what the memory promises: causality, independent rows, any chunking, gradients."""

import pytest
import torch

from lm2.memory import normalise
from lm2.study.config import RULE_PARTS
from lm2.study.rules import RULES, rule_of

VARIANTS = ["default", *RULE_PARTS, "mean+convex+addresses", "transposed-null+no-rho+gates-offer-only"]


def test_the_table_of_rules_is_that_of_the_names():
    assert {*RULES, "no-look-back"} == set(RULE_PARTS)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_causal_and_independent_rows(tiny, variant):
    model, ids = tiny(variant), torch.randint(32, (3, 14))
    logits = model(ids).logits
    changed = ids.clone()
    changed[1, 5] = (changed[1, 5] + 1) % 32
    after = model(changed).logits
    torch.testing.assert_close(after[1, :5], logits[1, :5], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[[0, 2]], logits[[0, 2]], rtol=0, atol=1e-5)
    assert (after[1, 12:] - logits[1, 12:]).abs().max() > 1e-6  # two borders later it is remembered
    torch.testing.assert_close(model(ids[1:2]).logits, logits[1:2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_chunks_are_the_same(tiny, variant):
    model, ids = tiny(variant), torch.randint(32, (2, 13))
    state, pieces = None, []
    for piece in ids.split([3, 5, 1, 4], dim=1):
        out = model(piece, past_key_values=state, use_cache=True)
        state = out.past_key_values
        pieces.append(out.logits)
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_finite_and_reach_the_offer(tiny, variant):
    model, ids = tiny(variant).train(), torch.randint(32, (2, 16))
    model(ids, labels=ids).loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if ".memory." in n and p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for name in ("u_proj.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight", "input_gate.weight"):
        assert gradients[f"model.layers.1.memory.{name}"].abs().max() > 0


def parts(tiny, variant, tokens=4):
    """A memory, a bank with its norm, and the token side of a segment."""
    model = tiny(variant)
    memory = model.model.layers[1].memory
    bank = memory.initial_bank(2, torch.device("cpu")) + 0.3 * torch.randn(2, 5, 16)
    return memory, bank, normalise(bank), *memory.project(torch.randn(2, tokens, 16))


@torch.no_grad()
def test_only_the_mean_forgets_the_order_of_tokens(tiny):
    turned = torch.tensor([3, 1, 0, 2])
    for variant, same in (("default", False), ("mean", True)):
        memory, _, norm, q, rho, u = parts(tiny, variant)
        offer = memory.offer(memory.align(q, norm), rho, u)[1]
        other = memory.offer(memory.align(q[:, turned], norm), rho[:, turned], u[:, turned])[1]
        assert torch.allclose(offer, other, atol=1e-5) == same


@torch.no_grad()
def test_steep_divides_by_the_mass_alone(tiny):
    memory, _, norm, q, rho, u = parts(tiny, "steep")
    u = u[:, :1].expand_as(u)  # all tokens offer the same, so an exact average is that
    _, offer = memory.offer(memory.align(q, norm), rho.clamp_min(0.01), u)
    torch.testing.assert_close(offer, u[:, :1].expand(-1, 5, -1), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_what_is_forgotten_goes_to_the_start_or_to_zero(tiny):
    offer, mass = torch.zeros(2, 5, 16), torch.ones(2, 5, 16)
    for variant, whole in (("default", True), ("to-zero", False)):
        memory, bank, norm, *_ = parts(tiny, variant)
        memory.forget_gate.bias.fill_(-30)
        start = memory.initial_bank(1, torch.device("cpu"))[0]
        new = memory.update(bank, norm, start, mass, offer)
        torch.testing.assert_close(new, (start if whole else 0 * start).expand_as(new))


@torch.no_grad()
def test_transposed_shares_of_tokens(tiny):
    memory, _, norm, q, _, _ = parts(tiny, "transposed")
    torch.testing.assert_close(memory.align(q, norm).sum(2), torch.ones(2, 4, 5))
    for tokens in (4, 64):  # a null token of logit ln T takes a share that does not depend on T
        memory, _, norm, q, rho, u = parts(tiny, "transposed-null", tokens)
        memory.k_proj.weight.zero_()
        mass, _ = memory.offer(memory.align(q, norm), rho, u)
        torch.testing.assert_close(mass, torch.full((2, 5, 16), 0.5))


@torch.no_grad()
def test_convex_gates_meet_in_between(tiny):
    memory, bank, norm, *_ = parts(tiny, "convex")
    offer = torch.randn(2, 5, 16)
    start = torch.zeros(5, 16)
    assert torch.equal(memory.update(bank, norm, start, torch.zeros(2, 5, 16), offer), bank)
    new = memory.update(bank, norm, start, torch.ones(2, 5, 16), offer)
    low, high = torch.minimum(bank, offer.tanh()), torch.maximum(bank, offer.tanh())
    assert ((new >= low - 1e-6) & (new <= high + 1e-6)).all()


@torch.no_grad()
def test_only_the_clip_bounds_rows(tiny):
    bank = torch.full((2, 5, 16), 3.0)
    mass, offer = torch.full((2, 5, 16), 1e-3), torch.randn(2, 5, 16)
    for variant, bounded in (("default", True), ("no-clip", False)):
        memory = parts(tiny, variant)[0]
        rms = memory.update(bank, normalise(bank), torch.zeros(5, 16), mass, offer).square().mean(-1).sqrt()
        assert (rms.max() <= 1 + 1e-5) == bounded


def test_starts(tiny):
    """Forget biases are spread; all else starts as the default does."""
    assert tiny("spread-forget").model.layers[1].memory.forget_gate.bias.std() > 0.3
    default, spread = (tiny(name).model.layers[1].memory.state_dict() for name in ("default", "spread-forget"))
    assert [n for n, weight in default.items() if not torch.equal(weight, spread[n])] == ["forget_gate.bias"]


def test_parts_combine_in_any_order():
    for names in ("convex+gates-offer-only", "gates-offer-only+convex"):
        order = [base.__name__ for base in rule_of(names).__mro__]
        assert order.index("GatesOfferOnly") < order.index("Convex")
