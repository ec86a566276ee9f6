import copy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm2.data.babi import ACTORS, PLACES, read_stories
from lm2.data.tokenizer import babi_words, closing, opening, read_as_sentences, train_tokenizer
from tests.data.texts import generated


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_words_of_the_real_files_are_known_and_single_tokens(tokenizer, babi):
    words = set()
    for task in ("qa1", "qa2", "qa3"):
        for story in read_stories(babi, task, "test"):
            texts = (*story.facts, *(question.text for _, question in story.questions))
            words |= {word.rstrip(".?") for text in texts for word in text.split()}
    assert words == set(babi_words())
    assert all(len(encode(tokenizer, f" {word}")) == 1 for word in words)


def test_a_fact_is_a_token_for_each_word_and_the_stop(tokenizer):
    assert len(encode(tokenizer, " Sandra picked up the football there.")) == 7


@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back(tokenizer, text):
    if any(special in text for special in tokenizer.all_special_tokens):
        return
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_case_is_kept(tokenizer):
    assert encode(tokenizer, " The") != encode(tokenizer, " the")


def test_a_text_begins_with_the_start_token(tokenizer):
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<bos>", "<eos>")
    assert tokenizer(" Mary")["input_ids"] == [*opening(tokenizer), *encode(tokenizer, " Mary")]
    assert opening(tokenizer) == [tokenizer.bos_token_id]
    assert closing(tokenizer) == []
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_size_is_kept_and_training_is_deterministic():
    texts = generated(2000)
    one, two = train_tokenizer(texts, 900), train_tokenizer(iter(texts), 900)
    assert len(one) == 900
    assert one.get_vocab() == two.get_vocab()
    assert encode(one, texts[0]) == encode(two, texts[0])


def test_saved_tokenizer_loads_by_the_auto_class(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = f" {ACTORS[0]} went to the {PLACES[0]}. Ça va?"
    assert encode(loaded, text) == encode(tokenizer, text)
    assert loaded.decode(encode(loaded, text)) == text
    assert loaded.eos_token_id == tokenizer.eos_token_id


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"A vocabulary of 300 is too small: \d+ of 35 words"):
        train_tokenizer(generated(100), 300)


@pytest.fixture(scope="module")
def of_sentences(tokenizer):
    return read_as_sentences(copy.deepcopy(tokenizer))


@pytest.mark.parametrize("text", ["Mary went\nto the  garden.\r\nJohn left.", "\tMary went to the garden. John left. "])
def test_any_text_is_read_as_sentences_in_a_line(of_sentences, tokenizer, text):
    for end in ("", "\n"):
        assert encode(of_sentences, text + end) == encode(tokenizer, " Mary went to the garden. John left.")


@given(text=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]) | st.sampled_from("\n\t\r")))
def test_only_white_space_and_the_first_capital_are_read_otherwise(of_sentences, text):
    line = re.sub(r"\s+", " ", text).rstrip()
    spaced = f" {line}" if line[:1].isupper() else line
    assert of_sentences.decode(encode(of_sentences, text)) == spaced


def test_a_part_of_a_sentence_gets_no_space(of_sentences, tokenizer):
    for part in (".", " garden", "garden", "?", ""):
        assert encode(of_sentences, part) == encode(tokenizer, part)
