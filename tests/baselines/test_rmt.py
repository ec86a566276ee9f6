"""RMT against its definition: what each test pins is named by its first line."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen3Config

from lm2.baselines import RMTConfig, RMTForCausalLM

T, M, VOCABULARY = 6, 2, 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


def tiny(config_class=LlamaConfig, seed: int = 0, **fields) -> RMTForCausalLM:
    torch.manual_seed(seed)
    shape = {**SHAPE, "head_dim": 8} if config_class is Qwen3Config else SHAPE
    fields = {"segment_length": T, "memory_tokens": M, **fields}
    model = RMTForCausalLM(RMTConfig(backbone_config=config_class(**shape), **fields)).eval()
    torch.nn.init.normal_(model.memory.weight, std=1.0)  # large enough that memory matters in an untrained model
    return model


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def assert_same(a: torch.Tensor, b: torch.Tensor):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-4 * b.std()


def by_hand(model: RMTForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The definition for one row without padding, through the backbone's own forward."""
    memory, logits = model.memory.weight[None], []
    m = memory.shape[1]
    for segment in ids.split(model.config.segment_length, dim=1):
        inputs = torch.cat([memory, model.get_input_embeddings()(segment), memory], dim=1)
        output = model.backbone(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        logits.append(output.logits[:, m : m + segment.shape[1]])
        memory = output.hidden_states[-1][:, m + segment.shape[1] :]
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("config_class", [LlamaConfig, MistralConfig, Qwen3Config])
@pytest.mark.parametrize("length", [1, T - 1, T, T + 1, 3 * T + 2])
def test_equals_the_definition(config_class, length):
    model, ids = tiny(config_class), tokens(2, length)
    assert_same(model(ids).logits, torch.cat([by_hand(model, row[None]) for row in ids]))


def test_without_memory_is_the_backbone_segment_by_segment():
    model, ids = tiny(memory_tokens=0), tokens(2, 2 * T + 1)
    assert_same(model(ids).logits, torch.cat([model.backbone(piece).logits for piece in ids.split(T, dim=1)], dim=1))


@pytest.mark.parametrize("layout", ["causal", "bidirectional"])
@pytest.mark.parametrize("changed", [0, T - 1, T, 2 * T + 1])
def test_causal_and_linked_by_memory_only(layout, changed):
    ids = tokens(1, 3 * T)
    other = ids.clone()
    other[0, changed] = (ids[0, changed] + 1) % VOCABULARY
    model = tiny(memory_attention=layout)
    moved = (model(ids).logits - model(other).logits).abs().amax(-1)[0]
    assert moved[:changed].max() == 0 if changed else True
    next_segment = (changed // T + 1) * T
    assert (moved[next_segment:] > 1e-6).all()
    unlinked = tiny(memory_tokens=0)
    still = (unlinked(ids).logits - unlinked(other).logits).abs().amax(-1)[0]
    assert (still[next_segment:] == 0).all()


def test_bidirectional_blocks_differ_from_causal_ones():
    ids = tokens(1, 2 * T)
    causal, both = tiny(), tiny(memory_attention="bidirectional")
    assert (causal(ids).logits - both(ids).logits).abs().max() > 1e-4


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3 * T + 1), min_size=1, max_size=3), st.sampled_from(["left", "right", "both"]))
def test_padding_is_the_same_input(lengths, side):
    model = tiny()
    rows = [tokens(1, length, seed=length) for length in lengths]
    total = max(lengths) + 5
    ids, mask = tokens(len(rows), total, seed=9), torch.zeros(len(rows), total, dtype=torch.long)
    starts = [{"left": total - n, "right": 0, "both": (total - n) // 2}[side] for n in lengths]
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[b, start : start + row.shape[1]] = row[0]
        mask[b, start : start + row.shape[1]] = 1
    labels = ids.masked_fill(mask == 0, -100)
    output = model(ids, mask, labels=labels, use_cache=True)
    alone = [model(row, labels=row, use_cache=True, num_items_in_batch=1) for row in rows]
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        assert_same(output.logits[b, start : start + row.shape[1]], alone[b].logits[0])
        assert_same(output.past_key_values.memory_BMD[b], alone[b].past_key_values.memory_BMD[0])
    predicted = sum(length - 1 for length in lengths)
    expected = sum(one.loss for one in alone) / max(predicted, 1)
    assert output.loss.item() == pytest.approx(float(torch.as_tensor(expected).detach()), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 2 * T + 1), min_size=1, max_size=5))
