"""Batches: a function of the request alone, the same rows however they are split, each row once a pass."""

import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lm2.data.packed import PackedRows, held_out_rows
from lm2.training import BatchRequest, RunConfig, Stage
from tests.data.stores import documents_of, make_store

T = 4
STAGES = (Stage(steps=3, segments=(1,), rows=4), Stage(steps=50, segments=(1, 2, 4), rows=8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    lengths = {"a": rng.integers(2, 30, 40), "b": rng.integers(2, 9, 30)}
    sources = {name: documents_of(list(sizes), seed) for seed, (name, sizes) in enumerate(lengths.items())}
    return make_store(tmp_path_factory.mktemp("data") / "s", sources, shard_tokens=200).folder


def rows_of(folder, **fields) -> PackedRows:
    return PackedRows(**{"folder": folder, "stages": STAGES, "segment_length": T, **fields})


def request(step=0, rows=range(4), segments=1, seed=0) -> BatchRequest:
    return BatchRequest(seed, step, rows, segments)


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("input_ids", "labels", "position_ids"))


def test_a_batch_has_the_shape_and_type_that_the_model_takes(folder):
    batch = rows_of(folder)(request(rows=range(5), segments=3))
    assert {name: tuple(part.shape) for name, part in batch.items()} == dict.fromkeys(batch, (5, 3 * T))
    assert {part.dtype for part in batch.values()} == {torch.int64}


def test_rows_are_the_same_however_they_are_split_and_in_any_order(folder):
    rows = rows_of(folder)
    whole = rows(request(7, range(8), 2))
    again = rows_of(folder)
    parts = [again(request(7, range(at, at + 2), 2)) for at in (6, 0, 4, 2)]
    for name, expected in whole.items():
        assert torch.equal(torch.cat([parts[i][name] for i in (1, 3, 2, 0)]), expected)


def test_seed_step_and_segments_each_change_the_rows(folder):
    rows = rows_of(folder)
    first = rows(request(5, range(8), 2))
    assert same(first, rows(request(5, range(8), 2)))
    for other in (request(6, range(8), 2), request(5, range(8), 2, seed=1)):
        assert not same(first, rows(other))


def test_the_seed_orders_the_sources_and_the_rows_of_each(folder):
    def order(rows: PackedRows, seed: int) -> list[tuple[str, int]]:
        asked = BatchRequest(seed, 0, range(30), 1)
        return [(windows.source, index) for windows, index in rows.order.places(asked)]

    one, both = rows_of(folder, weights={"a": 1}), rows_of(folder)
    assert order(one, 0) == order(one, 0) != order(one, 1)
    sources = [[source for source, _ in order(both, seed)] for seed in (0, 0, 1)]
    assert sources[0] == sources[1] != sources[2]


def taken(rows: PackedRows, steps: range, n_rows: int, segments: int) -> Counter:
    places = Counter()
    for step in steps:
        for windows, index in rows.order.places(request(step, range(n_rows), segments)):
            places[windows.source, index] += 1
    return places


@pytest.mark.parametrize("segments", [1, 3])
def test_one_source_shows_each_row_once_before_any_a_second_time(folder, segments):
    rows = rows_of(folder, weights={"a": 1}, stages=(Stage(steps=500, rows=1),))
    n = rows.order.windows[0].rows(segments)
    for turn in range(3):
        assert taken(rows, range(turn * n, turn * n + n), 1, segments) == {("a", i): 1 for i in range(n)}
    orders = [
        [rows.order.places(request(step, range(1), segments))[0][1] for step in range(turn * n, turn * n + n)]
        for turn in range(2)
    ]
    assert orders[0] != orders[1]


def test_sources_have_their_weights_exactly_in_a_block(folder):
    rows = rows_of(folder, weights={"b": 1, "a": 3}, stages=(Stage(steps=20, rows=100),))
    counts = Counter()
    for (source, _), n in taken(rows, range(10), 100, 2).items():
        counts[source] += n
    assert counts == {"a": 750, "b": 250}
    assert rows.passes(10, 2)["b"] == pytest.approx(250 / rows.order.windows[1].rows(2))


def test_rows_before_a_step_are_counted_over_the_stages(folder):
    order = rows_of(folder).order
    assert [order.rows_before(step) for step in (0, 1, 3, 4, 53, 54)] == [0, 4, 12, 20, 412, 420]


def test_weights_of_the_store_are_used_unless_others_are_given(tmp_path):
    sources = {"a": documents_of([9] * 5), "b": documents_of([9] * 15)}
    weighted = make_store(tmp_path / "w", sources, weights={"a": 28, "b": 220}).folder
    plain = make_store(tmp_path / "p", sources).folder
    assert rows_of(weighted).order.counts == [113, 887]
    assert rows_of(weighted, weights={"a": 1, "b": 1}).order.counts == [500, 500]
    assert rows_of(plain).order.counts == [250, 750]
    assert rows_of(plain, weights={"b": 2}).order.counts == [1000]


def test_the_pad_share_of_a_batch_is_that_of_its_columns(folder):
    rows = rows_of(folder)
    asked = request(9, range(8), 4)
    tokens = sum(windows.n_tokens(index, 4) for windows, index in rows.order.places(asked))
    assert rows.pad_share(asked) == pytest.approx(1 - tokens / (8 * 4 * T))
    assert 0 < rows.pad_share(asked) < 0.6
    assert (rows(asked)["labels"] != -100).sum() < tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": {"c": 1, "a": 1}}, r"weights names c, and .* has a, b"),
        ({"weights": {}}, r"weights names no source, and .* has a, b"),
        ({"weights": {"a": 0, "b": 1}}, r"weight of a is 0\.0"),
        ({"segment_length": 1}, r"at least 2, got 1"),
    ],
)
def test_what_cannot_be_is_refused(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        rows_of(folder, **fields)


def test_a_run_records_the_data_and_not_where_it_lies(folder, tmp_path):
    rows = rows_of(folder)
    run = RunConfig(model=object, make_batch=rows, stages=STAGES, output_dir=tmp_path, warmup_steps=0)
    described = json.loads(json.dumps(run.describe()))["make_batch"]
    assert described["data"] == rows.data
    assert described["segment_length"] == T
    assert set(described["weights"]) == {"a", "b"}
    assert str(folder) not in json.dumps(described)
    assert replace(run, seed=1).describe()["make_batch"] == run.describe()["make_batch"]


def test_another_process_makes_the_same_batches(folder):
    rows = rows_of(folder)
    asked = [request(step, range(4), 2) for step in range(4)]
    loader = DataLoader(asked, batch_size=None, collate_fn=rows, num_workers=1)
    for one, other in zip(loader, map(rows, asked), strict=True):
        assert same(one, other)
    assert same(pickle.loads(pickle.dumps(rows))(asked[0]), rows(asked[0]))


def test_held_out_rows_are_whole_pieces_of_one_document(tmp_path):
    store = make_store(tmp_path / "s", {"a": documents_of([3, 40, 5, 33, 2, 21], 0)})
    held_out = held_out_rows(store.folder, T, 4, 3)
    assert held_out["input_ids"].shape == held_out["labels"].shape == (3, 4 * T)
    texts = [list(map(int, text)) for text in store.documents("a")]
    for ids, labels in zip(held_out["input_ids"].tolist(), held_out["labels"].tolist(), strict=True):
        assert any(ids == text[i : i + 4 * T] for text in texts for i in range(len(text)))
        assert labels[1:] == ids[1:]
    with pytest.raises(ValueError, match="0 documents that fill a row of 32 segments of 4"):
        held_out_rows(store.folder, T, 32, 3)


def test_held_out_rows_are_spread_over_the_store(tmp_path):
    documents = documents_of([4 * T] * 60)
    found = held_out_rows(make_store(tmp_path / "s", {"a": documents}).folder, T, 4, 6)["input_ids"].tolist()
    places = [[list(map(int, document)) for document in documents].index(ids) for ids in found]
    assert len(set(places)) == 6
    assert min(places) < 30 <= max(places)


def test_held_out_rows_have_no_pads(tmp_path):
    """A document that does not fill a row is none."""
    store = make_store(tmp_path / "s", {"a": documents_of([14, 14, 14, 16])})
    assert held_out_rows(store.folder, T, 4, 9)["input_ids"].shape == (1, 4 * T)
