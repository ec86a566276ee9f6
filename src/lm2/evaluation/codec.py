"""Between text and tokens: texts that come in pieces, chat frames, and the end of an answer."""

from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm2.data.tokenizer import opening

BLOCK = 4096
"""Characters that are collected before they are encoded."""
ANCHOR = 64
"""Characters before a cut that are encoded again, so that what follows is seen in its place and not as a beginning."""
MARK = "\x02"


@dataclass(frozen=True)
class TokenStream:
    """The tokens of a text that comes in pieces: those of the whole text, while no more than a block of it is kept.

    It cuts only before a single space between two words, where no tokenizer joins what stands left and right.
    A value: `push` returns the stream that follows, and the old one can go on another way.
    """

    tokenizer: PreTrainedTokenizerBase
    text: str = ""
    sent: int = 0  # characters of `text` whose tokens have been given

    def push(self, piece: str) -> "tuple[TokenStream, list[int]]":
        """Take more text; the stream that follows and, whenever a block is full, its tokens."""
        longer = replace(self, text=self.text + piece)
        return longer.settle() if len(longer.text) - longer.sent >= BLOCK else (longer, [])

    def settle(self) -> "tuple[TokenStream, list[int]]":
        """All tokens that are certain: only the last word is held back, for it may go on."""
        return self._give(_last_border(self.text, self.sent))

    def end(self, piece: str = "") -> "tuple[TokenStream, list[int]]":
        """The last piece of a part of the prompt; all tokens that are left."""
        longer = replace(self, text=self.text + piece)
        return longer._give(len(longer.text))

    def _give(self, cut: int) -> "tuple[TokenStream, list[int]]":
        if cut <= self.sent:
            return self, []
        encoded = self.tokenizer(self.text[:cut], add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        ids = [i for i, (_, end) in zip(encoded["input_ids"], offsets, strict=True) if end > self.sent]
        start = max(0, cut - ANCHOR)
        return TokenStream(self.tokenizer, self.text[start:], cut - start), ids


def _last_border(text: str, sent: int) -> int:
    """The last single space between two words after `sent`, or -1."""
    at = len(text)
    while (at := text.rfind(" ", sent + 1, at)) > 0:
        if not text[at - 1].isspace() and not text[at + 1 : at + 2].isspace() and at + 1 < len(text):
            return at
    return -1


@dataclass(frozen=True)
class Codec:
    """How a model's prompts become tokens and its tokens an answer.

    Attributes:
        start: special tokens at the start of every prompt (usually none, or one that marks the beginning).
        prefix, suffix: what the chat format puts before and after the user's message; empty without chat.
        stop: tokens that end an answer.
    """

    tokenizer: PreTrainedTokenizerBase
    start: tuple[int, ...]
    prefix: str
    suffix: str
    stop: frozenset[int]

    def stream(self) -> TokenStream:
        """A stream for one prompt; `start` comes before its tokens."""
        return TokenStream(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokens of a whole text, special ones not added."""
        return self.stream().end(text)[1]

    def decode(self, ids: list[int]) -> str:
        """An answer as it is judged: without special tokens, and stripped."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def codec_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> Codec:
    """The codec of a model.

    Raises:
        ValueError: the tokenizer does not tell where its tokens stand in the text, or has no chat format and `chat`.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not tell which characters a token covers, and long texts are encoded in "
            "pieces: save the model with a fast tokenizer (a tokenizer.json)"
        )
    prefix, suffix = _chat_frame(tokenizer) if chat else ("", "")
    start = () if chat else tuple(opening(tokenizer))
    return Codec(tokenizer, start, prefix, suffix, _stop(model, tokenizer))


def _chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    if tokenizer.chat_template is None:
        raise ValueError("this model's tokenizer has no chat format: leave out --chat")
    message = [{"role": "user", "content": MARK}]
    rendered = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    if rendered.count(MARK) != 1:
        raise ValueError(
            f"this model's chat format shows the user's message {rendered.count(MARK)} times, and it must show it "
            "once: leave out --chat"
        )
    prefix, _, suffix = rendered.partition(MARK)
    return prefix, suffix


def _stop(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    settings = getattr(model, "generation_config", None)
    config = getattr(model.config, "backbone_config", model.config)
    named = [getattr(settings, "eos_token_id", None), config.eos_token_id, tokenizer.eos_token_id]
    ids = [i for value in named for i in (value if isinstance(value, (list, tuple)) else [value])]
    return frozenset(i for i in ids if i is not None)
