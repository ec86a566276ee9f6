"""Saving and loading an `LM2Cache`, and what is refused."""

import errno

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lm2 import LM2Cache
from lm2.cache import fingerprint
from tests.contract.cases import random_ids, tiny_config, tiny_model


@pytest.fixture(params=[0, 4], ids=["", "look-back"])
def model(request):
    return tiny_model("memory in one block", look_back=request.param)


@pytest.fixture
def cache(model):
    with torch.no_grad():
        return model(random_ids(2, 10), use_cache=True).past_key_values


def test_round_trip(model, cache, tmp_path):
    cache.save(tmp_path / "c", model)
    again = LM2Cache.load(tmp_path / "c", model)
    assert (again.seen, again.rows, len(again)) == (10, 2, 2)
    assert torch.equal(again.count_R, cache.count_R)
    for one, other in zip(cache.states, again.states, strict=True):
        for left, right in zip(one, other, strict=True):
            assert (left is None) == (right is None)
            assert left is None or torch.equal(left, right)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_an_empty_cache_round_trips(model, tmp_path):
    LM2Cache(model.config).save(tmp_path / "c", model)
    again = LM2Cache.load(tmp_path / "c", model)
    assert (again.rows, again.seen, again.states) == (0, 0, [])


def test_the_fingerprint_sees_weights_and_configuration_but_not_training_options():
    model = tiny_model("memory in one block")
    own = fingerprint(model)
    assert own == fingerprint(tiny_model("memory in one block", bptt_segments=4))
    model.config.pad_token_id = 3  # a line of most scripts
    assert own == fingerprint(model)
    for fields in ({"memory_topk": 2}, {"look_back": 1}):
        assert own != fingerprint(tiny_model("memory in one block", **fields))
    for name, parameter in model.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.flatten()[-1] += 1e-3
        assert own != fingerprint(model), name
        parameter.data = kept
    assert own == fingerprint(model)


def test_a_compiled_model_is_the_same_model():
    model = tiny_model("memory in one block")
    own = fingerprint(model)
    assert own == fingerprint(torch.compile(model, backend="eager"))  # ty: ignore[invalid-argument-type]
    model.model = torch.compile(model.model, backend="eager")  # ty: ignore[invalid-assignment]
    assert own == fingerprint(model)


@torch.no_grad()
def test_what_decoding_reads_of_a_bank_is_computed_once_a_segment(model):
    """And goes with the rows."""
    memory = next(layer.memory for layer in model.model.layers if layer.memory is not None)
    passes, length = [], model.config.segment_length
    memory.v_proj.register_forward_hook(lambda *_: passes.append(1))
    ids = random_ids(2, 3 * length)
    cache = model(ids[:, :length], use_cache=True).past_key_values
    passes.clear()
    for column in range(length, 3 * length):
        model(ids[:, column : column + 1], past_key_values=cache)
        cache = cache.select([1, 0]).select([1, 0])
    assert len(passes) == 2 * 2  # a segment's first token is read as a piece of its own, the second is a step
    whole = model(ids, use_cache=True).past_key_values
    for one, other in zip(cache.states, whole.states, strict=True):
        assert one.bank is None or torch.allclose(one.bank, other.bank, atol=1e-5)


@torch.no_grad()
def decoding(model):
    """Two rows, and their cache after a segment and a step, which knows what follows from the bank."""
    ids, length = random_ids(2, 20), model.config.segment_length
    cache = model(ids[:, : length + 2], use_cache=True).past_key_values
    model(ids[:, -1:], past_key_values=cache)
    assert any(state.contents for state in cache.states)
    return ids, cache


