"""Contract 10: `generate` with a cache is `generate` without one, and a cache goes on with new tokens only."""

import pytest
import torch

from lm2 import LM2Cache
from tests.contract.cases import FEW, padded, random_ids, tiny_model

NEW = 14  # More than two segments.
MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 5},
    "beams": {"do_sample": False, "num_beams": 3},
    "several sequences": {"do_sample": True, "num_return_sequences": 3},
    "several beams": {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
}


def generate(model, ids, **options):
    torch.manual_seed(3)
    return model.generate(ids, max_new_tokens=NEW, pad_token_id=0, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", FEW)
def test_a_left_padded_batch_is_the_same_without_a_cache(case, mode):
    model = tiny_model(case)
    ids, mask = padded([random_ids(1, n, seed=n)[0] for n in (13, 4, 6)], "left")
    options = {"attention_mask": mask, **MODES[mode]}
    cached = generate(model, ids, **options)
    assert cached.shape[1] == ids.shape[1] + NEW
    assert torch.equal(cached, generate(model, ids, use_cache=False, **options))


@pytest.mark.parametrize("case", FEW)
def test_each_row_of_a_batch_is_the_row_alone(case):
    model = tiny_model(case)
    rows = [random_ids(1, n, seed=n)[0] for n in (13, 4, 6)]
    ids, mask = padded(rows, "left")
    together = generate(model, ids, attention_mask=mask, do_sample=False)[:, -NEW:]
    for b, row in enumerate(rows):
        assert torch.equal(generate(model, row[None], do_sample=False)[0, -NEW:], together[b])


@pytest.mark.parametrize("look_back", [0, 4])
@pytest.mark.parametrize("from_disk", [False, True], ids=["in memory", "from disk"])
@pytest.mark.parametrize("question", [1, 4, 6, 15], ids="{} new".format)
def test_new_ids_with_a_cache_are_new_tokens_only(question, from_disk, look_back, tmp_path):
    """Questions shorter than, equal to and longer than what the open segment has left; full ids with a full mask."""
    model = tiny_model("fewer slots than tokens", look_back=look_back)
    story, ids = random_ids(1, 20), random_ids(1, question, seed=1)
    whole = torch.cat([story, ids], 1)
    expected = generate(model, whole, do_sample=False)[:, -NEW:]

    def told():
        cache = LM2Cache(model.config)
        with torch.no_grad():
            model(story, past_key_values=cache)
        if from_disk:
            cache.save(tmp_path / "cache", model)
            cache = LM2Cache.load(tmp_path / "cache", model)
        return cache

    new_only = generate(model, ids, past_key_values=told(), do_sample=False)
    assert torch.equal(new_only[:, question:], expected)
    full_mask = torch.ones_like(whole)
    long_mask = generate(model, ids, past_key_values=told(), attention_mask=full_mask, do_sample=False)
    assert torch.equal(long_mask[:, question:], expected)
    full_ids = generate(model, whole, past_key_values=told(), attention_mask=full_mask, do_sample=False)
    assert torch.equal(full_ids[:, -NEW:], expected)


def test_a_conversation_goes_on_from_what_generate_left():
    model = tiny_model("fewer slots than tokens")
    cache = LM2Cache(model.config)
    first = generate(model, random_ids(1, 9), past_key_values=cache, do_sample=False)
    # The last token that was drawn has not been read yet.
    question = torch.cat([first[:, -1:], random_ids(1, 3, seed=1)], 1)
    second = generate(model, question, past_key_values=cache, do_sample=False)[:, -NEW:]
    text = torch.cat([first, random_ids(1, 3, seed=1)], 1)
    assert torch.equal(second, generate(model, text, do_sample=False)[:, -NEW:])


def test_prefill_in_chunks_is_the_same():
    model = tiny_model("fewer slots than tokens")
    ids, mask = padded([random_ids(1, n, seed=n)[0] for n in (23, 9)], "left")
    whole = generate(model, ids, attention_mask=mask, do_sample=False)
    chunked = generate(model, ids, attention_mask=mask, do_sample=False, prefill_chunk_size=5)
    assert torch.equal(chunked, whole)


def test_a_text_that_the_cache_already_holds_is_refused():
    model, ids = tiny_model("fewer slots than tokens"), random_ids(1, 9)
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"of its 9 tokens the cache already holds 9"):
        generate(model, ids, past_key_values=cache, attention_mask=torch.ones_like(ids))


def test_a_prompt_that_ends_with_a_pad_is_refused():
    model = tiny_model("fewer slots than tokens")
    ids, mask = padded([random_ids(1, n, seed=n)[0] for n in (9, 4)], "right")
    with pytest.raises(ValueError, match=r"rows \[1\] of the prompt end with a pad.*: pad on the left"):
        generate(model, ids, attention_mask=mask)


def test_an_empty_prompt_is_refused():
    model = tiny_model("fewer slots than tokens")
    with pytest.raises(ValueError, match=r"the input is empty \(it has 1 rows of 0 tokens\)"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"the prompt is empty \(it has 0 tokens\)"):
        generate(model, torch.zeros(1, 0, dtype=torch.long))


@pytest.mark.parametrize("mode", MODES)
def test_embeddings_are_read_as_their_tokens(mode):
    model = tiny_model("fewer slots than tokens")
    ids, mask = padded([random_ids(1, n, seed=n)[0] for n in (13, 4, 6)], "left")
    embeds = model.get_input_embeddings()(ids)
    expected = generate(model, ids, attention_mask=mask, **MODES[mode])[:, ids.shape[1] :]
    assert torch.equal(generate(model, None, inputs_embeds=embeds, attention_mask=mask, **MODES[mode]), expected)


def test_embeddings_with_a_cache_are_the_whole_text():
    model = tiny_model("fewer slots than tokens")
    ids, cache = random_ids(2, 13), LM2Cache(model.config)
    with torch.no_grad():
        model(ids[:, :6], past_key_values=cache)
    embeds = model.get_input_embeddings()(ids)
    expected = generate(model, ids, do_sample=False)[:, -NEW:]
    assert torch.equal(generate(model, None, inputs_embeds=embeds, past_key_values=cache, do_sample=False), expected)
    with pytest.raises(ValueError, match="of its 13 tokens the cache already holds 26"):
        generate(model, None, inputs_embeds=embeds, past_key_values=cache, do_sample=False)


def test_a_cache_that_would_be_read_into_again_and_again_is_refused():
    model = tiny_model("fewer slots than tokens")
    with pytest.raises(ValueError, match="use_cache is False with a cache to go on from"):
        generate(model, random_ids(1, 6), past_key_values=LM2Cache(model.config), use_cache=False)
    with pytest.raises(ValueError, match="cache_implementation is 'static', and this model's state is an LM2Cache"):
        generate(model, random_ids(1, 6), cache_implementation="static")


def test_tokens_that_an_assistant_guesses_are_refused_for_a_bank_takes_nothing_back():
    model = tiny_model("fewer slots than tokens")
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(random_ids(1, 4), assistant_model=model, max_new_tokens=2)
