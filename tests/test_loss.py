"""Cross-entropy in parts: the values and gradients of the whole, and never the logits of all tokens."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lm2 import LM2ForCausalLM, loss
from lm2.loss import summed_cross_entropy
from tests.baselines.cases import VOCABULARY as FEWEST_WORDS
from tests.baselines.cases import tiny
from tests.contract.cases import random_ids, tiny_config

VOCABULARY, PART = 11, 8


@pytest.fixture
def _small_parts(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", PART * VOCABULARY + 3)


def gradients(total, *tensors):
    return [total, *torch.autograd.grad(total, tensors)]


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("tokens", [0, 1, 7, 8, 9, 24, 29])
@pytest.mark.parametrize("bias", [False, True])
def test_parts_make_the_whole(tokens, bias):
    head = torch.nn.Linear(5, VOCABULARY, bias=bias)
    made = []
    head.register_forward_hook(lambda module, inputs, output: made.append(len(output)))
    h_ND = torch.randn(tokens, 5, requires_grad=True)
    target_N = torch.randint(VOCABULARY, (tokens,))
    parameters = [h_ND, *head.parameters()]
    found = gradients(summed_cross_entropy(head, h_ND, target_N, VOCABULARY), *parameters)
    assert max(made) <= PART
    parts = -(-tokens // PART)
    assert len(made) == (2 * parts if parts > 1 else 1)  # made once more for the gradient, not kept
    expected = gradients(F.cross_entropy(head(h_ND), target_N, reduction="sum"), *parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(summed_cross_entropy(head, h_ND, target_N, VOCABULARY), expected[0].detach())


def test_a_vocabulary_above_what_fits_at_once_is_read_token_by_token(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", VOCABULARY - 1)
    head, h_ND, target_N = torch.nn.Linear(5, VOCABULARY), torch.randn(3, 5), torch.randint(VOCABULARY, (3,))
    expected = F.cross_entropy(head(h_ND), target_N, reduction="sum")
    torch.testing.assert_close(summed_cross_entropy(head, h_ND, target_N, VOCABULARY), expected)


@pytest.mark.usefixtures("_small_parts")
def test_bfloat16_under_autocast_is_summed_in_float32():
    head, h_ND, target_N = torch.nn.Linear(5, VOCABULARY), torch.randn(40, 5), torch.randint(VOCABULARY, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        total = summed_cross_entropy(head, h_ND, target_N, VOCABULARY)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(summed_cross_entropy(head, h_ND, target_N, VOCABULARY).item(), rel=1e-2)


@pytest.mark.parametrize("at_once", [loss.LOGITS_AT_ONCE, 800])
def test_the_sum_is_float32_whatever_the_head(monkeypatch, at_once):
    head, h_ND = torch.nn.Linear(5, VOCABULARY).bfloat16(), torch.randn(400, 5).bfloat16()
    target_N = torch.randint(VOCABULARY, (400,))
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    total = summed_cross_entropy(head, h_ND, target_N, VOCABULARY)
    expected = F.cross_entropy(head(h_ND).float(), target_N, reduction="sum")
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)


def lm2():
    torch.manual_seed(1)
    return LM2ForCausalLM(tiny_config("fewer slots than tokens", tie_word_embeddings=True))


@pytest.mark.parametrize("model", [lm2, partial(tiny, "rmt"), partial(tiny, "armt")])
def test_models_never_build_all_logits(model, monkeypatch):
    ids = random_ids(3, 27) % FEWEST_WORDS

    def step(built):
        output = built.train()(ids, labels=ids)
        output.loss.backward()
        return [output.loss.detach(), *(p.grad for p in built.parameters() if p.grad is not None)]

    expected, rows = step(model()), []
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 700)
    parts = model()
    head = parts.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: rows.append(output.numel()))
    torch.testing.assert_close(step(parts), expected, rtol=1e-4, atol=1e-6)
    assert max(rows) <= 700
    assert len(rows) > 2
