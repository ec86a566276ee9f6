"""The model on a device that is not the CPU, in float32 and bfloat16: nothing is left behind, and it says the same."""

import pytest
import torch

from lm2 import LM2Cache, add_memory
from lm2.baselines import ARMTForCausalLM, RMTForCausalLM
from tests.accelerator import DEVICE, accelerator
from tests.contract.cases import padded, random_ids, tiny_model
from tests.families import CASES as FAMILIES
from tests.families import tiny_base

CASES = ("fewer slots than tokens", "top-k", "look-back")
QUICK = ("llama", "mistral-sliding", "qwen3-qk-norm")
"""Families whose memory is tried there by `make test`."""
DTYPES = (torch.float32, torch.bfloat16)
IDS = random_ids(2, 33)
BORDERS = torch.cat([torch.arange(10), torch.arange(23)]).expand(2, -1)


def masked(side: str) -> dict[str, torch.Tensor]:
    ids, mask = padded([IDS[0][:9], IDS[1]], side)
    return {"input_ids": ids, "attention_mask": mask}


BATCHES = {
    "whole rows": {"input_ids": IDS},
    "pads anywhere": masked("scattered"),
    "packed documents": {"input_ids": IDS, "position_ids": BORDERS},
}


def test_tensors_of_two_devices_do_not_mix():
    with accelerator() as moved:
        here, there = torch.ones(3), moved(torch.ones(3))
        assert there.device == (there + 1).device == torch.zeros(2, device=DEVICE).device == torch.device(DEVICE)
        assert (there + torch.tensor(2.0))[torch.tensor([0])].tolist() == [3.0]
        assert (there.cpu() + here).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match=r"cuda:0 and cpu, there \[\(3,\)\]"):
            there + here
        with pytest.raises(RuntimeError, match=r"aten::index: .* there \[\(3,\)\]"):
            here[moved(torch.tensor([0]))]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


EVERY_KIND = [
    pytest.param(case, batch, dtype, id=f"{case}-{batch}-{dtype}", marks=[pytest.mark.slow] * ((i + j + k) % 2))
    for i, case in enumerate(CASES)
    for j, batch in enumerate(BATCHES)
    for k, dtype in enumerate(DTYPES)
]
"""Every other one is slow: each case meets each batch, and each of both each number format, in `make test`."""


def gradients(model, batch):
    model(**batch, labels=batch["input_ids"]).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("case", "batch", "dtype"), EVERY_KIND)
def test_training_gives_the_same_gradients(case, batch, dtype):
    """With cut gradients and activation checkpointing, as long runs have them."""

    def model():
        made = tiny_model(case, bptt_segments=2).to(dtype).train()
        made.activation_checkpointing_enable()
        return made

    wanted = gradients(model(), BATCHES[batch])
    with accelerator() as moved:
        found = gradients(moved(model()), {name: moved(tensor) for name, tensor in BATCHES[batch].items()})
        assert {gradient.device.type for gradient in found.values()} == {"cuda"}
        found = {name: gradient.cpu() for name, gradient in found.items()}
    for name, gradient in wanted.items():
        scale = gradient.float().norm().clamp_min(1e-6)
        assert (found[name].float() - gradient.float()).norm() <= (1e-3 if dtype == torch.float32 else 0.3) * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_state_is_read_on_with_kept_and_reordered_there(case, dtype, tmp_path):
    with accelerator() as moved, torch.no_grad():
        model, ids = moved(tiny_model(case).to(dtype)), moved(IDS)
        cache = LM2Cache(model.config)
        for piece in ids.split(5, dim=1):
            model(piece, past_key_values=cache)
        cache.save(tmp_path / "state.safetensors", model)
        loaded = LM2Cache.load(tmp_path / "state.safetensors", model)
        on = [model(ids[:, :4], past_key_values=each.copy()).logits.cpu() for each in (cache, loaded)]
        cache.reorder_cache(moved(torch.tensor([1, 0])))
        other = model(ids[:, :4].flip(0), past_key_values=cache).logits.cpu()
    assert torch.equal(*on)
    torch.testing.assert_close(other.flip(0), on[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"do_sample": True}], ids=["greedy", "beams", "sampling"])
def test_generation(how, dtype):
    case, batch, more = "look-back", masked("left"), {"max_new_tokens": 8, **how}
    wanted = tiny_model(case).to(dtype).generate(**batch, **more)
    with accelerator() as moved:
        model = moved(tiny_model(case).to(dtype))
        found = model.generate(**{name: moved(tensor) for name, tensor in batch.items()}, **more).cpu()
    assert found.shape == wanted.shape
    if not how and dtype == torch.float32:
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] * (f not in QUICK)) for f in FAMILIES])
def test_a_memory_is_given_to_a_model_where_it_is(family):
    arguments = {"segment_length": 8, "memory_tokens": 2}
    with accelerator() as moved:
        ids = moved(random_ids(1, 18))
        lm2 = add_memory(moved(tiny_base(family)), memory_slots=4, segment_length=8, look_back=2)
        rmt, armt = (
            kind.from_backbone(moved(tiny_base(family)), **arguments) for kind in (RMTForCausalLM, ARMTForCausalLM)
        )
        for model, generate in ((lm2, lm2.generate), (rmt, rmt.generate_answer), (armt, armt.generate_answer)):
            assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
            model(ids, labels=ids).loss.backward()
            assert generate(ids, max_new_tokens=3).device.type == "cuda"
