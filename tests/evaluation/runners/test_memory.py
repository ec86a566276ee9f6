"""LM2, RMT and ARMT read in constant memory, and the policies that make the controls do what they say."""

import pytest
import torch

from lm2 import LM2Cache
from lm2.evaluation.codec import ANCHOR
from lm2.evaluation.runners.memory import SEGMENTS_AT_ONCE, StreamingRunner, with_memory
from tests.evaluation import tiny

BEFORE, AFTER, NEW = "<context>\n", "\n</context>\n\nQuestion: Where is Mary?", 20
CONTEXT = tiny.prose(30)
KINDS = ("lm2", "rmt", "armt")
pytestmark = pytest.mark.parametrize("kind", KINDS)


def runner(kind: str) -> StreamingRunner:
    model = tiny.memory_model(kind)
    return StreamingRunner(kind, {}, model, tiny.codec(model))


def ids_of(text: str) -> torch.Tensor:
    return tiny.tokenizer()(text, return_tensors="pt")["input_ids"]


def generated(kind: str, ids: torch.Tensor, state=None) -> str:
    model = tiny.memory_model(kind)
    if kind == "lm2":
        out = model.generate(ids, past_key_values=state, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        out = out[:, ids.shape[1] :]
    else:
        out = model.generate_answer(ids, past_key_values=state, max_new_tokens=NEW)
    return tiny.codec(model).decode(out[0].tolist())


def memory_of(state) -> list[torch.Tensor]:
    return [s.bank for s in state.states] if isinstance(state, LM2Cache) else list(state.memory)


def same_memory(first, second) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(memory_of(first), memory_of(second), strict=True))


def test_the_answer_is_the_models_own_however_the_text_is_cut(kind):
    expected = generated(kind, ids_of(BEFORE + CONTEXT + AFTER))
    assert expected
    for pieces in ([CONTEXT], [CONTEXT[i : i + 37] for i in range(0, len(CONTEXT), 37)]):
        assert runner(kind).answer(BEFORE, pieces, AFTER, NEW) == expected


def test_the_chat_frame_is_part_of_the_prompt(kind):
    model = tiny.memory_model(kind)
    chat = StreamingRunner(kind, {}, model, tiny.codec(model, chat=True))
    framed = f"<bos>user: {BEFORE}{CONTEXT}{AFTER}<eos>assistant:"
    expected = generated(kind, tiny.tokenizer()(framed, add_special_tokens=False, return_tensors="pt")["input_ids"])
    assert chat.answer(BEFORE, [CONTEXT], AFTER, NEW) == expected
    assert expected != runner(kind).answer(BEFORE, [CONTEXT], AFTER, NEW)


def test_a_reading_can_be_asked_many_times(kind):
    own = runner(kind)
    reading = own.read(BEFORE, [CONTEXT])
    answers = [own.finish(reading, after, NEW) for after in (AFTER, "\n</context>\nWho?", AFTER)]
    assert answers[0] == answers[2] == own.answer(BEFORE, [CONTEXT], AFTER, NEW)
    assert answers[0] != answers[1]


def test_calls_end_at_borders_and_the_text_before_the_context_is_read_once(kind, monkeypatch):
    """A call of several segments takes the time of whole ones, so what is behind the last border goes alone."""
    own, calls, run = runner(kind), [], StreamingRunner._run
    monkeypatch.setattr(
        StreamingRunner, "_run", lambda self, at, ids: calls.append((at.tokens, ids[0])) or run(self, at, ids)
    )
    answers = [own.answer(before, [CONTEXT], AFTER, 3) for before in (BEFORE, BEFORE, "Look. ", BEFORE)]
    assert sum(read == 0 for read, _ in calls) == 3
    assert all(
        (read + len(ids)) % tiny.SEGMENT == 0 or read % tiny.SEGMENT + len(ids) < tiny.SEGMENT for read, ids in calls
    )
    assert any(len(ids) > tiny.SEGMENT for _, ids in calls)
    assert answers == [
        runner(kind).answer(before, [CONTEXT], AFTER, 3) for before in (BEFORE, BEFORE, "Look. ", BEFORE)
    ]


OTHERS = [pytest.param(*case, marks=pytest.mark.slow) for case in (("", "none"), (BEFORE, "reset"), ("", "frozen"))]
TEXTS = ([CONTEXT], [CONTEXT[i : i + 37] for i in range(0, len(CONTEXT), 37)], ["Hi"], [], [tiny.prose(50, seed=3)])


@pytest.mark.parametrize(("before", "policy"), [(BEFORE, "none"), ("", "reset"), (BEFORE, "frozen"), *OTHERS])
def test_texts_read_side_by_side_are_read_as_each_alone(kind, policy, before):
    """Of any lengths, also none at all."""
    own = runner(kind)
    how = {"none": None, "reset": own.reset, "frozen": own.frozen_after(3)}[policy]
    alone = [own.read(before, pieces, how) for pieces in TEXTS]
    together = own.read_all(before, TEXTS, how)
    assert [r.tokens for r in together] == [r.tokens for r in alone]
    assert [r.stream for r in together] == [r.stream for r in alone]
    for one, other in zip(together, alone, strict=True):
        assert (one.state is None) == (other.state is None)
        for a, b in zip(memory_of(one.state), memory_of(other.state), strict=True) if one.state else ():
            torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * b.abs().max().clamp(min=1).item())
        assert own.finish(one, AFTER, 3) == own.finish(other, AFTER, 3)


