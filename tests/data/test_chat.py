"""Conversations as rows: only the assistant's words are labelled, and none is cut."""

import copy
import json
from itertools import pairwise

import numpy as np
import pytest

from lm2.data.chat import ChatRows, conversations, encode
from lm2.data.packing import IGNORED
from lm2.training import BatchRequest
from tests.recipes.conftest import chats, tokenizer  # noqa: F401


@pytest.fixture
def rows(chats, tokenizer):  # noqa: F811
    return ChatRows(path=chats, tokenizer=tokenizer, segment_length=16, segments=3, rows_per_step=2)


def test_labels_are_what_the_assistant_says(chats, tokenizer):  # noqa: F811
    said = []
    for where, messages in conversations(chats):
        ids, labels = encode(messages, tokenizer, where)
        assert len(ids) == len(labels)
        assert (labels[labels != IGNORED] == ids[labels != IGNORED]).all()
        said.append(tokenizer.decode(labels[labels != IGNORED]))
    assert said == ["office <e>", "garden . <e> kitchen <e>", "is <e>"]


def test_every_conversation_is_in_every_pass_whole(rows, chats, tokenizer):  # noqa: F811
    whole = [tokenizer.decode(encode(messages, tokenizer, where)[0]) for where, messages in conversations(chats)]
    assert len(rows) == 2
    for step in range(3):
        batch = rows(BatchRequest(0, step, range(2), 3))
        assert batch["input_ids"].shape == (2, 48)
        found = []
        for ids, positions in zip(batch["input_ids"], batch["position_ids"], strict=True):
            borders = [*np.flatnonzero(positions == 0).tolist(), 48]
            found += [tokenizer.decode(ids[a:b]) for a, b in pairwise(borders)]
        assert all(any(text.startswith(one) for text in found) for one in whole)


def test_steps_of_one_row_go_on_where_the_step_before_ended_and_passes_have_orders_of_their_own(chats, tokenizer):  # noqa: F811
    settings = {"path": chats, "tokenizer": tokenizer, "segment_length": 16, "segments": 3}
    one, two = (ChatRows(**settings, rows_per_step=n) for n in (1, 2))
    passes = [two(BatchRequest(0, step, range(2), 3))["input_ids"].tolist() for step in range(12)]
    steps = [one(BatchRequest(0, step, range(1), 3))["input_ids"].tolist() for step in range(24)]
    assert [row for batch in steps for row in batch] == [row for batch in passes for row in batch]
    assert all(first != second for first, second in passes)
    assert len({str(rows) for rows in passes}) == 2


def test_labels_lie_on_their_tokens(rows):
    batch = rows(BatchRequest(0, 0, range(2), 3))
    labelled = batch["labels"] != IGNORED
    assert labelled.sum() == 2 + 5 + 2
    assert (batch["labels"][labelled] == batch["input_ids"][labelled]).all()


def test_a_conversation_that_the_format_refuses_is_named(chats, tokenizer):  # noqa: F811
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"chat\.jsonl:1: the chat format refuses .*roles must alternate"):
        ChatRows(path=chats, tokenizer=strict, segment_length=16, segments=3, rows_per_step=2)


def test_a_conversation_as_long_as_a_row_is_kept(chats, tokenizer):  # noqa: F811
    longest = max(len(encode(messages, tokenizer, where)[0]) for where, messages in conversations(chats))
    settings = {"path": chats, "tokenizer": tokenizer, "segments": 1, "rows_per_step": 1}
    assert ChatRows(**settings, segment_length=longest).left_out == 0
    assert ChatRows(**settings, segment_length=longest - 1).left_out == 1


def test_a_longer_conversation_than_a_row_is_left_out(chats, tokenizer):  # noqa: F811
    rows = ChatRows(path=chats, tokenizer=tokenizer, segment_length=16, segments=2, rows_per_step=2)
    assert rows.left_out == 1
    with pytest.raises(ValueError, match=r"shortest of 3 conversations has 8 tokens, .* 1 segments has 4:"):
        ChatRows(path=chats, tokenizer=tokenizer, segment_length=4, segments=1, rows_per_step=2)


HELLO = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


def test_a_document_goes_before_what_is_said_first(tmp_path):
    path = tmp_path / "chat.jsonl"
    rows = [{"messages": HELLO}, {"messages": HELLO, "document": None}, {"messages": HELLO, "document": "long"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")  # a byte-order mark is no text
    assert [messages[0]["content"] for _, messages in conversations(path)] == ["x", "x", "long\n\nx"]


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_bytes(json.dumps({"messages": HELLO}).encode() + b"\n\xff")
    with pytest.raises(ValueError, match=r"chat\.jsonl is damaged or cut short .* 0xff in position"):
        list(conversations(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps({"messages": HELLO, "document": 5}), r"chat.jsonl:1: `document` holds int, not text"),
        (
            json.dumps({"messages": HELLO, "document": "\ud83d"}),
            r"chat.jsonl:1: \\ud83d is half of a character: repair",
        ),
        (json.dumps({"messages": [*HELLO, {"role": "user", "content": "\ud83d"}]}), r"chat.jsonl:1: \\ud83d is half"),
        ("no json", r"chat.jsonl:1: expected a JSON object whose `messages`"),
        (json.dumps({"messages": [{"role": "user"}]}), r"chat.jsonl:1: expected"),
        (json.dumps({"messages": [{"role": "user", "content": "x"}]}), r"chat.jsonl:1 has 1 messages and 0 of the"),
        ("", "holds 0 conversations"),
    ],
)
def test_what_is_no_conversation_is_named(tmp_path, line, message):
    path = tmp_path / "chat.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        list(conversations(path))
