"""What an answer owes to which place, on a model that ships and on random ones."""

from copy import deepcopy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm2 import LM2Cache
from lm2.analysis import look
from lm2.analysis.asking import ROWS, answer, probabilities, unwritten
from lm2.data.background import GeneratedSentences
from tests.accelerator import accelerator
from tests.contract.cases import FEW, random_ids, tiny_model

MODEL = Path(__file__).parents[2] / "models" / "lm2-tiny-qa1"
FACTS = " Mary went to the garden. John moved to the office."


@pytest.fixture(scope="module")
def shipped():
    return AutoModelForCausalLM.from_pretrained(MODEL).eval(), AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def found(shipped):
    filler = " ".join(islice(GeneratedSentences().sentences(np.random.default_rng(0)), 60))
    return look(*shipped, f"{FACTS} {filler}", [" Where is Mary?", " Where is John?"], max_new_tokens=1)


def test_an_answer_is_what_stands_before_the_token_that_ends_it():
    """Whatever token that is, and unless it is all that was said."""
    model, question = tiny_model(FEW[0]), random_ids(1, 9)[0]
    cache = LM2Cache(model.config)
    whole = answer(model, question, cache, 4)
    assert len(whole) == 4
    for ends in (int(whole[-1]), [31, int(whole[-1])]):
        model.generation_config.eos_token_id = ends
        first = whole.tolist().index(int(whole[-1]))
        assert torch.equal(answer(model, question, cache, 4), whole[: first or 1])


def test_answers_are_right_and_forgotten_without_the_memory(found):
    assert [answer.text for answer in found.answers] == [" garden", " office"]
    for one in found.answers:
        assert one.probability > 0.9
        assert one.nothing_written < 0.5


def test_facts_are_written_and_hardly_anything_else(found):
    assert sum(place.tokens for place in found.places) < 0.05 * found.tokens
    first = [place for place in found.places if place.first < 20]
    assert any(place.before.endswith("went to the garden.") for place in first)
    assert max(place.written for place in first) > 0.5
    assert not any(place.attended for place in first)


def test_marys_answer_is_lost_without_the_place_after_her_fact_only(found):
    mary, _ = found.answers
    probability = {found.places[one.place].before: one.probability for one in mary.tried}
    assert probability.pop(" Mary went to the garden.") < 0.5
    assert all(p > 0.9 for p in probability.values())
    assert mary.together < 0.5


def test_shares_are_at_most_one_and_the_facts_are_read_most(found):
    for one in found.answers:
        assert one.read_P.sum() + one.start <= 1 + 1e-5
        assert all(found.places[place].first < 20 for place in one.most_read(2))
        assert sum(answer.size for answer in one.tokens) > 0
        control = [tried for tried in one.tried if tried.control]
        assert len(control) == 1
        assert one.read_P[control[0].place] <= np.median(one.read_P)


def test_progress_ends_at_the_whole(shipped):
    told = []
    look(*shipped, FACTS * 20, [" Where is Mary?"], max_new_tokens=1, done=lambda *numbers: told.append(numbers))
    done, totals = zip(*told, strict=True)
    assert sorted(set(done)) == list(done)
    assert set(totals) == {done[-1]}


def test_on_a_device_that_is_not_the_cpu(shipped):
    asked = FACTS * 8, [" Where is Mary?"]
    wanted = look(*shipped, *asked, max_new_tokens=1)
    with accelerator() as moved:
        found = look(moved(deepcopy(shipped[0])), shipped[1], *asked, max_new_tokens=1)
    assert found.answers[0].text == " garden"
    np.testing.assert_allclose(found.mass_BSN, wanted.mass_BSN, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.answers[0].read_P, wanted.answers[0].read_P, rtol=1e-3, atol=1e-5)


def test_a_text_alone_has_no_answers(shipped):
    found = look(*shipped, FACTS * 8)
    assert found.answers == []
    assert found.mass_BSN.shape == (1, found.tokens // found.segment_length, 16)
    assert found.places[-1].attended


def test_a_text_within_the_first_segment_is_not_in_the_memory_yet(shipped):
    found = look(*shipped, FACTS, [" Where is Mary?"], max_new_tokens=1)
    assert found.mass_BSN.shape == (1, 0, 16)
    assert found.answers[0].text == " garden"
    assert (found.places, found.answers[0].tried) == ([], [])
    assert {token.place for token in found.answers[0].tokens} == {None}
    assert found.answers[0].nothing_written == pytest.approx(found.answers[0].probability)


def test_places_are_of_complete_segments_and_those_tried_were_read(shipped):
    found = look(*shipped, FACTS * 5, [" Where is Mary?"], without=100, max_new_tokens=1)
    assert found.tokens % found.segment_length > 20
    assert found.places
    assert all(
        one.first + one.tokens <= found.tokens // found.segment_length * found.segment_length for one in found.places
    )
    (answer,) = found.answers
    assert answer.tried
    assert all(answer.read_P[one.place] > 0 for one in answer.tried if not one.control)


def test_bad_input_is_refused(shipped):
    with pytest.raises(ValueError, match="a question is empty"):
        look(*shipped, FACTS, ["  "])
    with pytest.raises(ValueError, match="-1 places to leave out and 8 new tokens: at least 0 and 1 are needed"):
        look(*shipped, FACTS, without=-1)


@pytest.mark.parametrize("case", FEW)
def test_the_answer_is_that_of_generate_and_its_probability_the_product(case):
    model, T = tiny_model(case), tiny_model(case).config.segment_length
    text, question = random_ids(1, 3 * T + 1), random_ids(1, 4, seed=1)
    cache = LM2Cache(model.config)
    with torch.no_grad():
        model(text, past_key_values=cache)
    whole = model.generate(torch.cat([text, question], 1), max_new_tokens=3, do_sample=False)
    model.generation_config.update(use_cache=False, num_beams=2, num_return_sequences=2)  # as a base may be saved
    found_A = answer(model, question[0], cache, 3)
    assert found_A.tolist() == whole[0, -3:].tolist()
    with torch.no_grad():
        log_LV = model(whole).logits[0].log_softmax(-1)
    product = sum(log_LV[at - 1, whole[0, at]] for at in range(whole.shape[1] - 3, whole.shape[1])).exp()
    torch.testing.assert_close(probabilities(model, question[0], found_A, cache)[0], product, rtol=1e-4, atol=1e-6)
    assert cache.seen == text.shape[1]


@pytest.mark.parametrize("case", FEW)
def test_more_choices_than_are_read_at_once_are_what_each_is(case):
    model, T = tiny_model(case), tiny_model(case).config.segment_length
    ids_L, question_L = random_ids(1, 3 * T + 1)[0], random_ids(1, 3, seed=1)[0]
    closed = [torch.arange(len(ids_L)) == at for at in range(ROWS + 2)]
    together = unwritten(model, ids_L, closed, question_L, ids_L[:1])
    alone = [unwritten(model, ids_L, [one], question_L, ids_L[:1])[0] for one in closed]
    assert together == pytest.approx(alone, rel=1e-4)
    assert len(set(together[:T])) > 1
