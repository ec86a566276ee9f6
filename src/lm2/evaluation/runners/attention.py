"""Any Hugging Face causal language model: full attention, the last tokens only, or a sliding window.

* A prompt that full attention cannot take whole raises `TooLong`; nothing is cut in silence.
* The text before the context is that of all samples of a task, so its keys and values are kept from one to the next.
* The sliding window trims keys and values to the window after every chunk. What the model says after the last token
  depends on no more than the last layers x (W - 1) + 1 tokens. Where only distances matter, only these are run: the
  answer is that of the whole text, and neither memory nor positions grow with it. Where positions themselves matter,
  all tokens are run, each at its own.

Shape suffixes: B = 1 row, Q queries of a chunk, K keys (cached ones first), V vocabulary.
"""

from collections import deque
from collections.abc import Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm2.evaluation.codec import Codec
from lm2.evaluation.models import TooLong
from lm2.evaluation.runners.decoding import greedy, shared_start
from lm2.evaluation.runners.memory import has_memory

CHUNK = 2048
"""Tokens of a prompt that run at once."""
BOUNDLESS_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone, so that only distances matter."""

PROBE = 12
"""Tokens of the test whether a model can be read in parts."""
MOST_ROUNDED, MOST_ROUNDED_HALF = 0.01, 0.25
"""Difference of logits, as a share of their spread, that is rounding: in float32, and in 16 bits."""
WINDOWED = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers whose keys and values can be trimmed."""