def test_cut_anywhere(pieces):
    model, ids = tiny(), tokens(2, sum(pieces))
    state, logits = None, []
    for chunk in ids.split(pieces, dim=1):
        output = model(chunk, past_key_values=state, use_cache=True)
        state = output.past_key_values
        logits.append(output.logits)
    assert_same(torch.cat(logits, dim=1), model(ids).logits)
    last, streamed = model.stream(ids.split(pieces, dim=1))
    assert_same(last, model(ids).logits[:, -1])
    assert streamed.count_B.tolist() == [sum(pieces) % T] * 2
    assert torch.equal(streamed.select(torch.tensor([1])).memory_BMD[0], streamed.memory_BMD[1])


def test_loss_is_the_cross_entropy_across_the_border_of_a_segment():
    model, ids = tiny(), tokens(2, 2 * T)
    labels = torch.full_like(ids, -100)
    labels[:, T] = ids[:, T]  # predicted by the last position of segment 0
    output = model(ids, labels=labels)
    expected = F.cross_entropy(output.logits[:, T - 1], ids[:, T])
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(model(ids, labels=labels, num_items_in_batch=8).loss, expected / 4)
    model.train()
    trained = model(ids, labels=labels)
    torch.testing.assert_close(trained.loss, expected)
    assert trained.logits is None


def test_a_call_counts_no_target_of_an_earlier_call():
    model, ids = tiny(), tokens(1, T + 3)
    first = model(ids[:, :4], use_cache=True)
    rest = ids[:, 4:]
    output = model(rest, past_key_values=first.past_key_values, labels=rest)
    expected = F.cross_entropy(model(ids).logits[0, 4:-1], rest[0, 1:])
    torch.testing.assert_close(output.loss, expected)


def watch_embeddings(model: RMTForCausalLM) -> list[torch.Tensor]:
    """The embedded tokens of each segment of the next forward pass, with their gradients after backward."""
    embedded: list[torch.Tensor] = []

    def keep(_module, _inputs, output):
        output.retain_grad()
        embedded.append(output)

    model.get_input_embeddings().register_forward_hook(keep)
    return embedded


@pytest.mark.parametrize(("window", "reached"), [(None, (0, 1, 2, 3)), (2, (2, 3)), (3, (1, 2, 3))])
def test_gradient_reaches_as_far_as_the_window(window, reached):
    model, ids = tiny(bptt_segments=window).train(), tokens(1, 4 * T)
    embedded = watch_embeddings(model)
    labels = ids.clone()
    labels[:, : 3 * T + 1] = -100
    model(ids, labels=labels).loss.backward()
    gradients = [0.0 if e.grad is None else e.grad.abs().max().item() for e in embedded]
    assert tuple(s for s, g in enumerate(gradients) if g > 0) == reached
    first_memory = model.memory.weight.grad
    assert (first_memory is not None and first_memory.abs().max() > 0) == (0 in reached)


