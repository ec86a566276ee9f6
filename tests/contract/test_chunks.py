"""Contract 2: cut anywhere. One call is any chunking, one token at a time, and save, new process, load, go on."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2 import LM2Cache
from tests.contract.cases import CASES, FEW, assert_same, padded, random_ids, tiny_model


def streamed(model, ids, lengths, mask=None):
    """Logits of `ids` fed in chunks of the given lengths, and the cache after them."""
    cache, outs, start = LM2Cache(model.config), [], 0
    for length in lengths:
        stop = start + length
        part = None if mask is None else mask[:, start:stop]
        outs.append(model(ids[:, start:stop], attention_mask=part, past_key_values=cache).logits)
        start = stop
    return torch.cat(outs, 1), cache


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_one_token_at_a_time(case):
    model, ids = tiny_model(case), random_ids(2, 21)
    assert_same(streamed(model, ids, [1] * 21)[0], model(ids).logits)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 15), min_size=1, max_size=5))
@torch.no_grad()
def test_any_chunking(case, lengths):
    model, ids = tiny_model(case), random_ids(2, sum(lengths))
    whole, cache = streamed(model, ids, [sum(lengths)])
    assert_same(whole, model(ids).logits)
    parts, other = streamed(model, ids, lengths)
    assert_same(parts, whole)
    assert torch.equal(cache.count_R, other.count_R)
    for one, two in zip(cache.states, other.states, strict=True):
        if one.bank is not None:
            assert_same(two.bank, one.bank)


@pytest.mark.parametrize("side", ["left", "right", "scattered"])
@pytest.mark.parametrize("case", ["fewer slots than tokens", "look-back"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
@torch.no_grad()
def test_any_chunking_of_ragged_rows(case, side, data):
    """Chunks may hold no token of a row, and rows cross their segments' ends at different columns."""
    model = tiny_model(case)
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=2, max_size=4).filter(any))
    ids, mask = padded([random_ids(1, n, seed=b)[0] for b, n in enumerate(lengths)], side)
    columns = ids.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, columns - 1)), max_size=4)) - {columns})
    chunks = [stop - start for start, stop in zip([0, *cuts], [*cuts, columns], strict=True)]
    whole = model(ids, attention_mask=mask).logits
    parts, cache = streamed(model, ids, chunks, mask)
    assert_same(parts, whole)
    assert cache.count_R.tolist() == [n % model.config.segment_length for n in lengths]


@pytest.mark.parametrize("case", FEW)
@torch.no_grad()
def test_bfloat16(case):
    model, ids = tiny_model(case).to(torch.bfloat16), random_ids(1, 15)
    parts, cache = streamed(model, ids, [4, 1, 7, 3])
    assert_same(parts.float(), model(ids).logits.float(), tolerance=5e-2)
    assert all(state.bank.dtype == torch.float32 for state in cache.states if state.bank is not None)


GO_ON = """
import sys, torch
from lm2 import LM2Cache, LM2ForCausalLM
model = LM2ForCausalLM.from_pretrained(sys.argv[1]).eval()
cache = LM2Cache.load(sys.argv[1] + "/state.safetensors", model)
ids = torch.tensor([[int(n) for n in sys.argv[2].split(",")]])
with torch.no_grad():
    print(",".join(str(n) for n in model(ids, past_key_values=cache).logits.flatten().tolist()))
"""


@torch.no_grad()
def test_save_new_process_load_go_on(tmp_path):
    model, ids = tiny_model("fewer slots than tokens"), random_ids(1, 25)
    _, cache = streamed(model, ids[:, :15], [15])
    model.save_pretrained(tmp_path)
    cache.save(tmp_path / "state.safetensors", model)
    rest = ",".join(str(n) for n in ids[0, 15:].tolist())
    command = [sys.executable, "-c", GO_ON, str(tmp_path), rest]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resumed = torch.tensor([float(n) for n in out.strip().split(",")]).view(1, 10, -1)
    assert_same(resumed, model(ids).logits[:, 15:])
