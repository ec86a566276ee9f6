"""Models with a memory: LM2, RMT and ARMT read segment by segment, and keep a state of constant size and no text.

A text is read into a `Reading`, a value that can be asked many times. Texts are read side by side, whole segments of
all of them in a call: a call for one text alone costs almost as much. What happens to the memory at the end of a
segment can be changed by a policy; this is how the controls of `lm2.evaluation.controls` are made.

Shape suffixes: R texts side by side, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm2.baselines.segments import SegmentedForCausalLM
from lm2.cache import LM2Cache, banks_of, with_banks
from lm2.evaluation.codec import Codec, TokenStream
from lm2.evaluation.runners.decoding import greedy
from lm2.memory import initial_bank
from lm2.modeling import LM2ForCausalLM

SEGMENTS_AT_ONCE = 32
"""Segments of a call, of all texts together."""

State = Any
"""`LM2Cache`, or the `SegmentState` of RMT and ARMT: the open segment and the memory."""
Policy = Callable[[State, State, int], State]
"""(state before a segment, state after it, its number from 1 on) -> the state to go on with."""


@dataclass(frozen=True)
class Reading:
    """A text read so far: the model's state, the logits after its last token, and the words not yet encoded.

    While texts are read side by side, state and logits have a row for each.
    """

    state: State
    logits_RV: Tensor | None
    stream: TokenStream
    tokens: int
    policy: Policy | None


class _Feed:
    """The tokens of a text on its way, which are made as they are needed."""

    def __init__(self, stream: TokenStream, pieces: Iterable[str]):
        self.stream, self._pieces, self._ids = stream, iter(pieces), list[int]()

    def ready(self, wanted: int) -> int:
        """How many tokens can be taken: as many as wanted, or more, or all that are left."""
        while len(self._ids) < wanted:
            piece = next(self._pieces, None)
            self.stream, ids = self.stream.settle() if piece is None else self.stream.push(piece)
            self._ids += ids
            if piece is None:
                break
        return len(self._ids)

    def take(self, tokens: int | None = None) -> list[int]:
        """The next tokens, all that are ready by default."""
        taken, self._ids = self._ids[:tokens], [] if tokens is None else self._ids[tokens:]
        return taken


def has_memory(model: PreTrainedModel) -> bool:
    """Whether the model carries a state from segment to segment."""
    return isinstance(model, (LM2ForCausalLM, SegmentedForCausalLM))


class StreamingRunner:
    """A model with a memory.

    Args:
        facts: what is known of the model; goes into the description.
    """

    def __init__(self, name: str, facts: dict[str, Any], model: PreTrainedModel, codec: Codec):
        self.name, self.model, self.codec = name, model, codec
        self.segment_length: int = model.config.segment_length
        self._kept: tuple[str, Reading] | None = None
        self.description = {"kind": "memory, segment by segment", "segment_length": self.segment_length, **facts}

    def answer(self, before: str, pieces: Iterable[str], after: str, max_new_tokens: int) -> str:
        """See `Runner.answer`."""
        return self.finish(self.read(before, pieces), after, max_new_tokens)

    def read(self, before: str, pieces: Iterable[str], policy: Policy | None = None) -> Reading:
        """Read a text up to the question: many segments in a call, or segment by segment under a policy."""
        return self.read_all(before, [pieces], policy)[0]

    def read_all(self, before: str, texts: Sequence[Iterable[str]], policy: Policy | None = None) -> list[Reading]:
        """Read texts side by side, as `read` reads each: whole segments together, and what is left of each alone."""
        opening = self._opening(before, policy)
        feeds = [_Feed(opening.stream, pieces) for pieces in texts]
        open_, done = list(range(len(feeds))), {}
        together = _part(opening, [0] * len(feeds))
        while open_:
            segments = self._whole_segments(together, [feeds[i] for i in open_])
            if ended := [row for row, n in enumerate(segments) if n == 0]:
                done |= {open_[row]: _part(together, [row]) for row in ended}
                kept = [row for row, n in enumerate(segments) if n > 0]
                together, open_ = _part(together, kept), [open_[row] for row in kept]
                continue
            tokens = min(segments) * self.segment_length - together.tokens % self.segment_length
            together = self._run(together, [feeds[i].take(tokens) for i in open_])
        return [self._feed(replace(done[i], stream=feed.stream), feed.take()) for i, feed in enumerate(feeds)]

    def _whole_segments(self, together: Reading, feeds: Sequence[_Feed]) -> list[int]:
        """How many segments of each text the next call can complete."""
        at_once = max(1, SEGMENTS_AT_ONCE // len(feeds)) if together.policy is None else 1
        begun = together.tokens % self.segment_length
        wanted = at_once * self.segment_length - begun
        return [min((begun + feed.ready(wanted)) // self.segment_length, at_once) for feed in feeds]

    def _opening(self, before: str, policy: Policy | None) -> Reading:
        """What stands before the text. It is that of all samples of a task, so it is kept from one to the next."""
        if policy is not None:
            return self._open(before, policy)
        if self._kept is None or self._kept[0] != before:
            self._kept = before, self._open(before, None)
        kept = self._kept[1]
        return replace(kept, state=_fork(kept.state))

    def _open(self, before: str, policy: Policy | None) -> Reading:
        stream, ids = self.codec.stream().push(self.codec.prefix + before)
        stream, rest = stream.settle()
        return self._feed(Reading(None, None, stream, 0, policy), [*self.codec.start, *ids, *rest])

    def segments(self, before: str, pieces: Iterable[str]) -> int:
        """Complete segments of a text up to the question, counted without running the model."""
        stream, tokens = self.codec.stream(), len(self.codec.start)
        for piece in chain((self.codec.prefix + before,), pieces):
            stream, ids = stream.push(piece)
            tokens += len(ids)
        tokens += len(stream.settle()[1])
        return tokens // self.segment_length

    def finish(self, state: Reading, after: str, max_new_tokens: int) -> str:
        """The greedy answer once `after` has been read too; the reading stays as it was."""
        stream, ids = state.stream.end(after + self.codec.suffix)
        reading = self._feed(replace(state, stream=stream, state=_fork(state.state)), ids)

        def feed(token: int) -> Tensor:
            nonlocal reading
            reading = self._feed(reading, [token])
            return _logits(reading)

        return self.codec.decode(greedy(_logits(reading), feed, self.codec.stop, max_new_tokens))

    def exchange(self, state: Reading, other: Reading) -> Reading:
        """The reading with the memory of another one; its open segment, the latest text, stays its own."""
        return replace(state, state=with_memory(self.model, state.state, other.state))

    def reset(self, before: State, after: State, number: int) -> State:
        """Policy: every segment begins with the start memory."""
        return with_memory(self.model, after, None)

    def frozen_after(self, last: int) -> Policy:
        """Policy: nothing is written after segment number `last`."""

        def policy(before: State, after: State, number: int) -> State:
            return after if number <= last else with_memory(self.model, after, before)

        return policy

    def _feed(self, reading: Reading, ids: list[int]) -> Reading:
        while ids:
            chunk = self._chunk(reading, len(ids))
            reading, ids = self._run(reading, [ids[:chunk]]), ids[chunk:]
        return reading

    def _chunk(self, reading: Reading, waiting: int) -> int:
        """Tokens of the next call: up to where the state is looked at, or up to the last border.

        What is behind that goes alone, because a call of several segments takes the time of whole ones.
        """
        T = self.segment_length
        read = reading.tokens % T
        if reading.policy is not None or read + waiting < T:
            return T - read
        return min((read + waiting) // T, SEGMENTS_AT_ONCE) * T - read

    @torch.no_grad()
    def _run(self, reading: Reading, ids: list[list[int]]) -> Reading:
        before = _fork(reading.state)
        output = self.model(
            torch.tensor(ids, device=self.model.device),
            past_key_values=reading.state,
            use_cache=True,
            logits_to_keep=1,
        )
        state, tokens = output.past_key_values, reading.tokens + len(ids[0])
        if reading.policy is not None and tokens % self.segment_length == 0:
            state = reading.policy(before, state, tokens // self.segment_length)
        return replace(reading, state=state, logits_RV=output.logits[:, -1], tokens=tokens)


def with_memory(model: PreTrainedModel, state: State, source: State | None) -> State:
    """`state` with the memory of `source`, the start memory if that is None; the open segment is kept."""
    assert state is not None, "a text of one word is not read before the question"
    if isinstance(state, LM2Cache):
        return _with_banks(state, source)
    assert isinstance(model, SegmentedForCausalLM)
    return replace(state, memory=(model.initial_state(len(state.count_B)) if source is None else source).memory)


def _with_banks(cache: LM2Cache, source: LM2Cache | None) -> LM2Cache:
    if source is not None and source.states:
        return with_banks(cache, banks_of(source))
    starts = [
        None if bank is None else initial_bank(*bank.shape[1:], device=bank.device).expand_as(bank)
        for bank in banks_of(cache)
    ]
    return with_banks(cache, starts)


def _fork(state: State) -> State:
    """A state that can be read on without touching the first; only an `LM2Cache` is an object that changes."""
    return state.copy() if isinstance(state, LM2Cache) else state


def _part(together: Reading, rows: list[int]) -> Reading:
    """Some rows of texts that are read side by side; a row can be named more than once."""
    if together.logits_RV is None:  # nothing has been read
        return together
    return replace(together, state=together.state.select(rows), logits_RV=together.logits_RV[rows])


def _logits(reading: Reading) -> Tensor:
    assert reading.logits_RV is not None, "a prompt has at least one token"
    return reading.logits_RV[0]
