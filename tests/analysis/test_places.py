"""Where a text was written: all tokens above the floor, no place across a sentence's end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lm2.analysis.places import CONTEXT, END, Encoded, encode, places_of

TEXTS = st.text(st.sampled_from("ab .!?\n”"), min_size=1, max_size=80)


def by_character(text: str) -> Encoded:
    """A token for each character."""
    at = np.arange(len(text))
    return Encoded(text, at, at, at + 1)


@given(TEXTS, st.integers(0, 2**20))
def test_places_are_the_tokens_above_the_floor_within_sentences(text, seed):
    written_L = np.random.default_rng(seed).choice([0.0, 0.01, 0.5, 1.0], len(text))
    places = places_of(by_character(text), written_L, 0.01)
    tokens = [t for first, past in zip(places.first, places.past, strict=True) for t in range(first, past)]
    assert tokens == np.flatnonzero(written_L > 0.01).tolist()
    ends = [match.end() for match in END.finditer(text)]
    for i in range(len(places)):
        assert not any(places.first[i] < end < places.past[i] for end in ends)
        assert places.text(i) == text[places.first[i] : places.past[i]]
        assert text[: places.first[i]].endswith(places.before(i))
        assert places.before_tokens(i) == len(places.before(i)) <= CONTEXT
    values_L = np.random.default_rng(seed).random(len(text))
    inside = [values_L[first:past] for first, past in zip(places.first, places.past, strict=True)]
    np.testing.assert_allclose(places.sums(values_L), [values.sum() for values in inside])
    np.testing.assert_allclose(places.greatest(values_L), [values.max() for values in inside])


def test_runs_in_one_sentence_and_on_both_sides_of_its_end():
    text = "One two. Three four."
    written_L = np.zeros(len(text))
    written_L[[0, 1, 2, 6, 7, 8, 9, 10, 19]] = 1
    places = places_of(by_character(text), written_L, 0.5)
    assert [places.text(i) for i in range(len(places))] == ["One", "o. ", "Th", "."]
    assert [places.before(i) for i in range(len(places))] == ["", "One tw", "One two. ", "One two. Three four"]


def test_what_stands_before_is_the_sentence_before_and_its_own():
    text = "First. Second one. Third is here"
    written_L = np.zeros(len(text))
    written_L[-4:] = 1
    assert places_of(by_character(text), written_L, 0.5).before(0) == "Second one. Third is "


def test_the_token_of_a_text_begin_and_a_token_cut_in_two_are_counted_as_they_are_shown():
    starts, ends = np.array([0, 0, 5, 10, 16]), np.array([0, 5, 10, 16, 17])
    places = places_of(Encoded("Mary. Ada. Bob. X", np.arange(5), starts, ends), np.array([0, 0, 0, 0, 1]), 0.5)
    assert (places.before(0), places.before_tokens(0)) == ("Bob. ", 1)
    places = places_of(Encoded("Mary. Ada. Bob. X", np.arange(5), starts, ends), np.array([0, 0, 1, 0, 0]), 0.5)
    assert (places.before(0), places.before_tokens(0)) == ("Mary.", 1)


def test_tokens_and_characters_fit():
    words = Tokenizer(models.WordLevel({"Mary": 0, "left": 1, ".": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    encoded = encode(PreTrainedTokenizerFast(tokenizer_object=words), "Mary left. Mary?")
    assert encoded.ids.tolist() == [0, 1, 2, 0, 3]
    assert [encoded.text[a:b] for a, b in zip(encoded.starts, encoded.ends, strict=True)] == [
        *("Mary", "left", ".", "Mary", "?")
    ]


def test_questions_follow_no_end_token():
    """Whatever the tokenizer puts behind a text."""
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "Mary": 2, "left": 3}, unk_token="left"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    encoded = encode(tokenizer, "Mary left")
    assert encoded.ids.tolist() == [0, 2, 3]
    assert (encoded.starts.tolist(), encoded.ends.tolist()) == ([0, 0, 5], [0, 4, 9])


def test_a_tokenizer_that_does_not_tell_places_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="Slow does not tell where its tokens stand in a text"):
        encode(Slow(), "Mary")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="the text is empty"):
        encode(Slow(), " \n")  # ty: ignore[invalid-argument-type]
