"""Packing: windows cover every token once, rows lie as the rule says, and the model sees documents as if alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.packing import IGNORED, Windows, lay_out, window_starts
from tests.contract.cases import assert_same, tiny_model
from tests.data.stores import documents_of, make_store

LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=25)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


@settings(deadline=None)
@given(lengths=LENGTHS, T=st.integers(2, 12))
def test_windows_follow_the_rule(lengths, T):
    offsets = offsets_of(lengths)
    starts = window_starts(offsets, T).tolist()
    assert starts[0] == 0
    assert starts[-1] == offsets[-1]
    for start, end in pairwise(starts):
        assert 0 < end - start <= T
        document = np.searchsorted(offsets, start, "right") - 1
        if lengths[document] > T:  # a window of a long document: its k-th T tokens, and nothing of another
            assert (start - offsets[document]) % T == 0
            assert end == min(start + T, offsets[document + 1])
        else:  # whole documents, and the next one would not have fitted
            assert start in offsets
            assert end in offsets
            after = np.searchsorted(offsets, end)
            if after < len(lengths):
                assert end - start + lengths[after] > T


def test_an_example_by_hand():
    # T = 4: [0 0 1 .] [2 2 2 2] [2 2 . .] [3 3 3 3] [4 4 . .]
    starts = window_starts(offsets_of([2, 1, 6, 4, 2]), 4)
    assert starts.tolist() == [0, 3, 7, 9, 13, 15]
    tokens = np.array([10, 11, 20, 30, 31, 32, 33, 34, 35])
    row = lay_out(tokens, starts[:4], np.array([2, 3]), 16, 4, pad_id=7)
    no = IGNORED
    assert row.input_ids.tolist() == [10, 11, 20, 7, 30, 31, 32, 33, 34, 35, 7, 7, 7, 7, 7, 7]
    assert row.labels.tolist() == [no, 11, no, no, no, 31, 32, 33, 34, 35, no, no, no, no, no, no]
    assert row.position_ids.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, T=st.integers(2, 9), S=st.integers(1, 5), shard=st.integers(5, 400))
def test_rows_of_one_pass_hold_every_token_once(tmp_path_factory, lengths, T, S, shard):
    documents = documents_of(lengths)
    store = make_store(tmp_path_factory.mktemp("store") / "s", {"a": documents}, shard)
    windows = Windows(store, "a", T)
    found, labelled, tokens = [], 0, 0
    for index in range(windows.rows(S)):
        row = windows.row(index, S)
        assert all(part.shape == (S * T,) and part.dtype == np.int64 for part in row)
        n = windows.n_tokens(index, S)
        labelled += (row.labels != IGNORED).sum()
        tokens += n
        kept = row.labels != IGNORED
        assert (row.labels[kept] == row.input_ids[kept]).all()
        assert (row.position_ids[kept] > 0).all()
        found.append(row)
    assert tokens == sum(lengths) == store.n_tokens
    assert windows.pad_share == pytest.approx(1 - tokens / (len(windows) * T))
    # the first token of each document, and of each piece that a row's end cuts off, has no label
    assert sum(lengths) - labelled == sum((row.position_ids == 0).sum() for row in found) - _pad_documents(found, T)


def _pad_documents(rows, T):
    """Windows of pads alone that begin a document of their own: at most one in a row, at its end."""
    return sum(
        any(
            row.position_ids[at] == 0 and (row.labels[at:] == IGNORED).all() and (row.input_ids[at:] == 1).all()
            for at in range(T, len(row.labels), T)
        )
        for row in rows
    )


def test_rows_do_not_depend_on_how_the_store_is_cut_into_shards_when_they_fit(tmp_path):
    documents = documents_of([8, 8, 8, 8])
    one = Windows(make_store(tmp_path / "one", {"a": documents}), "a", 4)
    four = Windows(make_store(tmp_path / "four", {"a": documents}, 8), "a", 4)
    assert len(four.shards) == 4
    for index in range(4):
        for left, right in zip(one.row(index, 2), four.row(index, 2), strict=True):
            assert (left == right).all()


def test_the_starts_are_kept_beside_the_store_and_a_store_that_cannot_be_written_to_works_too(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s", {"a": documents_of([9, 3, 3])})
    first = Windows(store, "a", 4).row(0, 3)
    assert [path.name for path in (tmp_path / "s" / "windows-4").iterdir()] == ["00-000000-0000.starts"]

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lm2.data.packing.replacing", refuse)
    other = Windows(store, "a", 5)
    assert len(other) == 4
    assert list((tmp_path / "s" / "windows-5").iterdir()) == []
    assert (Windows(store, "a", 4).row(0, 3).input_ids == first.input_ids).all()


@pytest.mark.parametrize("case", ["fewer slots than tokens", "look-back"])
def test_the_model_sees_each_document_as_if_it_were_alone(tmp_path, case):
    """Logits of each document, and the gradient of the whole row, equal those of the documents alone."""
    model = tiny_model(case, bptt_segments=2)
    T = model.config.segment_length
    documents = documents_of([3, 2, 4 * T + 2, T, 3, 2 * T])
    row = Windows(make_store(tmp_path / "s", {"a": documents}), "a", T).row(0, 12)
    batch = {name: torch.from_numpy(part)[None] for name, part in row._asdict().items()}
    logits = model(batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
    ends = np.flatnonzero(row.position_ids == 0)
    alone = [torch.from_numpy(document)[None] for document in documents]
    for start, ids in zip(ends, alone, strict=False):
        assert (batch["input_ids"][0, start : start + ids.shape[1]] == ids[0]).all()
        assert_same(logits[start : start + ids.shape[1]], model(ids).logits[0])
    count = int((batch["labels"] != IGNORED).sum())
    assert count == sum(len(document) - 1 for document in documents)
    together = _gradients(model, [model(**batch, num_items_in_batch=count).loss])
    apart = _gradients(model, [model(ids, labels=ids, num_items_in_batch=count).loss for ids in alone])
    for name, expected in apart.items():
        assert (together[name] - expected).abs().max() <= 1e-3 * (expected.abs().max() + 1e-3), name


def _gradients(model, losses):
    sum(losses).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found
