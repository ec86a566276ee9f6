"""Data sets of the hub, read from a local folder that is laid out like one; the network is never asked."""

import json

import pytest

from lm2.data.corpora import CORPORA, SMOLLM_CORPUS, smollm_corpus
from lm2.data.hub import HubSource
from lm2.data.order import shares
from lm2.data.packed import PackedRows
from lm2.data.prepare import prepare
from lm2.training import BatchRequest, Stage
from tests.data.texts import generated

datasets = pytest.importorskip("datasets")

CARD = """---
configs:
- config_name: cosmopedia-v2
  data_files:
  - split: train
    path: cosmopedia-v2/*.jsonl
- config_name: fineweb-edu-dedup
  data_files:
  - split: train
    path: fineweb-edu-dedup/*.jsonl
---
"""


def texts(config: str, file: int) -> list[str]:
    return [" ".join(generated(1 + n % 5, seed=100 * file + n + len(config))) for n in range(12)]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A data set with the two subsets of the recipe, three files each."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "cache")
    root = tmp_path / "corpus"
    for config in ("cosmopedia-v2", "fineweb-edu-dedup"):
        (root / config).mkdir(parents=True)
        for file in range(3):
            rows = ({"text": text, "id": n} for n, text in enumerate(texts(config, file)))
            (root / config / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "README.md").write_text(CARD)
    return root


def test_the_recipe_is_the_papers_corpus_without_python():
    assert CORPORA["smollm-corpus"] is smollm_corpus
    found = [(source.place, source.weight) for source in smollm_corpus()]
    assert found == [
        (f"hub:{SMOLLM_CORPUS}/cosmopedia-v2/train", 28),
        (f"hub:{SMOLLM_CORPUS}/fineweb-edu-dedup/train", 220),
    ]


def test_the_recipe_on_a_local_copy_becomes_a_store_mixed_in_the_papers_proportions(
    repository, tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr("lm2.data.corpora.SMOLLM_CORPUS", str(repository))
    store = prepare(smollm_corpus(), tokenizer, tmp_path / "out", processes=1, shard_tokens=150)
    for name in ("cosmopedia-v2", "fineweb-edu-dedup"):
        expected = [text for file in range(3) for text in texts(name, file)]
        assert [tokenizer.decode(ids[1:-1]) for ids in store.documents(name)] == expected
        assert len({shard.name[:9] for shard in store.shards[name]}) == 3
    stages = (Stage(steps=10, segments=(2,), rows=4),)
    rows = PackedRows(folder=store.folder, stages=stages, segment_length=8)
    assert rows.order.counts == shares(["c", "f"], [28, 220]) == [113, 887]
    assert rows(BatchRequest(0, 3, range(4), 2))["input_ids"].shape == (4, 16)


def test_a_stopped_run_goes_on_at_the_commit_that_it_began_with(repository, tmp_path, tokenizer, monkeypatch):
    """The hub has moved on, and has a name instead of a folder; both are stood in for."""
    asked, load = [], datasets.load_dataset
    monkeypatch.setattr(HubSource, "_newest", lambda source: "first" if not asked else "second")

    def stub(name, *args, revision, **kwargs):
        asked.append(revision)
        return load(str(repository), *args, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", stub)
    source = HubSource("x", "me/corpus", "cosmopedia-v2")
    store = prepare([source], tokenizer, tmp_path / "out", processes=1)
    (tmp_path / "out" / "store.json").unlink()
    again = prepare([source], tokenizer, tmp_path / "out", processes=1)
    assert set(asked) == {"first"}
    assert again.facts["sources"][0]["revision"] == "first"
    assert again.fingerprint == store.fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"config": "python-edu"}, r"hub:.*/python-edu/train could not be opened \(.*python-edu"),
        ({"split": "test"}, r"hub:.*/cosmopedia-v2/test could not be opened \(.*test"),
        ({"column": "content"}, r"has no column 'content', it has \['id', 'text'\]"),
        ({"column": "id"}, r"part 1 of 3\), row 1: column 'id' holds int, not text"),
    ],
)
def test_what_the_data_set_lacks_is_named(repository, tmp_path, tokenizer, fields, message):
    source = HubSource(**{"name": "x", "repository": str(repository), "config": "cosmopedia-v2", **fields})
    with pytest.raises(ValueError, match=message):
        prepare([source], tokenizer, tmp_path / "out", processes=1)


def test_a_network_that_fails_says_how_to_go_on(repository, tmp_path, tokenizer, monkeypatch):
    class Broken:
        num_shards, column_names = 1, None
        info = datasets.DatasetInfo()

        def shard(self, num_shards, index):
            yield {"text": "a text"}
            raise ConnectionError("no route to host")

    monkeypatch.setattr(HubSource, "stream", lambda source: Broken())
    with pytest.raises(ValueError, match=r"part 1 of 1\) stopped \(no route to host\): give the same command again"):
        prepare([HubSource("x", str(repository))], tokenizer, tmp_path / "out", processes=1)


def test_a_hub_that_cannot_be_reached_says_so(tmp_path, tokenizer, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    with pytest.raises(ValueError, match=r"hub:me/corpus/default/train could not be opened \(offline\)"):
        prepare([HubSource("x", "me/corpus")], tokenizer, tmp_path / "out", processes=1)