def test_side_by_side_takes_fewer_calls_and_each_has_few_segments(kind, monkeypatch):
    own, calls, run = runner(kind), [], StreamingRunner._run
    monkeypatch.setattr(StreamingRunner, "_run", lambda self, at, ids: calls.append(ids) or run(self, at, ids))
    for texts in ([[CONTEXT]], [[CONTEXT]] * 8):
        calls.clear()
        own.read_all(BEFORE, texts, None)
        whole = [ids for ids in calls if len(ids) == len(texts) and len(ids[0]) >= tiny.SEGMENT]
        assert whole
        assert all(len(ids) * len(ids[0]) <= SEGMENTS_AT_ONCE * tiny.SEGMENT for ids in whole)


def test_segments_are_counted_without_running_the_model(kind, monkeypatch):
    """As many as reading completes, wherever the text ends."""
    own = runner(kind)
    texts = [CONTEXT[:end] for end in range(40, 300, 7)]
    read = [reading.tokens // tiny.SEGMENT for reading in own.read_all("", [[text] for text in texts])]
    monkeypatch.setattr(own, "model", None)
    assert [own.segments("", [text[:20], text[20:]]) for text in texts] == read
    assert len({*read}) > 2


def test_a_policy_is_asked_once_a_segment_and_one_that_changes_nothing_gives_the_carried_answer(kind):
    own, numbers = runner(kind), []
    reading = own.read(BEFORE, [CONTEXT], lambda before, after, number: numbers.append(number) or after)
    assert numbers == list(range(1, own.segments(BEFORE, [CONTEXT]) + 1))
    assert own.finish(reading, AFTER, NEW) == own.answer(BEFORE, [CONTEXT], AFTER, NEW)


def test_reset_is_a_model_that_has_read_the_open_segment_alone(kind):
    """The answers stay inside one segment here; each later one would start from nothing again."""
    own = runner(kind)
    ids = ids_of(BEFORE + CONTEXT + AFTER)
    end = ids.shape[1] // tiny.SEGMENT * tiny.SEGMENT
    new = tiny.SEGMENT - (ids.shape[1] - end)
    assert 0 < new < tiny.SEGMENT
    alone = generated(kind, ids[:, end:])
    found = own.finish(own.read(BEFORE, [CONTEXT], own.reset), AFTER, new)
    assert len(found) > 0
    assert alone.startswith(found)
    assert found != own.answer(BEFORE, [CONTEXT], AFTER, new)


def test_frozen_keeps_the_memory_of_the_first_half(kind):
    own = runner(kind)
    half = own.segments(BEFORE, [CONTEXT]) // 2
    frozen = own.read(BEFORE, [CONTEXT], own.frozen_after(half))
    first = tiny.memory_model(kind)(ids_of(BEFORE + CONTEXT)[:, : half * tiny.SEGMENT], use_cache=True)
    assert same_memory(frozen.state, first.past_key_values)
    assert not same_memory(frozen.state, own.read(BEFORE, [CONTEXT]).state)
    none = own.read(BEFORE, [CONTEXT], own.frozen_after(0))
    assert same_memory(none.state, with_memory(own.model, none.state, None))


def test_frozen_after_the_last_segment_changes_nothing_before_the_question(kind):
    own = runner(kind)
    all_of_it = own.read(BEFORE, [CONTEXT], own.frozen_after(10_000))
    assert own.finish(all_of_it, AFTER, NEW) == own.answer(BEFORE, [CONTEXT], AFTER, NEW)


def test_exchanged_takes_the_others_memory_and_keeps_its_own_open_segment(kind):
    own = runner(kind)
    mine, other = own.read(BEFORE, [CONTEXT]), own.read(BEFORE, [tiny.prose(30, seed=9)])
    swapped = own.exchange(mine, other)
    assert same_memory(swapped.state, other.state)
    assert not same_memory(swapped.state, mine.state)
    assert own.finish(swapped, AFTER, NEW) != own.finish(mine, AFTER, NEW)
    assert own.finish(own.exchange(mine, mine), AFTER, NEW) == own.finish(mine, AFTER, NEW)
    assert own.finish(own.exchange(swapped, mine), AFTER, NEW) == own.finish(mine, AFTER, NEW)


def test_a_text_shorter_than_a_segment_has_the_start_memory(kind):
    own = runner(kind)
    short = own.read("", ["Hi there, Mary."])
    assert same_memory(short.state, with_memory(own.model, short.state, None))
    assert own.finish(short, AFTER, NEW) == own.answer("", ["Hi there, Mary."], AFTER, NEW)


def test_a_reading_does_not_grow_with_the_text(kind):
    own = runner(kind)
    short, long = (own.read(BEFORE, [CONTEXT] * times) for times in (1, 4))
    assert long.tokens > 3 * short.tokens
    assert long.state.nbytes == short.state.nbytes
    assert len(long.stream.text) < 2 * ANCHOR
