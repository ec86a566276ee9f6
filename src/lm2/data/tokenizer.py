"""A small byte-level BPE tokenizer, trained on the spot, in which chosen words are single tokens."""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lm2.data.babi import ACTORS, OBJECTS, PLACES
from lm2.data.world import DROP, MOVE, TAKE

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}


def babi_words() -> tuple[str, ...]:
    """Every word of qa1, qa2 and qa3, facts and questions, as it stands in the text."""
    verbs = (word for phrase in (*MOVE, *TAKE, *DROP) for word in phrase.split())
    return tuple(dict.fromkeys((*ACTORS, *PLACES, *OBJECTS, *verbs, "the", "there", "Where", "is", "was", "before")))


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text: its start token, or nothing.

    Heads that find nothing to attend to attend to the start token. Small models that never see one learn far worse.
    """
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def closing(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts behind a text by itself: its end token, or nothing. What goes on must not follow one."""
    eos = tokenizer.eos_token_id
    return [eos] if eos is not None and tokenizer("a")["input_ids"][-1:] == [eos] else []


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, single_tokens: Sequence[str] = babi_words()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (any text can be encoded) of at most `vocab_size` tokens, the special ones included.

    It puts <bos> before a text. Texts are read with a space before them, as sentences stand in rows, and each of
    `single_tokens` with a space before it is one token. The same texts give the same tokenizer.

    Raises:
        ValueError: `vocab_size` does not hold the bytes and the words.
    """
    texts = [f" {text}" for text in texts]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # merges are chosen by count, so words that occur this often are joined before rarer pairs of the texts
    weight = 100 + sum(map(len, texts)) // 500
    tokenizer.train_from_iterator([*texts, *(f" {word}" * weight for word in single_tokens)], trainer)
    split = [word for word in single_tokens if len(tokenizer.encode(f" {word}").ids) > 1]
    if split:
        raise ValueError(
            f"A vocabulary of {vocab_size} is too small: {len(split)} of {len(single_tokens)} words that must be "
            f"single tokens are split (such as {split[0]!r}). Use a larger vocabulary; 1024 holds the bAbI words."
        )
    bos = SPECIAL_TOKENS["bos_token"]
    special = [(bos, tokenizer.token_to_id(bos))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        padding_side="left",  # on which `generate` needs it
        **SPECIAL_TOKENS,
    )


def read_as_sentences(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, from now on reading any text as sentences stand in rows, in a line with a space before each.

    Line breaks and other white space are one space, none ends a text, and one that begins with a capital letter has a
    space before it. So a word that a small vocabulary holds only with its space is known wherever a user's text has it.
    """
    mark = "\N{LOWER ONE EIGHTH BLOCK}"  # a match of nothing before a letter cannot be replaced
    steps = [
        normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Prepend(mark),
        normalizers.Replace(Regex(rf"\A{mark}(?=\p{{Lu}})"), " "),
        normalizers.Replace(Regex(rf"\A{mark}"), ""),
    ]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer
