"""Contract 5: documents packed in one row are the same as the documents alone, with gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorWithFlattening

from lm2 import LM2Cache
from tests.contract.cases import CASES, assert_same, random_ids, tiny_model


def packed(documents):
    """As the flattening collator of Hugging Face sends them: ids, position_ids, labels."""
    features = [{"input_ids": document.tolist()} for document in documents]
    return DataCollatorWithFlattening(return_tensors="pt")(features)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=4))
@torch.no_grad()
def test_packed_documents_are_the_documents_alone(case, lengths):
    model = tiny_model(case)
    documents = [random_ids(1, length, seed=b)[0] for b, length in enumerate(lengths)]
    batch = packed(documents)
    together = model(batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
    for document, logits in zip(documents, together.split(lengths), strict=True):
        assert_same(logits, model(document[None]).logits[0])


@pytest.mark.parametrize("bptt_segments", [None, 2])
@pytest.mark.parametrize("case", ["fewer slots than tokens", "top-k", "qwen3", "look-back"])
def test_gradients_are_those_of_the_documents_alone(case, bptt_segments):
    model = tiny_model(case, bptt_segments=bptt_segments).train()
    documents = [random_ids(1, length, seed=length)[0] for length in (20, 3, 32, 7)]
    batch = packed(documents)
    count = sum(len(document) - 1 for document in documents)

    def gradients(losses):
        sum(losses).backward()
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        model.zero_grad(set_to_none=True)
        return found

    alone = gradients([model(d[None], labels=d[None], num_items_in_batch=count).loss for d in documents])
    together = gradients([model(**batch, num_items_in_batch=count).loss])
    for name, expected in alone.items():
        assert (together[name] - expected).abs().max() <= 1e-3 * (expected.abs().max() + 1e-3), name


@torch.no_grad()
def test_several_packed_rows():
    model = tiny_model("fewer slots than tokens")
    lengths = [[9, 7], [2, 14]]
    documents = [[random_ids(1, n, seed=n)[0] for n in row] for row in lengths]
    ids = torch.stack([torch.cat(row) for row in documents])
    position_ids = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    together = model(ids, position_ids=position_ids).logits
    for b, row in enumerate(documents):
        for document, logits in zip(row, together[b].split(lengths[b]), strict=True):
            assert_same(logits, model(document[None]).logits[0])


@torch.no_grad()
def test_positions_that_rise_by_one_are_one_document_wherever_they_start():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(2, 20)
    expected = model(ids).logits
    assert torch.equal(model(ids, position_ids=torch.arange(20)[None]).logits, expected)
    assert torch.equal(model(ids, position_ids=torch.arange(100, 120)[None]).logits, expected)


@torch.no_grad()
def test_with_a_mask_positions_are_no_borders_of_documents():
    """Positions as Hugging Face counts them beside pads on the left."""
    model, ids, mask = tiny_model("memory in one block"), random_ids(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[1, :7] = 0
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    assert torch.equal(model(ids, mask, position_ids).logits, model(ids, mask).logits)


@torch.no_grad()
def test_with_a_cache_positions_are_no_borders_of_documents():
    model, ids = tiny_model("memory in one block"), random_ids(2, 20)
    cache, position_ids = LM2Cache(model.config), (torch.arange(10) % 4)[None].expand(2, -1)
    model(ids[:, :10], past_key_values=cache)
    expected = model(ids[:, 10:], past_key_values=cache.copy()).logits
    assert torch.equal(model(ids[:, 10:], position_ids=position_ids, past_key_values=cache).logits, expected)
