"""A text that comes in pieces has the tokens of the whole text."""

from copy import deepcopy
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lm2.evaluation import codec
from lm2.evaluation.codec import BLOCK, TokenStream, codec_of
from tests.evaluation import tiny

TEXT = tiny.prose(400) + "\n</context>\n\nQuestion: Where  is Mary?  1234 5678 ..."


def cut(text: str, places: list[int]) -> list[str]:
    at = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


def streamed(tokenizer, pieces) -> list[int]:
    stream, found = TokenStream(tokenizer), []
    for piece in pieces:
        stream, ids = stream.push(piece)
        found += ids
    return found + stream.end()[1]


def whole(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """Puts a space before the first word of what it is given, as SentencePiece does."""
    inner = Tokenizer(models.BPE(unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    inner.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, special_tokens=["?"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.fixture(scope="module")
def joining() -> PreTrainedTokenizerFast:
    """Makes one token of spaces that meet, whatever follows them."""
    inner, split = Tokenizer(models.BPE()), pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    text = "".join(f"Mary{' ' * n}went" for n in range(1, 8)) * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([text], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=40))
def test_pieces_have_the_tokens_of_the_whole(places):
    assert len(TEXT) > 3 * BLOCK
    assert streamed(tiny.tokenizer(), cut(TEXT, places)) == whole(tiny.tokenizer(), TEXT)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=10))
def test_also_where_the_tokenizer_treats_a_beginning_in_its_own_way(metaspace, places):
    assert streamed(metaspace, cut(TEXT, places)) == whole(metaspace, TEXT)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["Mary ", " went", "  ", "\n ", "garden", ". ", "12"]), max_size=40), st.integers(1, 9))
def test_nothing_is_cut_where_spaces_meet(joining, pieces, block):
    assert len(whole(joining, "Mary     went")) == len(whole(joining, "Mary  went")) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "BLOCK", block)
        assert streamed(joining, pieces) == whole(joining, "".join(pieces))


def test_a_text_without_spaces_waits_for_its_end():
    text = "x" * (3 * BLOCK)
    assert streamed(tiny.tokenizer(), [text[:5000], text[5000:]]) == whole(tiny.tokenizer(), text)


def test_no_more_than_a_block_is_kept():
    stream = TokenStream(tiny.tokenizer())
    for _ in range(3):
        for piece in cut(TEXT, list(range(0, len(TEXT), 500))):
            stream, _ = stream.push(piece)
            assert len(stream.text) < BLOCK + 600
    assert len(stream.settle()[0].text) < 100


def test_an_old_stream_can_go_on_another_way():
    stream, _ = TokenStream(tiny.tokenizer()).push("Mary went to the")
    kitchen, garden = (stream.end(end)[1] for end in (" kitchen.", " garden."))
    assert kitchen == whole(tiny.tokenizer(), "Mary went to the kitchen.")
    assert garden == whole(tiny.tokenizer(), "Mary went to the garden.")


def test_the_chat_frame_stands_around_the_prompt():
    found = tiny.codec(tiny.llama(), chat=True)
    assert (found.prefix, found.suffix) == ("<bos>user: ", "<eos>assistant:")
    assert found.start == ()
    assert tiny.codec(tiny.llama()).prefix == ""


def test_answers_are_decoded_without_special_tokens_and_stripped():
    made = tiny.codec(tiny.llama())
    ids = [*made.encode(" garden "), tiny.tokenizer().eos_token_id]
    assert made.decode(ids) == "garden"
    assert tiny.tokenizer().eos_token_id in made.stop


def test_an_answer_ends_at_any_token_that_ends_one():
    """What the configuration names (a baseline's backbone's), what generation stops at, and the tokenizer's."""
    plain, baseline, end = deepcopy(tiny.llama()), deepcopy(tiny.memory_model("rmt")), tiny.tokenizer().eos_token_id
    plain.config.eos_token_id, plain.generation_config.eos_token_id = 5, [6, 7]
    baseline.config.backbone_config.eos_token_id = [8, 9]
    assert tiny.codec(plain).stop == {5, 6, 7, end}
    assert tiny.codec(baseline).stop == {8, 9, end}


def test_tokenizers_that_lack_what_is_needed(monkeypatch):
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"Slow does not tell .* fast tokenizer"):
        codec_of(tiny.llama(), Slow(), chat=False)
    monkeypatch.setattr(tiny.tokenizer(), "chat_template", None)
    with pytest.raises(ValueError, match="no chat format: leave out --chat"):
        tiny.codec(tiny.llama(), chat=True)
    monkeypatch.setattr(tiny.tokenizer(), "chat_template", "always the same")
    with pytest.raises(ValueError, match="shows the user's message 0 times"):
        tiny.codec(tiny.llama(), chat=True)
    monkeypatch.setattr(tiny.tokenizer(), "chat_template", 2 * "{{ messages[0]['content'] }}")
    with pytest.raises(ValueError, match="shows the user's message 2 times"):
        tiny.codec(tiny.llama(), chat=True)


def test_a_beginning_token_is_put_before_the_prompt(monkeypatch):
    class Beginning:
        is_fast, bos_token_id, eos_token_id = True, 1, 2

        def __call__(self, text):
            return {"input_ids": [1, 5]}

    assert codec_of(tiny.llama(), Beginning(), chat=False).start == (1,)
    assert codec.MARK not in TEXT
