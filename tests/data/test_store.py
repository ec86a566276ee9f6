"""The token store: what is written reads back, and what is damaged, foreign or unfinished is named."""

import errno
import json
import pickle

import numpy as np
import pytest

from lm2.data.encoding import DocumentEncoder
from lm2.data.store import SCHEMA, Store, write_shard
from tests.data.stores import documents_of, make_store


@pytest.fixture
def documents():
    return documents_of([5, 2, 40, 7, 11])


@pytest.fixture
def store(tmp_path, documents):
    return make_store(tmp_path / "s", {"a": documents, "b": documents[:2]}, shard_tokens=45)


def test_documents_read_back(store, documents):
    assert [len(shards) for shards in store.shards.values()] == [2, 1]
    assert [ids.tolist() for ids in store.documents("a")] == [ids.tolist() for ids in documents]
    assert (store.n_documents, store.n_tokens) == (7, 72)
    assert store.sources == ("a", "b")


def test_a_copy_for_another_process_maps_the_files_itself(store, documents):
    sent = pickle.dumps(store)
    assert len(sent) < 200
    assert next(pickle.loads(sent).documents("a")).tolist() == documents[0].tolist()


def test_the_fingerprint_is_that_of_the_data_and_not_of_the_folder(store, documents, tmp_path):
    same = make_store(tmp_path / "t", {"a": documents, "b": documents[:2]}, shard_tokens=45)
    other = make_store(tmp_path / "u", {"a": documents, "b": documents[:1]}, shard_tokens=45)
    assert store.fingerprint == same.fingerprint != other.fingerprint


def test_a_shard_cut_short_is_named_with_both_sizes(store):
    path = store.folder / "shards" / "00-000000-0001.tokens"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        ValueError, match=rf"00-000000-0001.tokens has {size - 3} bytes and must have {size}: it is cut"
    ):
        Store(store.folder)


def test_a_missing_index_is_named(store):
    (store.folder / "shards" / "01-000000-0000.index").unlink()
    with pytest.raises(ValueError, match=r"01-000000-0000.index has 0 bytes and must have 24"):
        Store(store.folder)


def test_a_changed_byte_is_found_by_verify(store):
    assert len(list(store.verify())) == 3
    path = store.folder / "shards" / "00-000000-0001.tokens"
    data = bytearray(path.read_bytes())
    data[4] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"00-000000-0001.tokens is corrupt"):
        list(Store(store.folder).verify())


def test_another_schema_version_is_refused(store):
    path = store.folder / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1}))
    with pytest.raises(ValueError, match=rf"schema version {SCHEMA + 1} and this version of lm2 reads {SCHEMA}"):
        Store(store.folder)


@pytest.mark.parametrize(("text", "what"), [("{", "is damaged"), ("[1]", "no JSON object")])
def test_a_damaged_store_file_is_named(store, text, what):
    (store.folder / "store.json").write_text(text)
    with pytest.raises(ValueError, match=rf"store.json is damaged.*|{what}"):
        Store(store.folder)


def test_a_folder_without_a_store_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"holds no token store: make one with `lm2 data prepare"):
        Store(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="holds an unfinished token store"):
        Store(tmp_path)


def test_another_tokenizer_is_refused(store, tokenizer):
    with pytest.raises(
        ValueError, match=rf"tokenizer tiny \(61 ids, fingerprint f{{12}}\), not .*\({len(tokenizer)} ids"
    ):
        store.check_tokenizer(tokenizer)


@pytest.mark.parametrize(("dtype", "largest"), [("<u2", 65_535), ("<u4", 200_000)])
def test_ids_up_to_the_largest_are_kept(tmp_path, dtype, largest):
    write_shard(tmp_path / "x", iter([np.array([0, largest])]), dtype, 100)
    assert np.fromfile(tmp_path / "x.tokens", dtype).tolist() == [0, largest]


def test_a_shard_ends_where_its_limit_is_reached(tmp_path):
    shard = write_shard(tmp_path / "x", iter(documents_of([5, 5, 5])), "<u2", 10)
    assert (shard.documents, shard.tokens, shard.last) == (2, 10, False)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_the_number_type_holds_the_vocabulary(vocabulary, dtype):
    assert DocumentEncoder("", (), (), vocabulary, "", "").dtype == dtype


def test_a_full_disk_leaves_no_partial_file_and_names_it(tmp_path):
    def documents():
        yield np.arange(10)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_shard(tmp_path / "x", documents(), "<u2", 100)
    assert caught.value.filename == str(tmp_path / "x.tokens")
    assert list(tmp_path.iterdir()) == []


def test_the_same_ids_of_another_tokenizer_are_other_data(store):
    own, path = store.fingerprint, store.folder / "store.json"
    facts = json.loads(path.read_text())
    facts["tokenizer"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(facts))
    assert Store(store.folder).fingerprint != own
