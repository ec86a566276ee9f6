"""Full attention, the last tokens only, and a sliding window in constant memory."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from lm2.evaluation.codec import codec_of
from lm2.evaluation.models import TooLong
from lm2.evaluation.runners import attention
from lm2.evaluation.runners.attention import AttentionRunner, reads_in_parts, window_mask
from lm2.evaluation.runners.decoding import greedy
from tests.evaluation import tiny

BEFORE, AFTER = "Read.\n\n<context>\n", "\n</context>\n\nQuestion: Where is Mary?"
NEW = 6


def runner(model=None, **limits) -> AttentionRunner:
    model = model or tiny.llama()
    return AttentionRunner("plain", {"source": "tiny"}, model, tiny.codec(model), **limits)


def ids_of(text: str, special: bool = True) -> torch.Tensor:
    return tiny.tokenizer()(text, add_special_tokens=special, return_tensors="pt")["input_ids"]


def generated(model, ids: torch.Tensor) -> str:
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    return tiny.codec(model).decode(out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_full_attention_is_the_models_own_greedy_answer(chunk, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", chunk)
    context = tiny.prose(6)
    expected = generated(tiny.llama(), ids_of(BEFORE + context + AFTER))
    assert expected
    for pieces in ([context], [context[:9], context[9:]]):
        assert runner().answer(BEFORE, pieces, AFTER, NEW) == expected


@pytest.mark.parametrize("limits", [{}, {"last": 60}])
def test_the_text_before_the_context_is_run_once_and_changes_nothing(limits, monkeypatch):
    """Also when another text came between."""
    fed, run = [], AttentionRunner._run
    monkeypatch.setattr(AttentionRunner, "_run", lambda self, ids, *rest: fed.append(ids) or run(self, ids, *rest))
    asked = [(BEFORE, "It rains."), (BEFORE, tiny.prose(3)), ("Look. ", "It snows."), ("", "It is dry."), (BEFORE, "A")]
    kept = runner(**limits)
    together = [kept.answer(before, [context], AFTER, NEW) for before, context in asked]
    assert fed.count(ids_of(BEFORE)[0].tolist()) == 2
    assert together == [runner(**limits).answer(before, [context], AFTER, NEW) for before, context in asked]
    if not limits:
        assert together == [generated(tiny.llama(), ids_of(before + text + AFTER)) for before, text in asked]


def test_the_chat_frame_is_part_of_the_prompt():
    chat = AttentionRunner("chat", {}, tiny.llama(), tiny.codec(tiny.llama(), chat=True))
    expected = generated(
        tiny.llama(), ids_of("<bos>user: " + BEFORE + "It rains." + AFTER + "<eos>assistant:", special=False)
    )
    assert chat.answer(BEFORE, ["It rains."], AFTER, NEW) == expected


def test_a_prompt_that_is_too_long_is_refused_and_not_cut():
    room = 256 - NEW
    fits = tiny.tokenizer().decode(ids_of(tiny.prose(100), special=False)[0, : room - 40])
    assert runner().answer(BEFORE, [fits], AFTER, NEW)
    with pytest.raises(TooLong, match=r"more than 250 tokens and 6 new ones, and the model takes 256"):
        runner().answer(BEFORE, [tiny.prose(100)], AFTER, NEW)


def test_the_last_tokens_keep_instruction_and_question():
    context, last = tiny.prose(40), 64
    head, tail = ids_of(BEFORE)[0].tolist(), ids_of(AFTER, special=False)[0].tolist()
    body = ids_of(context, special=False)[0].tolist()[-(last - len(head) - len(tail)) :]
    ids = torch.tensor([[*head, *body, *tail]])
    assert ids.shape[1] == last
    assert runner(last=last).answer(BEFORE, [context], AFTER, NEW) == generated(tiny.llama(), ids)


def test_the_last_tokens_of_a_short_prompt_are_all_of_it():
    short = runner(last=200).answer(BEFORE, ["It rains."], AFTER, NEW)
    assert short == runner().answer(BEFORE, ["It rains."], AFTER, NEW)
    nothing_behind = generated(tiny.llama(), ids_of(BEFORE))
    assert nothing_behind == runner(last=200).answer(BEFORE, [], "", NEW) == runner().answer(BEFORE, [], "", NEW)


def test_a_token_over_the_end_of_the_context_is_given_once():
    """As in Llama 3 and Qwen, whose tokens join a full stop with the line ends behind it."""
    text = tiny.prose(3)
    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?\w+| ?[^\s\w]+\n*|\s+"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator([text + AFTER] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    made = AttentionRunner("plain", {}, tiny.llama(), codec_of(tiny.llama(), tokenizer, chat=False), last=2000)
    ids = made._last_tokens(BEFORE, [text], AFTER, 2000)
    assert tokenizer.decode(ids) == BEFORE + text + AFTER
    assert ".\n" in [tokenizer.decode([i]) for i in ids]


@pytest.mark.parametrize("last", [30, 2000])
def test_the_space_before_the_context_is_not_doubled(last):
    """The context's first token begins with it, where that is not cut away."""
    before, context = "Context: ", tiny.prose(6)
    ids = runner(last=last)._last_tokens(before, [context[:7], context[7:]], AFTER, last)
    text, whole = tiny.tokenizer().decode(ids, skip_special_tokens=True), before + context + AFTER
    assert len(ids) == min(last, ids_of(whole).shape[1])
    assert text.startswith(before)
    assert whole.endswith(text[len(before) :])


