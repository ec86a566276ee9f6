"""A text, questions about it, and what each answer owes to which place: what was read, and the answer without it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm2.analysis.asking import ROWS, answer, probabilities, unwritten
from lm2.analysis.places import Encoded, encode, places_of
from lm2.analysis.results import Answer, Asked, Look, Place, Tried, most_read
from lm2.analysis.trace import Read, Trace, follow

Progress = Callable[[int], Any]
FLOOR = 0.01
"""A token of a complete segment is written with rho above it."""


def look(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    questions: Sequence[str] = (),
    without: int = 3,
    max_new_tokens: int = 8,
    done: Callable[[int, int], Any] | None = None,
) -> Look:
    """Read a text, ask about it, and say what was written, what was read, and what the answers are without it.

    What was read is told by what is kept, added and attended to (`lm2.analysis.provenance`), which is no proof that an
    answer needed it. So the text is read again without writing one place: each of the `without` that were read most,
    these together, one that was written and hardly read (the control), and without writing anything.

    Args:
        model: LM2, in evaluation mode.
        text: as the model is to read it; the tokenizer puts its start token before it.
        questions: each follows the text by itself. Without any only what is written is told.
        done: told after each piece how many tokens have been read, and how many will be in all.

    Raises:
        ValueError: an empty text or question, a tokenizer without offsets, or a model without a memory.
    """
    if not all(question.strip() for question in questions):
        raise ValueError("a question is empty: give at least one word, or leave it out")
    if without < 0 or max_new_tokens < 1:
        raise ValueError(f"{without} places to leave out and {max_new_tokens} new tokens: at least 0 and 1 are needed")
    encoded = encode(tokenizer, text)
    passes = 1 + len(questions) * -(-(without + 3) // ROWS)
    progress = _counted(done, passes * len(encoded.ids))
    followed = Text(model, tokenizer, encoded, progress)
    return Look(
        places=followed.described(),
        tokens=len(encoded.ids),
        floor=FLOOR,
        segment_length=model.config.segment_length,
        layers=list(model.config.memory_indices),
        mass_BSN=followed.mass_BSN(),
        answers=[followed.ask(question, without, max_new_tokens, progress) for question in questions],
    )


def _counted(done: Callable[[int, int], Any] | None, total: int) -> Progress | None:
    """What is told the tokens of a piece, and tells those of all pieces so far."""
    if done is None:
        return None
    read = 0

    def add(tokens: int) -> None:
        nonlocal read
        read += tokens
        done(read, total)

    return add


class Text:
    """A text that was read, with what the memories did on the way.

    written_to: the end of its last complete segment. What follows is not written before a question completes it.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, encoded: Encoded, done: Progress | None = None):
        self.model, self.tokenizer = model, tokenizer
        self.ids_L = torch.from_numpy(encoded.ids).to(model.device)
        self.trace = follow(model, self.ids_L, Trace.begin(model), done=done)
        self.written_to = self.trace.tokens - self.trace.tokens % model.config.segment_length
        written_L = torch.cat(self.trace.written, 1).amax(0).cpu().numpy()
        written_L[self.written_to :] = 0
        self.places = places_of(encoded, written_L, FLOOR)
        self.written_P = self.places.greatest(written_L)

    def described(self) -> list[Place]:
        """Its places, in order."""
        places, visible = self.places, self.written_to - self.model.config.look_back
        return [
            Place(
                places.before(i),
                places.text(i),
                places.at(i),
                int(first),
                int(past - first),
                places.before_tokens(i),
                float(rho),
                bool(past > visible),
            )
            for i, (first, past, rho) in enumerate(zip(places.first, places.past, self.written_P, strict=True))
        ]

    def mass_BSN(self) -> np.ndarray:
        """What was written to each slot, by memory and segment."""
        sources = self.trace.sources
        if not self.trace.masses:
            return np.zeros((len(sources), 0, sources[0].start_HN.shape[1]))
        return torch.stack(self.trace.masses, 1).cpu().numpy()

    def ask(self, question: str, without: int, max_new_tokens: int, done: Progress | None = None) -> Answer:
        """Answer a question after the text, as `look` says."""
        question_L = self.question_L(question)
        read = Read.of_calls(follow(self.model, question_L, self.trace, reads=True).reads)
        part_t = read.size_t / read.size_t.sum().clamp_min(1e-12)
        read_P = self._by_place(part_t @ read.share_tL)
        answer_A = answer(self.model, question_L, self.trace.cache, max_new_tokens)
        chosen = most_read(read_P, without)
        single = [*chosen, *self._control(read_P, chosen)]
        choices = [None, chosen, *([place] for place in single)]
        nothing, together, *found = self.without(question_L, answer_A, choices, done)
        return Answer(
            question=question,
            text=str(self.tokenizer.decode(answer_A)),
            probability=float(probabilities(self.model, question_L, answer_A, self.trace.cache)),
            nothing_written=nothing,
            together=together,
            tried=[Tried(place, p, place not in chosen) for place, p in zip(single, found, strict=True)],
            read_P=read_P,
            start=float(part_t @ read.start_t),
            tokens=[
                self._asked(*token)
                for token in zip(question_L.tolist(), read.size_t.tolist(), read.share_tL, strict=True)
            ],
        )

    def _by_place(self, share_L: Tensor) -> np.ndarray:
        return self.places.sums(share_L[: len(self.ids_L)].cpu().numpy())

    def _asked(self, token: int, size: float, share_L: Tensor) -> Asked:
        share_P, text = self._by_place(share_L), str(self.tokenizer.decode([token]))
        if not share_P.any():
            return Asked(text, size, None, 0.0)
        return Asked(text, size, int(share_P.argmax()), float(share_P.max()))

    def question_L(self, question: str) -> Tensor:
        """The tokens of a question that follows the text."""
        encoded: Any = self.tokenizer(question, return_tensors="pt", add_special_tokens=False)
        return encoded.input_ids[0].to(self.model.device)

    def without(
        self,
        question_L: Tensor,
        answer_A: Tensor,
        choices: Sequence[Sequence[int] | None],
        done: Progress | None = None,
    ) -> list[float]:
        """The probability of an answer when the places of a choice are not written, or nothing is, for each choice."""
        closed_RL = [self._tokens_of(places) for places in choices]
        return unwritten(self.model, self.ids_L, closed_RL, question_L, answer_A, done)

    def _control(self, read_P: np.ndarray, chosen: list[int]) -> list[int]:
        """The place that is written most of the half that is read least; none if all are chosen."""
        rest = [place for place in np.argsort(read_P, kind="stable").tolist() if place not in chosen]
        least = rest[: -(-len(rest) // 2)]
        return [max(least, key=lambda place: self.written_P[place])] if least else []

    def _tokens_of(self, places: Sequence[int] | None) -> Tensor:
        """True for the tokens of these places, or for all tokens."""
        chosen_L = torch.full_like(self.ids_L, places is None, dtype=torch.bool)
        for place in places or ():
            chosen_L[self.places.first[place] : self.places.past[place]] = True
        return chosen_L