class AttentionRunner:
    """A plain model.

    Args:
        facts: what is known of the model; goes into the description.
        last: L, tokens of the whole prompt; the context is cut from the left to fit.
        window: W, tokens that each token sees, itself included.

    Raises:
        ValueError: a model that cannot be read in parts, or a window that does not fit it.
    """

    def __init__(
        self,
        name: str,
        facts: dict[str, Any],
        model: PreTrainedModel,
        codec: Codec,
        *,
        last: int | None = None,
        window: int | None = None,
    ):
        self.name, self.model, self.codec = name, model, codec
        self.last, self.window = last, window
        self._kept: tuple[list[int], DynamicCache] = ([], self._new_cache())
        kind = "full attention"
        if last is not None:
            kind = f"the last {last:,} tokens"
        elif window is not None:
            kind = f"sliding window of {window:,} tokens"
        self.description = {"kind": kind, **facts, "longest_prompt": max_positions(model)}
        check_parts(name, model)
        if window is not None:
            _check_window(name, model, window)

    def answer(self, before: str, pieces: Iterable[str], after: str, max_new_tokens: int) -> str:
        """See `Runner.answer`."""
        before = self.codec.prefix + before
        ids = self._prompt(before, pieces, after + self.codec.suffix, max_new_tokens)
        shared = (
            0 if self.window is not None else shared_start([*self.codec.start, *self.codec.encode(before)], ids[:-1])
        )
        return self.codec.decode(self._generate(ids, shared, max_new_tokens))

    def _prompt(self, before: str, pieces: Iterable[str], after: str, new: int) -> list[int]:
        if self.last is not None:
            ids = self._last_tokens(before, pieces, after, self.last)
        elif self.window is not None and self._is_boundless():
            ids = list(deque(self._tokens(before, pieces, after), maxlen=self._reach(self.window)))
        else:
            ids = self._all_tokens(before, pieces, after, new)
        room = self._room()
        if room is not None and len(ids) + new > room:
            raise TooLong(f"{len(ids):,} tokens and {new} new ones, and the model takes {room:,}")
        return ids

    def _is_boundless(self) -> bool:
        """Whether a window keeps all that matters small, which are distances: so it is with rotary positions."""
        return self.window is not None and _only_distances(self.model)

    def _room(self) -> int | None:
        return None if self._is_boundless() else max_positions(self.model)

    def _reach(self, window: int) -> int:
        """Tokens that can have any influence on the last one."""
        return self.model.config.get_text_config().num_hidden_layers * (window - 1) + 1

    def _tokens(self, before: str, pieces: Iterable[str], after: str) -> Iterable[int]:
        yield from self.codec.start
        stream = self.codec.stream()
        for piece in chain((before,), pieces, (after,)):
            stream, ids = stream.push(piece)
            yield from ids
        yield from stream.end()[1]

    def _all_tokens(self, before: str, pieces: Iterable[str], after: str, new: int) -> list[int]:
        room, ids = self._room(), []
        for token in self._tokens(before, pieces, after):
            ids.append(token)
            if room is not None and len(ids) + new > room:  # the rest is not read: it may be millions
                raise TooLong(f"more than {room - new:,} tokens and {new} new ones, and the model takes {room:,}")
        return ids

    def _last_tokens(self, before: str, pieces: Iterable[str], after: str, last: int) -> list[int]:
        """The whole prompt if it fits, else all that is before the context and then the last tokens of the prompt."""
        head = [*self.codec.start, *self.codec.encode(before)]
        need = len(head) + len(self.codec.encode(after))
        if need > last:
            raise ValueError(
                f"{self.name}: the instruction and the question alone have {need} tokens, more than the {last} of "
                f"@last:{last}: give it a greater number"
            )
        # Of one stream, for a token may hold the end of one part and the start of the next.
        kept = list(deque(self._tokens(before, pieces, after), maxlen=last + 1))
        return kept if len(kept) <= last else [*head, *kept[len(head) + 1 :]]

    @torch.no_grad()
    def _generate(self, ids: list[int], shared: int, max_new_tokens: int) -> list[int]:
        """The answer; the first `shared` tokens are run apart, so that it is the same whatever was asked before."""
        cache = self._after(ids[:shared])
        logits_V = self._feed(ids[shared:], shared, cache)
        read = len(ids)

        def feed(token: int) -> Tensor:
            nonlocal read
            read += 1
            return self._run([token], read - 1, cache)

        return greedy(logits_V, feed, self.codec.stop, max_new_tokens)

    def _after(self, head: list[int]) -> DynamicCache:
        if self._kept[0] != head:
            cache = self._new_cache()
            self._feed(head, 0, cache)
            self._kept = (head, cache)
        return deepcopy(self._kept[1])

    def _new_cache(self) -> DynamicCache:
        return DynamicCache() if self.window is not None else DynamicCache(config=self.model.config)

    def _feed(self, tokens: list[int], read: int, cache: DynamicCache) -> Tensor:
        logits_V = torch.empty(0)
        for start in range(0, len(tokens), CHUNK):
            logits_V = self._run(tokens[start : start + CHUNK], read + start, cache)
        return logits_V

    def _run(self, tokens: list[int], read: int, cache: DynamicCache) -> Tensor:
        """Logits (V,) after the tokens that stand at positions `read`, `read` + 1, ..."""
        device = self.model.device
        ids_BQ = torch.tensor([tokens], device=device)
        position_BQ = torch.arange(read, read + len(tokens), device=device)[None]
        mask = None
        if self.window is not None:
            mask = window_mask(cache.get_seq_length(), len(tokens), self.window).to(device, self.model.dtype)
        logits = self.model(
            input_ids=ids_BQ,
            attention_mask=mask,
            position_ids=position_BQ,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        if self.window is not None:
            _trim(cache, self.window - 1)
        return logits[0, -1]


@torch.no_grad()
def reads_in_parts(model: PreTrainedModel) -> bool:
    """Whether `PROBE` tokens give the same in one call as in two, of which the second goes on from the first's cache.

    Models with a state of their own (Mamba, RWKV) take the cache without a word, and forget what they have read. One
    with a memory goes on from its own.
    """
    if has_memory(model):
        return True
    ids_BQ = torch.arange(PROBE, device=model.device)[None] % model.config.get_text_config().vocab_size
    whole_V = model(ids_BQ, use_cache=False).logits[0, -1].float()
    cache = DynamicCache(config=model.config)
    model(ids_BQ[:, : PROBE // 2], past_key_values=cache, use_cache=True)
    parts_V = model(ids_BQ[:, PROBE // 2 :], past_key_values=cache, use_cache=True).logits[0, -1].float()
    most = MOST_ROUNDED if model.dtype == torch.float32 else MOST_ROUNDED_HALF
    return bool((whole_V - parts_V).std() <= most * whole_V.std())


def check_parts(name: str, model: PreTrainedModel) -> None:
    """Raises ValueError if a model cannot be read in parts; see `reads_in_parts`."""
    if not reads_in_parts(model):
        raise ValueError(
            f"{name} is a {model.config.model_type}, which forgets what it read in the call before: {PROBE} tokens in "
            "two calls give other numbers than in one; ask a model that goes on from past_key_values"
        )


def _check_window(name: str, model: PreTrainedModel, window: int) -> None:
    if other := [layer for layer in DynamicCache(config=model.config).layers if type(layer) not in WINDOWED]:
        raise ValueError(
            f"{name} has {len(other)} layers that are not attention alone, and their state is of the whole text: leave "
            f"out @window:{window}"
        )
    own = getattr(model.config, "sliding_window", None)
    if own is not None and window > own:
        raise ValueError(f"{name} was trained with a window of {own} tokens, less than {window}: ask for @window:{own}")


def window_mask(cached: int, queries: int, window: int) -> Tensor:
    """What is added to attention scores (B, 1, Q, K): 0 for the `window` keys up to the query's own, else very low."""
    query_Q1 = torch.arange(cached, cached + queries)[:, None]
    distance_QK = query_Q1 - torch.arange(cached + queries)
    seen_QK = (distance_QK >= 0) & (distance_QK < window)
    return torch.zeros(seen_QK.shape).masked_fill(~seen_QK, torch.finfo(torch.float16).min)[None, None]


def max_positions(model: PreTrainedModel) -> int | None:
    """Tokens that full attention can take, None with a memory or if the configuration names no limit."""
    return None if has_memory(model) else getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _only_distances(model: PreTrainedModel) -> bool:
    rope = getattr(model.config.get_text_config(), "rope_parameters", None)
    return isinstance(rope, dict) and rope.get("rope_type", "default") in BOUNDLESS_ROPE


def _trim(cache: DynamicCache, keep: int) -> None:
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        start = max(0, layer.keys.shape[-2] - keep)
        layer.keys, layer.values = layer.keys[..., start:, :], layer.values[..., start:, :]