@torch.no_grad()
def test_another_bank_is_read_at_once(model):
    ids, cache = decoding(model)
    changed, known = cache.copy(), cache.copy()
    changed.reset([0])
    banks = [state.bank for state in changed.states]
    changed.states = [state.with_bank(bank) for state, bank in zip(known.states, banks, strict=True)]
    changed.tokens_R = known.tokens_R
    assert not any(state.contents for state in changed.states)
    with_other, with_own = (model(ids[:, -1:], past_key_values=c.copy()).logits for c in (changed, known))
    assert not torch.equal(with_other[0], with_own[0])
    assert torch.equal(with_other[1], with_own[1])


@torch.no_grad()
def test_a_row_that_is_reset_while_others_are_decoded_reads_the_bank_that_it_begins_with(model):
    ids, cache = decoding(model)
    cache.reset([0])
    found = model(ids[:, :1], past_key_values=cache).logits[0]
    assert torch.allclose(found, model(ids[:1, :1]).logits[0], atol=1e-5)


@torch.no_grad()
def test_what_follows_from_a_bank_is_not_saved_with_it(model, tmp_path):
    ids, cache = decoding(model)
    cache.save(tmp_path / "c", model)
    with safe_open(tmp_path / "c", framework="pt") as file:
        assert not [name for name in file.keys() if "bank_" in name]  # noqa: SIM118
    again = LM2Cache.load(tmp_path / "c", model)
    one, other = (model(ids[:, 1:2], past_key_values=known).logits for known in (cache, again))
    assert torch.allclose(one, other, atol=1e-5)


def test_with_gradients_nothing_that_weights_have_made_is_kept(model):
    cache = model(random_ids(1, 8), use_cache=True).past_key_values
    model(random_ids(1, 1), past_key_values=cache)
    assert not any(state.contents for state in cache.states)


def test_another_models_file_is_refused(model, cache, tmp_path):
    cache.save(tmp_path / "c", model)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    own = fingerprint(model)[:12]
    with pytest.raises(
        ValueError, match=rf"belongs to another model \(fingerprint [0-9a-f]{{12}}, this model's is {own}"
    ):
        LM2Cache.load(tmp_path / "c", model)


def rewrite(path, **header):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {**file.metadata(), **header}
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("schema", ["1", "3"])
def test_another_schema_is_refused(model, cache, tmp_path, schema):
    cache.save(tmp_path / "c", model)
    rewrite(tmp_path / "c", schema=schema)
    with pytest.raises(ValueError, match=rf"cache schema {schema} and this version reads 2: read the text again"):
        LM2Cache.load(tmp_path / "c", model)


def test_a_file_of_something_else_is_refused(model, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "c", {"format": "pt"})
    with pytest.raises(ValueError, match=r"is not an LM2 cache file .its format is pt."):
        LM2Cache.load(tmp_path / "c", model)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_file_is_refused(model, cache, tmp_path, damage):
    path = tmp_path / "c"
    cache.save(path, model)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"\xff" * 99, "empty": b""}[damage])
    with pytest.raises(ValueError, match="c is damaged or not a cache file"):
        LM2Cache.load(path, model)


def test_a_file_that_is_not_a_whole_state_is_refused(model, cache, tmp_path):
    path = tmp_path / "c"
    cache.save(path, model)
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    first = {name: tensor[:1].clone() for name, tensor in tensors.items()}
    others = [
        {**tensors, "foo": torch.ones(1)},
        {**tensors, "tokens": torch.ones(2)},
        {**tensors, "0.bank": torch.ones(2, 3, 4)},
    ]
    for name in tensors:
        others += [{**tensors, name: first[name]}, {key: tensors[key] for key in tensors if key != name}]
    for other in others:
        save_file(other, path, header)
        with pytest.raises(ValueError, match="c does not hold the whole state of this model: save the cache again"):
            LM2Cache.load(path, model)
    for name in ("schema", "seen", "fingerprint"):
        save_file(tensors, path, {key: header[key] for key in header if key != name})
        with pytest.raises(
            ValueError, match=r"c (has cache schema None|does not say how much|belongs to another model)"
        ):
            LM2Cache.load(path, model)


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no cache file .*nothing: check the path"):
        LM2Cache.load(tmp_path / "nothing", model)


