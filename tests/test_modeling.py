"""Loading, saving, the loss, and what the model refuses."""

from functools import partial

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from lm2 import LM2Cache, LM2ForCausalLM, LM2Model
from tests.accelerator import DEVICE, accelerator
from tests.contract.cases import CASES, assert_same, random_ids, tiny_model


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_auto_classes_load_what_was_saved(case, tmp_path):
    model, ids = tiny_model(case), random_ids(1, 20)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, LM2ForCausalLM)
    assert torch.equal(again(ids).logits, model(ids).logits)
    body = AutoModel.from_pretrained(tmp_path)
    assert isinstance(body, LM2Model)
    assert torch.equal(body(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_a_checkpoint_without_memory_gets_a_fresh_memory_and_keeps_the_rest(tmp_path):
    """Hugging Face initialises by class, and in place over what was loaded, unless both are seen to."""
    model = tiny_model("fewer slots than tokens")
    plain = {name: tensor for name, tensor in model.state_dict().items() if ".memory." not in name}
    model.save_pretrained(tmp_path, state_dict=dict(plain))
    again, info = LM2ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"]
    assert all(".memory." in name for name in info["missing_keys"])
    for name, tensor in again.state_dict().items():
        if ".memory." not in name:
            assert torch.equal(tensor, plain[name]), name
    memory = again.model.layers[1].memory
    assert memory.forget_gate.bias.unique().tolist() == [1.0]
    assert memory.q_proj.weight.std().item() == pytest.approx(24**-0.5, rel=0.15)


@torch.no_grad()
def test_eager_attention_is_the_same():
    for case in CASES:
        ids = random_ids(2, 20)
        model = tiny_model(case)
        expected = model(ids).logits
        model.set_attn_implementation("eager")
        assert_same(model(ids).logits, expected)
        cache = LM2Cache(model.config)
        parts = [model(part, past_key_values=cache).logits for part in ids.split(4, dim=1)]
        assert_same(torch.cat(parts, 1), expected)


def test_the_loss_is_the_shifted_cross_entropy_over_the_whole_row():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.5, -100)
    out = model(ids, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    count = int((labels[:, 1:] != -100).sum())
    divided = model(ids, labels=labels, num_items_in_batch=2 * count).loss
    assert divided.item() == pytest.approx(expected.item() / 2, rel=1e-5)


def test_the_loss_does_not_depend_on_the_side_that_is_padded():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(1, 20)
    expected = model(ids, labels=ids).loss
    for left in (0, 3):
        padded, mask = torch.nn.functional.pad(ids, (left, 3 - left)), torch.zeros(1, 23, dtype=torch.long)
        mask[:, left : left + 20] = 1
        for labels in (padded, padded.masked_fill(mask == 0, -100)):
            torch.testing.assert_close(model(padded, attention_mask=mask, labels=labels).loss, expected)


def test_what_is_planned_lives_on_the_cpu_whatever_torch_makes_tensors_on():
    model, ids = tiny_model("more slots than width"), random_ids(2, 20)
    mask, places = torch.ones_like(ids), torch.arange(20).remainder(9).expand(2, -1)
    mask[0, :4] = 0
    expected = [model(ids, attention_mask=mask).logits, model(ids, position_ids=places).logits]
    torch.set_default_device("meta")
    try:
        found = [model(ids, attention_mask=mask).logits, model(ids, position_ids=places).logits]
        cache = LM2Cache(model.config)
        model(ids, past_key_values=cache)
        cache.reset([1])
        assert model(ids, past_key_values=cache.repeat(1)).logits.device.type == "cpu"
    finally:
        torch.set_default_device(None)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_what_blocks_share_goes_with_them_to_another_device():
    """What accelerate does before a block of a `device_map`."""
    accelerate = pytest.importorskip("accelerate")
    model, calls = tiny_model("look-back"), []
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :4] = 0
    model.model.layers[1].register_forward_pre_hook(lambda module, inputs: calls.append(inputs[2]))
    model(random_ids(2, 20), attention_mask=mask)
    call = accelerate.utils.send_to_device(calls[0], "meta")
    moved = [*call.rotary, *call.border, *(m for m in call.masks.values() if m is not None), call.layout.row_BL]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert call.layout.device == torch.device("meta")
    assert call.layout.read_R.device.type == call.layout.complete_RS.device.type == "cpu"


INPUTS = {
    "pads": {"attention_mask": torch.tensor([[0] * 4 + [1] * 16, [1] * 20])},
    "packed": {"position_ids": torch.cat([torch.arange(10), torch.arange(10)]).expand(2, -1)},
    "hidden states": {"output_hidden_states": True},
}


@pytest.mark.parametrize("inputs", INPUTS)
@torch.no_grad()
def test_blocks_on_two_devices_say_what_they_say_on_one(inputs):
    """The first block here, the second on another device, as a `device_map` has them."""
    accelerate = pytest.importorskip("accelerate")
    model, ids = tiny_model("look-back"), random_ids(2, 20)
    expected, whole = model(ids, **INPUTS[inputs]).logits, model(ids).logits

    def send(module, arguments, named):
        return accelerate.utils.send_to_device((arguments, named), DEVICE)

    with accelerator() as moved:
        for module in (model.model.layers[1], model.model.norm, model.lm_head):
            moved(module).register_forward_pre_hook(send, with_kwargs=True)
        found = model(ids, **INPUTS[inputs]).logits.cpu()
        cache = LM2Cache(model.config)
        pieces = [model(piece, past_key_values=cache).logits.cpu() for piece in ids.split([3, 1, 16], dim=1)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)


def test_training_mode_computes_no_logits_and_the_same_loss():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    expected = model(ids, labels=ids).loss
    out = model.train()(ids, labels=ids)
    assert out.logits is None
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert model(ids).logits.shape == (2, 20, 61)


def test_a_batch_without_labels_has_loss_zero_and_gradients():
    model, ids = tiny_model("fewer slots than tokens").train(), random_ids(2, 20)
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@torch.no_grad()
def test_logits_to_keep():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    logits = model(ids).logits
    assert_same(model(ids, logits_to_keep=3).logits, logits[:, -3:])
    assert_same(model(ids, logits_to_keep=torch.tensor([4, 9])).logits, logits[:, [4, 9]])


@torch.no_grad()
def test_hidden_states_and_tuples_and_embeddings_as_inputs():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    out = model(ids, output_hidden_states=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(2, 20, 24)] * 3
    assert torch.equal(out.hidden_states[0], model.model.embed_tokens(ids))
    assert torch.equal(model(ids, return_dict=False)[0], out.logits)
    assert torch.equal(model(inputs_embeds=model.model.embed_tokens(ids)).logits, out.logits)
    model.config.return_dict, model.config.output_hidden_states = False, True
    logits, _, hidden = model(ids, use_cache=True)
    assert torch.equal(logits, out.logits)
    assert len(hidden) == 3


def test_inputs_that_do_not_fit_get_a_sentence():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 5)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()
    for one_text in ({"input_ids": ids[0, :3]}, {"inputs_embeds": torch.ones(3, 24)}):  # a width of 4 segments
        with pytest.raises(ValueError, match=r"embedded as \(3, 24\): give one text as a batch of one row"):
            model(**one_text)
    with pytest.raises(ValueError, match=r"of shape \(2, 5\) or longer.* it is of shape \(2, 4\)"):
        model(ids, attention_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="must be an LM2Cache, and it is a tuple"):
        model(ids, past_key_values=((ids,),))


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_weights_are_refused_since_none_would_come(kernel):
    model, ids = tiny_model("fewer slots than tokens"), random_ids(1, 5)
    model.set_attn_implementation(kernel)
    told = pytest.raises(ValueError, match="output_attentions is True, and an LM2 model returns no attention weights")
    for call in (model, model.model, partial(model.generate, max_new_tokens=1, return_dict_in_generate=True)):
        call(ids, output_attentions=False)
        with told:
            call(ids, output_attentions=True)
    if kernel == "eager":
        model.config.output_attentions = True
        with told:
            model(ids)
