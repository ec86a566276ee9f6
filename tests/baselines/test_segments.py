"""What RMT and ARMT have in common: rows cut into segments, padding, state, loss, truncation and generation."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from tests.baselines.cases import (
    KINDS,
    SHAPE,
    VOCABULARY,
    M,
    T,
    assert_same,
    memory_tokens,
    tiny,
    tokens,
    watch_embeddings,
)

both = pytest.mark.parametrize("kind", list(KINDS))


@both
def test_without_memory_is_the_backbone_segment_by_segment(kind):
    model, ids = tiny(kind, memory_tokens=0), tokens(2, 2 * T + 1)
    assert_same(model(ids).logits, torch.cat([model.backbone(piece).logits for piece in ids.split(T, dim=1)], dim=1))


@both
@pytest.mark.parametrize("changed", [0, T - 1, T, 2 * T + 1])
def test_causal_and_linked_by_memory_only(kind, changed):
    ids = tokens(1, 3 * T)
    other = ids.clone()
    other[0, changed] = (ids[0, changed] + 1) % VOCABULARY
    model = tiny(kind)
    moved = (model(ids).logits - model(other).logits).abs().amax(-1)[0]
    assert moved[:changed].max() == 0 if changed else True
    next_segment = (changed // T + 1) * T
    assert (moved[next_segment:] > 1e-6).all()
    unlinked = tiny(kind, memory_tokens=0)
    still = (unlinked(ids).logits - unlinked(other).logits).abs().amax(-1)[0]
    assert (still[next_segment:] == 0).all()


@both
def test_with_the_first_memory_put_back_nothing_is_linked(kind):
    model, ids = tiny(kind), tokens(2, 2 * T)
    state = model(ids[:, :T], use_cache=True).past_key_values
    forgotten = type(state)(model.initial_state(2).memory, state.ids_BT, state.count_B)
    output = model(ids[:, T:], past_key_values=forgotten)
    assert_same(output.logits, model(ids[:, T:]).logits)


@both
@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3 * T + 1), min_size=1, max_size=3),
    side=st.sampled_from(["left", "right", "both"]),
)
def test_padding_is_the_same_input(kind, lengths, side):
    model = tiny(kind)
    rows = [tokens(1, length, seed=length) for length in lengths]
    total = max(lengths) + 5
    ids, mask = tokens(len(rows), total, seed=9), torch.zeros(len(rows), total, dtype=torch.long)
    starts = [{"left": total - n, "right": 0, "both": (total - n) // 2}[side] for n in lengths]
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[b, start : start + row.shape[1]] = row[0]
        mask[b, start : start + row.shape[1]] = 1
    labels = ids.masked_fill(mask == 0, -100)
    output = model(ids, mask, labels=labels, use_cache=True)
    assert torch.equal(model(ids, mask, labels=ids).loss, output.loss)  # a label at a pad is none
    alone = [model(row, labels=row, use_cache=True, num_items_in_batch=1) for row in rows]
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        assert_same(output.logits[b, start : start + row.shape[1]], alone[b].logits[0])
        for part, own in zip(output.past_key_values.memory, alone[b].past_key_values.memory, strict=True):
            torch.testing.assert_close(part[b], own[0], rtol=1e-4, atol=1e-5)
    predicted = sum(length - 1 for length in lengths)
    expected = sum(one.loss for one in alone) / max(predicted, 1)
    assert output.loss.item() == pytest.approx(float(torch.as_tensor(expected).detach()), rel=1e-5)


@both
def test_segments_of_pads_leave_the_memory_of_a_row_bit_for_bit(kind):
    model, ids = tiny(kind), tokens(2, 4 * T)
    mask = torch.ones_like(ids)
    mask[1, T:] = 0
    padded = model(ids, mask, use_cache=True).past_key_values
    short = model(ids[:, :T], use_cache=True).past_key_values
    for part, own in zip(padded.memory, short.memory, strict=True):
        assert torch.equal(part[1], own[1])
    assert not torch.equal(padded.memory[0][0], short.memory[0][0])


@both
def test_a_real_end_of_text_is_read(kind):
    """Masks say what a pad is, never the token itself."""
    model, ids = tiny(kind), tokens(1, 2 * T)
    end = model.backbone.config.eos_token_id
    with_end, without = ids.clone(), ids.clone()
    with_end[0, 2], without[0, 2] = end, (end + 1) % VOCABULARY
    moved = (model(with_end).logits - model(without).logits).abs().amax(-1)[0]
    assert moved[2:].min() > 1e-6
    assert_same(model(with_end).logits, model(with_end, torch.ones_like(ids)).logits)


@both
@settings(max_examples=8, deadline=None)
@given(pieces=st.lists(st.integers(1, 2 * T + 1), min_size=1, max_size=5))
def test_cut_anywhere(kind, pieces):
    model, ids = tiny(kind), tokens(2, sum(pieces))
    state, logits = None, []
    for chunk in ids.split(pieces, dim=1):
        output = model(chunk, past_key_values=state, use_cache=True)
        state = output.past_key_values
        logits.append(output.logits)
    assert_same(torch.cat(logits, dim=1), model(ids).logits)
    last, streamed = model.stream(ids.split(pieces, dim=1))
    assert_same(last, model(ids).logits[:, -1])
    assert streamed.count_B.tolist() == [sum(pieces) % T] * 2
    chosen = streamed.select(torch.tensor([1, 1]))
    for part, source in zip(chosen.memory, streamed.memory, strict=True):
        assert torch.equal(part, source[[1, 1]])


@both
def test_the_state_is_a_value_that_does_not_grow(kind):
    model, ids = tiny(kind), tokens(1, 20 * T + 1)
    first = model(ids[:, : T + 1], use_cache=True).past_key_values
    before = [part.clone() for part in first.memory]
    _, last = model.stream(ids.split(T, dim=1), first)
    assert last.nbytes == first.nbytes
    went_on, _ = model.stream(ids.split(T, dim=1), first)
    assert_same(went_on, model(torch.cat([ids[:, : T + 1], ids], dim=1)).logits[:, -1])
    assert all(torch.equal(part, saved) for part, saved in zip(first.memory, before, strict=True))
    assert not any(part.requires_grad for part in first.detach().memory)


@both
def test_chosen_rows_go_on_as_they_would_alone(kind):
    """Only the longest completes the last segment of the call."""
    model, ids, further, lengths = tiny(kind), tokens(3, 2 * T), tokens(3, 4, seed=2), (T + 2, T - 1, 2 * T)
    mask = (torch.arange(2 * T) < torch.tensor(lengths)[:, None]).long()
    state, chosen = model(ids, mask, use_cache=True).past_key_values, [2, 0, 1, 0]
    together = model(further[chosen], past_key_values=state.select(chosen)).logits
    for row, logits in zip(chosen, together, strict=True):
        alone = model(torch.cat([ids[row, : lengths[row]], further[row]])[None]).logits
        assert_same(logits, alone[0, lengths[row] :])


@both
def test_loss_is_the_cross_entropy_across_the_border_of_a_segment(kind):
    model, ids = tiny(kind), tokens(2, 2 * T)
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


@both
def test_a_call_counts_no_target_of_an_earlier_call(kind):
    model, ids = tiny(kind), tokens(1, T + 3)
    first = model(ids[:, :4], use_cache=True)
    rest = ids[:, 4:]
    output = model(rest, past_key_values=first.past_key_values, labels=rest)
    expected = F.cross_entropy(model(ids).logits[0, 4:-1], rest[0, 1:])
    torch.testing.assert_close(output.loss, expected)


@both
@pytest.mark.parametrize(("window", "reached"), [(None, (0, 1, 2, 3)), (2, (2, 3)), (3, (1, 2, 3))])
def test_gradient_reaches_as_far_as_the_window(kind, window, reached):
    model, ids = tiny(kind, bptt_segments=window).train(), tokens(1, 4 * T)
    embedded = watch_embeddings(model)
    labels = ids.clone()
    labels[:, : 3 * T + 1] = -100
    model(ids, labels=labels).loss.backward()
    gradients = [0.0 if e.grad is None else e.grad.abs().max().item() for e in embedded]
    assert tuple(s for s, g in enumerate(gradients) if g > 0) == reached
    if kind == "rmt":  # its first memory enters before segment 0 only
        first_memory = model.memory.weight.grad
        assert (first_memory is not None and first_memory.abs().max() > 0) == (0 in reached)


@both
def test_the_window_is_counted_from_the_end_of_each_row(kind):
    """A row of two segments has the gradient that it has alone, whatever is beside it."""
    ids = tokens(2, 3 * T)
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, 2 * T :] = 0
    labels[0, 2 * T :], labels[1] = -100, -100
    found = []
    for rows in ([0, 1], [0]):
        model = tiny(kind, bptt_segments=2).train()
        embedded = watch_embeddings(model)
        model(ids[rows], attention_mask=mask[rows], labels=labels[rows]).loss.backward()
        found.append(embedded[0].grad[0])
    assert found[1].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


@both
def test_pads_get_no_gradient(kind):
    model, ids = tiny(kind).train(), tokens(2, 3 * T)
    mask = torch.ones_like(ids)
    mask[1, T + 2 :] = 0
    embedded = watch_embeddings(model)
    model(ids, mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
    assert embedded[1].grad[1, 2:].abs().max() == 0
    assert embedded[2].grad[1].abs().max() == 0
    assert embedded[1].grad[1, :1].abs().max() > 0


@both
@pytest.mark.parametrize("length", [T - 1, T, T + 1, 2 * T - 1, 2 * T, 2 * T + 1])
def test_generation_is_the_argmax_of_forward(kind, length):
    model, ids = tiny(kind), tokens(2, length)
    answer = model.generate_answer(ids, max_new_tokens=T + 2)
    whole = torch.cat([ids, answer], dim=1)
    assert torch.equal(answer, model(whole).logits[:, length - 1 : -1].argmax(-1))


@both
def test_generation_with_padding_and_end_of_text(kind):
    model = tiny(kind)
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


@both
def test_generation_ends_at_any_of_several_tokens(kind):
    """As Llama 3 has them; rows that have ended are filled with the first."""
    model, ids = tiny(kind), tokens(2, T + 1, seed=3)
    free = model.generate_answer(ids, max_new_tokens=4)
    other = next(i for i in range(VOCABULARY) if i not in free)
    end = int(free[0, 0])
    assert end not in free[1]
    answer = model.generate_answer(ids, max_new_tokens=4, eos_token_id=[other, end])
    assert answer[0].tolist() == [end, other, other, other]
    assert torch.equal(answer[1], free[1])


@both
def test_logits_to_keep_takes_the_same_columns(kind):
    model, ids = tiny(kind), tokens(2, 2 * T + 3)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    full = model(ids, mask).logits
    for keep, columns in ((1, slice(-1, None)), (T + 1, slice(-T - 1, None)), (torch.tensor([5, 9]), [5, 9])):
        torch.testing.assert_close(model(ids, mask, logits_to_keep=keep).logits, full[:, columns])


@both
def test_the_head_sees_only_what_is_asked_for(kind):
    model, ids = tiny(kind), tokens(1, 4 * T)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    model(ids, logits_to_keep=1)
    labels = torch.full_like(ids, -100)
    labels[0, [3, 9]] = 1
    model.train()(ids, labels=labels)
    assert seen == [1, 2]


@both
def test_a_memory_around_a_bfloat16_backbone_is_what_is_saved(kind, tmp_path):
    wrapped = AutoModelForCausalLM.from_config(tiny(kind).backbone.config, dtype=torch.bfloat16)
    model = KINDS[kind][1].from_backbone(wrapped, segment_length=T, memory_tokens=M)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    ids = tokens(2, 3 * T)
    assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)


@both
@pytest.mark.parametrize("training", [True, False])
def test_a_wrapped_backbone_stays_in_its_mode(kind, training):
    wrapped = tiny(kind).backbone.train(training)
    model = KINDS[kind][1].from_backbone(wrapped, segment_length=T, memory_tokens=M)
    assert {module.training for module in model.modules()} == {training}


@both
def test_save_and_load(kind, tmp_path):
    model, ids = tiny(kind, bptt_segments=3), tokens(1, 2 * T)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    assert AutoConfig.from_pretrained(tmp_path).bptt_segments == 3
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@both
def test_gradient_checkpointing_keeps_the_loss_and_gradient(kind):
    ids = tokens(2, 2 * T)
    results = []
    for checkpointing in (False, True):
        model = tiny(kind).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        loss = model(ids, labels=ids).loss
        loss.backward()
        results.append((loss.detach(), memory_tokens(model).grad, *(p.grad for p in model.backbone.parameters())))
    torch.testing.assert_close(results[0], results[1])


@both
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segment_length": 0}, "at least 1, got 0"),
        ({"memory_tokens": -1}, "not be negative, got -1"),
        ({"bptt_segments": 1}, "at least 2, got 1"),
        ({"segment_length": 63, "memory_tokens": 2}, "6[57] positions, but the backbone has 64"),
    ],
)
def test_config_errors_name_the_values(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind, **{"segment_length": T, "memory_tokens": M, **fields})


@both
def test_a_segment_may_take_all_positions_of_the_backbone(kind):
    blocks = KINDS[kind][0].memory_blocks
    model = tiny(kind, segment_length=64 - blocks * M)
    assert model(tokens(1, 70), use_cache=True).logits.isfinite().all()


@both
def test_new_memory_tokens_have_the_spread_of_the_backbone_s_weights(kind):
    config, model_class, own = KINDS[kind]
    backbone = LlamaConfig(**SHAPE, initializer_range=0.3)
    model = model_class(config(backbone_config=backbone, segment_length=T, memory_tokens=29, **own))
    assert memory_tokens(model).detach().std().item() == pytest.approx(0.3, rel=0.1)


@both
def test_empty_inputs_are_refused(kind):
    model = tiny(kind)
    with pytest.raises(ValueError, match=r"shape \(1, 0\)"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"counts \[3, 0\]"):
        model.generate_answer(tokens(2, 3), torch.tensor([[1, 1, 1], [0, 0, 0]]), max_new_tokens=1)
    with pytest.raises(ValueError, match="got 0"):
        model.generate_answer(tokens(1, 3), max_new_tokens=0)
    with pytest.raises(ValueError, match="at least one chunk, got 0"):
        model.stream([])


@both
@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (4,), (2, 1, 4, 4)])
def test_a_mask_of_another_shape_is_refused(kind, shape):
    model, ids, mask = tiny(kind), tokens(2, 4), torch.ones(shape, dtype=torch.long)
    for read in (model, partial(model.generate_answer, max_new_tokens=1)):
        with pytest.raises(
            ValueError, match=rf"of shape \(2, 4\) or longer .*, and it is of shape {re.escape(str(shape))}"
        ):
            read(ids, mask)


@both
def test_a_longer_mask_counts_from_its_end(kind):
    model, ids = tiny(kind), tokens(2, 4)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    assert torch.equal(model(ids, mask).logits, model(ids, mask[:, 2:]).logits)
    answers = [model.generate_answer(ids, one, max_new_tokens=2) for one in (mask, mask[:, 2:])]
    assert torch.equal(*answers)


@both
def test_a_state_of_other_rows_is_refused(kind):
    model, ids = tiny(kind), tokens(2, 4)
    state = model(tokens(3, T + 1), use_cache=True).past_key_values
    for read in (model, partial(model.generate_answer, max_new_tokens=1)):
        with pytest.raises(ValueError, match=r"has 3 rows and input_ids has 2: use past_key_values\.select"):
            read(ids, past_key_values=state)