def test_too_few_last_tokens_for_the_question():
    alone = torch.cat([ids_of(BEFORE), ids_of(AFTER, special=False)], dim=1)
    need = alone.shape[1]
    with pytest.raises(ValueError, match=rf"have {need} tokens, more than the {need - 1} of @last:{need - 1}"):
        runner(last=need - 1).answer(BEFORE, ["It rains."], AFTER, NEW)
    assert runner(last=need).answer(BEFORE, ["It rains."], AFTER, NEW) == generated(tiny.llama(), alone)


@torch.no_grad()
def windowed_by_hand(model, ids: list[int], window: int) -> str:
    """Every token of the whole text at once under a banded mask, again for each new token."""

    def logits_of(ids: list[int]) -> torch.Tensor:
        mask = window_mask(0, len(ids), window)
        return model(torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0, -1]

    def feed(token: int) -> torch.Tensor:
        ids.append(token)
        return logits_of(ids)

    return tiny.codec(model).decode(greedy(logits_of(ids), feed, (), NEW))


@pytest.mark.parametrize(("window", "chunk"), [(1, 5), (8, 3), (24, 4096), (300, 64)])
def test_a_sliding_window_is_that_of_the_whole_text(window, chunk, monkeypatch):
    """Although only layers x (W - 1) + 1 tokens are run, and at other positions."""
    monkeypatch.setattr(attention, "CHUNK", chunk)
    context = tiny.prose(30)
    ids = ids_of(BEFORE + context + AFTER)[0].tolist()
    assert len(ids) > 256
    expected = windowed_by_hand(tiny.llama(), ids, window)
    assert runner(window=window).answer(BEFORE, [context], AFTER, NEW) == expected


@cache
def gpt2() -> GPT2LMHeadModel:
    """Its positions are learned, each for itself."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tiny.tokenizer()), "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, initializer_range=0.6, bos_token_id=None, eos_token_id=None)
    return GPT2LMHeadModel(config).eval()


def test_a_window_leaves_absolute_positions_what_they_are():
    context = tiny.prose(6)
    ids = ids_of(BEFORE + context + AFTER)[0].tolist()
    assert 2 * 7 + 1 < len(ids) < 256 - NEW
    expected = windowed_by_hand(gpt2(), ids, 8)
    assert runner(gpt2(), window=8).answer(BEFORE, [context], AFTER, NEW) == expected


def test_a_text_beyond_absolute_positions_is_refused_although_a_window_sees_little_of_it():
    with pytest.raises(TooLong, match=r"more than 250 tokens and 6 new ones, and the model takes 256"):
        runner(gpt2(), window=8).answer(BEFORE, [tiny.prose(100)], AFTER, NEW)


def test_the_window_bounds_the_keys_that_are_kept(monkeypatch):
    lengths = []
    trim = attention._trim

    def spy(cache: DynamicCache, keep: int) -> None:
        trim(cache, keep)
        lengths.append(cache.get_seq_length())

    monkeypatch.setattr(attention, "_trim", spy)
    monkeypatch.setattr(attention, "CHUNK", 10)
    runner(window=12).answer(BEFORE, [tiny.prose(60)], AFTER, NEW)
    assert max(lengths) == 11


def test_window_mask_shows_the_latest_keys():
    seen = window_mask(cached=2, queries=3, window=2)[0, 0] == 0
    assert seen.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    scores = 30 * torch.randn(3, 5)
    assert not ((scores + window_mask(2, 3, 2)[0, 0]).softmax(-1)[~seen]).any()  # none, and not just little


def test_a_window_wider_than_the_models_own_is_refused(monkeypatch):
    monkeypatch.setattr(tiny.llama().config, "sliding_window", 16, raising=False)
    with pytest.raises(ValueError, match=r"a window of 16 tokens, less than 32: ask for @window:16"):
        runner(window=32)
    assert runner(window=16).window == 16


def test_a_model_that_forgets_what_it_read_is_refused():
    """Mamba takes the cache, and keeps its state elsewhere: it would answer the last part of a prompt alone."""
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=len(tiny.tokenizer()), hidden_size=32, num_hidden_layers=2)).eval()
    with pytest.raises(ValueError, match="plain is a mamba, which forgets what it read in the call before: 12 tokens"):
        runner(model)


def test_a_window_is_for_attention_alone():
    torch.manual_seed(0)
    config = Lfm2Config(vocab_size=len(tiny.tokenizer()), layer_types=["conv", "full_attention"], **tiny.SHAPE)
    model = Lfm2ForCausalLM(config).eval()
    assert reads_in_parts(model)
    with pytest.raises(ValueError, match=r"plain has 1 layers that are not attention alone.*leave out @window:8"):
        runner(model, window=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_forgetting(dtype):
    assert reads_in_parts(deepcopy(tiny.llama()).to(dtype))


def test_greedy_ends_at_a_stop_token_and_needs_room():
    logits = torch.tensor([0.0, 1.0, 0.0])
    assert greedy(logits, lambda token: torch.tensor([0.0, 0.0, 1.0]), {2}, 5) == [1]
    assert greedy(logits, lambda token: logits, {2}, 3) == [1, 1, 1]
    with pytest.raises(ValueError, match="at least 1, and it is 0"):
        greedy(logits, lambda token: logits, (), 0)


def test_a_prompt_that_just_fits_is_answered():
    room = 256 - ids_of(BEFORE + "It rains." + AFTER).shape[1]
    assert isinstance(runner().answer(BEFORE, ["It rains."], AFTER, room), str)
    with pytest.raises(TooLong):
        runner().answer(BEFORE, ["It rains."], AFTER, room + 1)