def test_pads_get_no_gradient():
    model, ids = tiny().train(), tokens(2, 2 * T)
    mask = torch.ones_like(ids)
    mask[1, T + 2 :] = 0
    embedded = watch_embeddings(model)
    model(ids, mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
    assert embedded[1].grad[1, 2:].abs().max() == 0
    assert embedded[1].grad[1, :1].abs().max() > 0


@pytest.mark.parametrize("length", [T - 1, T, T + 1, 2 * T - 1, 2 * T, 2 * T + 1])
def test_generation_is_the_argmax_of_forward(length):
    model, ids = tiny(), tokens(2, length)
    answer = model.generate_answer(ids, max_new_tokens=T + 2)
    whole = torch.cat([ids, answer], dim=1)
    assert torch.equal(answer, model(whole).logits[:, length - 1 : -1].argmax(-1))


def test_generation_with_padding_and_end_of_text():
    model = tiny()
    rows = [tokens(1, T + 1, seed=3), tokens(1, 2 * T, seed=4)]
    alone = [model.generate_answer(row, max_new_tokens=4)[0] for row in rows]
    for left in (True, False):
        ids, mask = torch.zeros(2, 2 * T, dtype=torch.long), torch.zeros(2, 2 * T, dtype=torch.long)
        for b, row in enumerate(rows):
            at = slice(2 * T - row.shape[1], None) if left else slice(0, row.shape[1])
            ids[b, at], mask[b, at] = row[0], 1
        assert torch.equal(model.generate_answer(ids, mask, max_new_tokens=4), torch.stack(alone))
    end = int(alone[0][0])
    assert model.generate_answer(rows[0], max_new_tokens=4, eos_token_id=end).tolist() == [[end]]


def test_logits_to_keep_takes_the_same_columns():
    model, ids = tiny(), tokens(2, 2 * T + 3)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    full = model(ids, mask).logits
    for keep, columns in ((1, slice(-1, None)), (T + 1, slice(-T - 1, None)), (torch.tensor([5, 9]), [5, 9])):
        torch.testing.assert_close(model(ids, mask, logits_to_keep=keep).logits, full[:, columns])


def test_the_head_sees_only_what_is_asked_for():
    model, ids = tiny(), tokens(1, 4 * T)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    model(ids, logits_to_keep=1)
    labels = torch.full_like(ids, -100)
    labels[0, [3, 9]] = 1
    model.train()(ids, labels=labels)
    assert seen == [1, 2]


def test_save_and_load(tmp_path):
    model, ids = tiny(bptt_segments=3), tokens(1, 2 * T)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, RMTForCausalLM)
    assert AutoConfig.from_pretrained(tmp_path).bptt_segments == 3
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_wrapped_model_keeps_its_weights_and_gives_memory_the_spread_of_its_embedding():
    torch.manual_seed(0)
    backbone = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    model = RMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=29).eval()
    assert model.backbone is backbone
    spread = backbone.get_input_embeddings().weight.detach().std().item()
    assert model.memory.weight.detach().std().item() == pytest.approx(spread, rel=0.1)
    bare = RMTForCausalLM.from_backbone(backbone, segment_length=T, memory_tokens=0).eval()
    assert_same(bare(tokens(1, T)).logits, backbone(tokens(1, T)).logits)


def test_gradient_checkpointing_keeps_the_loss_and_gradient():
    ids = tokens(2, 2 * T)
    results = []
    for checkpointing in (False, True):
        model = tiny().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        loss = model(ids, labels=ids).loss
        loss.backward()
        results.append((loss.detach(), model.memory.weight.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segment_length": 0}, "at least 1, got 0"),
        ({"memory_tokens": -1}, "not be negative, got -1"),
        ({"bptt_segments": 1}, "at least 2, got 1"),
        ({"segment_length": 61, "memory_tokens": 2}, "65 positions, but the backbone has 64"),
    ],
)
def test_config_errors_name_the_values(fields, message):
    with pytest.raises(ValueError, match=message):
        RMTConfig(backbone_config=LlamaConfig(**SHAPE), **{"segment_length": T, "memory_tokens": M, **fields})


def test_empty_inputs_are_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"shape \(1, 0\)"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"counts \[3, 0\]"):
        model.generate_answer(tokens(2, 3), torch.tensor([[1, 1, 1], [0, 0, 0]]), max_new_tokens=1)
    with pytest.raises(ValueError, match="got 0"):
        model.generate_answer(tokens(1, 3), max_new_tokens=0)
    with pytest.raises(ValueError, match="at least one chunk, got 0"):
        model.stream([])


def recall_batch(rows: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A value (10 to 17) in segment 0, noise, and the question 5 at the end of segment 1: say the value."""
    draw = torch.Generator().manual_seed(step)
    ids = torch.randint(30, VOCABULARY, (rows, 2 * T), generator=draw)
    value = torch.randint(10, 18, (rows,), generator=draw)
    ids[:, 1], ids[:, -2], ids[:, -1] = value, 5, value
    labels = torch.full_like(ids, -100)
    labels[:, -1] = value
    return ids, labels


def test_learns_to_recall_over_two_segments():
    model = tiny().train()
    torch.nn.init.normal_(model.memory.weight, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(400):
        ids, labels = recall_batch(32, step)
        loss = model(ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    ids, labels = recall_batch(200, step=10_000)
    answers = model.eval()(ids[:, :-1], logits_to_keep=1).logits[:, -1].argmax(-1)
    assert (answers == labels[:, -1]).float().mean() >= 0.99