def test_a_full_disk_leaves_the_old_file_and_no_part(model, cache, tmp_path, monkeypatch):
    path = tmp_path / "c"
    cache.save(path, model)
    before = path.read_bytes()

    def full(tensors, file, header):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr("lm2.cache.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        cache.save(path, model)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["c"]


def test_a_cache_that_does_not_fit_is_refused(model, cache):
    with pytest.raises(ValueError, match=r"the cache has 2 rows and the input has 3: use cache.select"):
        model(random_ids(3, 4), past_key_values=cache)
    other = LM2Cache(tiny_model("more slots than tokens", look_back=model.config.look_back).config)
    with pytest.raises(ValueError, match="its memory_slots is 11 and this model's is 5"):
        model(random_ids(1, 4), past_key_values=other)
    other = LM2Cache(tiny_model("memory in one block", look_back=2).config)
    with pytest.raises(ValueError, match=f"its look_back is 2 and this model's is {model.config.look_back}"):
        model(random_ids(1, 4), past_key_values=other)
    with pytest.raises(ValueError, match=r"the cache has 2 rows, and rows \[2\] were named"):
        cache.select([2])
    with pytest.raises(ValueError, match="the cache has 0 rows and the input has 2"):
        model(random_ids(2, 4), past_key_values=cache.select([]))
    with pytest.raises(ValueError, match=r"rows \[-1\] were named"):
        cache.reset([-1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": 3, "memory_layers": None}, "num_hidden_layers is 3 and this model's is 2"),
        ({"hidden_size": 32}, "hidden_size is 32 and this model's is 24"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4 and this model's is 2"),
        ({"segment_length": 7}, "segment_length is 7 and this model's is 6"),
        ({"memory_layers": [0]}, r"memory_indices is \(0,\) and this model's is \(1,\)"),
    ],
)
def test_every_shape_that_differs_is_named(fields, said):
    own, other = (tiny_config("memory in one block", **changes) for changes in ({}, fields))
    LM2Cache(own).check_fits(own, 1)
    with pytest.raises(ValueError, match=f"its {said}"):
        LM2Cache(other).check_fits(own, 1)


def test_booleans_name_rows(model):
    cache = LM2Cache(model.config)
    model(random_ids(3, 20), past_key_values=cache)
    chosen = torch.tensor([True, False, True])
    picked = cache.select(chosen)
    assert picked.rows == 2
    for one, other in zip(picked.states, cache.select([0, 2]).states, strict=True):
        assert torch.equal(one.keys, other.keys)
    cache.reset([False, True, False])
    assert cache.tokens_R.tolist() == [20, 0, 20]
    with pytest.raises(ValueError, match="the cache has 3 rows, and 2 yes or no were given"):
        cache.select(chosen[:2])


def test_columns_of_pads_are_seen_also_where_every_row_has_some(model):
    cache, mask = LM2Cache(model.config), torch.ones(2, 10, dtype=torch.long)
    mask[0, :2], mask[1, :5] = 0, 0
    model(random_ids(2, 10), attention_mask=mask, past_key_values=cache)
    assert (cache.seen, cache.tokens_R.tolist()) == (10, [8, 5])


def test_a_cache_goes_on_when_autocast_has_ended(model):
    ids = random_ids(2, 17)
    for first in (True, False):
        cache = LM2Cache(model.config)
        for columns, autocast in ((ids[:, :10], first), (ids[:, 10:11], not first), (ids[:, 11:], first)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                logits = model(columns, past_key_values=cache).logits
        assert (logits.float() - model(ids).logits[:, 11:]).abs().max() < 0.2 * logits.float().std()


def test_a_missing_folder_is_named(model, cache, tmp_path):
    with pytest.raises(OSError, match=r"nowhere/c.*No such file or directory"):
        cache.save(tmp_path / "nowhere" / "c", model)
