"""Rows that say more than answers: what shall be known on the way, and in which slot of a memory it shall be kept.

A label stands where the next token's would (see `lm2.data.rows`). Where it is another token than the one it stands at,
it is something to be known and no answer. Slots are packed into the same number, see `Note`.

    ... John moved to the garden.     at "garden"  known: where John was; slots: John's, and that of John in the garden
    ... John left the milk there.     at "there"   known: where John is; slots: the milk's
    Where was the milk before the garden? kitchen
                                      at "garden"  known: who has the milk or left it; slot: the milk's
                                      at "?"       slot: that of John in the garden
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lm2.data.babi import ACTORS, MOVE, OBJECTS, PLACES, Question, Story
from lm2.data.rooms import OPPOSITE
from lm2.data.rows import IGNORED, Encoder, Item
from lm2.data.world import DROP, TAKE
from lm2.reproduce.rows import JointRows

TASKS = ("qa1", *3 * ("qa2",), *4 * ("qa3",), *2 * ("qa4",), "qa5")
"""A row's task is one of these."""
MOVED_ON, BESIDE = 0.6, 0.5
"""Shares of qa2's stories that shall end with a dropped thing whose carrier moved on, and of qa4's whose facts both end
with the same room, so that the direction decides."""
DRAWS = 6
"""Stories that are drawn for one such."""
TOKENS, SLOTS = 2**16, 2**8
"""More than there are in any vocabulary, and in any bank of these rows' slots."""
PAIRS = len(ACTORS) * len(PLACES)


class Note(NamedTuple):
    """What is asked of a token beside its answer; None is not asked.

    known: the word that shall be known there. first, last: the slots of the first and of the last memory that it shall
    be read and written with.
    """

    known: str | None = None
    first: int | None = None
    last: int | None = None


NOTHING = Note()


def packed(label: int, first: int | None, last: int | None) -> int:
    """A label with slots; one of IGNORED, where nothing is to be known, is 0 beside them."""
    slots = sum((slot + 1) * unit for slot, unit in ((first, 1), (last, SLOTS)) if slot is not None)
    return max(label, 0) + TOKENS * slots if slots else label


def unpacked(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, slots of the first and slots of the last memory; IGNORED where there is none."""
    slots = labels.clamp(min=0) // TOKENS
    plain = torch.where((slots > 0) & (labels % TOKENS == 0), IGNORED, labels.where(slots == 0, labels % TOKENS))
    return plain, *(torch.where(slot > 0, slot - 1, IGNORED) for slot in (slots % SLOTS, slots // SLOTS))


def moved_on(facts: Sequence[str], question: Question) -> bool:
    """Whether a dropped thing is asked for whose carrier has moved since."""
    touched = question.support[0]
    actor, _, deed = facts[touched].partition(" ")
    moves = tuple(f"{actor} {verb}" for verb in MOVE)
    return deed.startswith(DROP) and any(fact.startswith(moves) for fact in facts[touched + 1 :])


def places(facts: Sequence[str], asked: Sequence[tuple[int, Question]]) -> list[str | None]:
    """Of each fact of taking or dropping where its actor was before it, None where that was not told.

    Also of each move where qa3 asks, and of no fact where no question asks for a place.
    """
    asks_where = any(question.text.startswith("Where is the") for _, question in asked)
    asks_before = any(question.text.startswith("Where was the") for _, question in asked)
    needed = (*(TAKE + DROP if asks_where or asks_before else ()), *(MOVE if asks_before else ()))
    at: dict[str, str] = {}
    found = []
    for fact in facts:
        actor, _, deed = fact.rstrip(".").partition(" ")
        found.append(at.get(actor) if deed.startswith(needed) else None)
        if deed.startswith(MOVE):
            at[actor] = deed.split()[-1]
    return found


def slots_of(fact: str) -> tuple[int | None, int | None]:
    """The slots of a fact in the first and in the last memory: of who moves and where to, or of what is touched.

    The first memory keeps for each of the four people where they are, for each thing who touched it; the last keeps
    things by the thing and moves by both, so that a later move to another place leaves them.
    """
    actor, *_, word = fact.removesuffix(" there.").rstrip(".").split()
    if word in OBJECTS:
        thing = OBJECTS.index(word)
        return len(ACTORS) + thing, PAIRS + thing
    if actor in ACTORS and word in PLACES:
        return ACTORS.index(actor), len(PLACES) * ACTORS.index(actor) + PLACES.index(word)
    return None, None


class Told(str):
    """A fact, and what is asked at its last word."""

    note: Note

    @classmethod
    def of(cls, fact: str, note: Note) -> "Told":
        told = cls(fact)
        told.note = note
        return told


@dataclass(frozen=True, slots=True)
class Asked(Question):
    """A question, what is asked at its last word, and which slot of the last memory its mark shall read."""

    note: Note = NOTHING
    read: int | None = None

    @classmethod
    def of(cls, facts: Sequence[str], question: Question) -> "Asked":
        """One of qa2 or qa3: who touched the thing last leads to the answer, or where it was dropped."""
        plain = question.text, question.answer, question.support
        if not question.text.startswith(("Where is the", "Where was the")):
            return cls(*plain)
        last_touch = facts[question.support[0]]
        first, dropped_at = slots_of(last_touch)
        actor, _, deed = last_touch.partition(" ")
        if question.text.startswith("Where was"):
            return cls(*plain, Note(actor, first), slots_of(facts[question.support[1]])[1])
        dropped = deed.startswith(DROP)
        return cls(*plain, Note(None if dropped else actor, first), dropped_at if dropped else None)


def room_questions(facts: Sequence[str]) -> list[Asked]:
    """Every question that qa4 can ask of its facts, two forms of each: known shall be on which side it looks."""
    found = []
    for index, fact in enumerate(facts):
        _, room, _, side, *_, other = fact.rstrip(".").split()
        found.append(Asked(f"What is {side} of the {other}?", room, (index,), Note(side)))
        found.append(Asked(f"What is the {other} {OPPOSITE[side]} of?", room, (index,), Note(side)))
    return found


class TaughtEncoder(Encoder):
    """Puts what is asked at a last word on the mark behind it, where the next token's label stands."""

    def item(self, event: str | Question) -> Item:
        ids, labels = super().item(event)
        if isinstance(event, Told):
            return ids, self.noted(labels, len(ids) - 1, event.note)
        if isinstance(event, Asked):
            return ids, self.asked(labels, len(self(f" {event.text}")) - 1, event)
        return ids, labels

    def asked(self, labels: Sequence[int], mark: int, question: Asked) -> list[int]:
        """The labels with those of a question, whose answer follows its mark."""
        noted = self.noted(labels, mark, question.note)
        return self.noted(noted, mark + 1, Note(None, None, question.read))

    def noted(self, labels: Sequence[int], at: int, note: Note) -> list[int]:
        """The labels with a note at a place."""
        label = labels[at] if note.known is None else self(f" {note.known}")[0]
        return [*labels[:at], packed(label, note.first, note.last), *labels[at + 1 :]]


class TaughtRows(JointRows):
    """The reproduction's rows, with more of what LM2 gets wrong and with labels at facts."""

    def __init__(self, tokenizer: Any, pool: Any, segment_length: int, stories: Any):
        super().__init__(tokenizer, pool, segment_length, stories)
        self.tasks, self.encode = TASKS, TaughtEncoder(tokenizer)

    def _story(self, task: str, n_facts: int, draw: np.random.Generator) -> Story:
        story = super()._story(task, n_facts, draw)
        if task == "qa2" and draw.random() < MOVED_ON:
            return self._that_moved_on(story, n_facts, draw)
        if task == "qa4" and draw.random() < BESIDE:
            for _ in range(DRAWS):
                if len({fact.split()[-1] for fact in story.facts}) < len(story.facts):
                    break
                story = super()._story(task, 2, draw)
        return story

    def _that_moved_on(self, story: Story, n_facts: int, draw: np.random.Generator) -> Story:
        """A story up to its last question for what was left behind, where a few draws give one."""
        for _ in range(DRAWS):
            for last, (at, question) in reversed([*enumerate(story.questions)]):
                if moved_on(story.facts[:at], question):
                    return Story(story.facts[:at], story.questions[: last + 1])
            story = super()._story("qa2", n_facts, draw)
        return story

    def _written(self, story: Story, n_questions: int, width: int, draw: np.random.Generator) -> Item | None:
        facts = story.facts
        if " of the " in facts[0]:
            every, notes = room_questions(facts), [Note(fact.split()[3]) for fact in facts]
            asked = tuple((len(facts), every[i]) for i in draw.permutation(len(every)))
        else:
            asked = tuple((at, Asked.of(facts, question)) for at, question in story.questions)
            known = places(facts, asked)
            notes = [Note(place, *slots_of(fact)) for fact, place in zip(facts, known, strict=True)]
        return super()._written(Story(tuple(map(Told.of, facts, notes)), asked), n_questions, width, draw)

    def _closing(self, question: Question) -> Item:
        ids, labels = super()._closing(question)
        if isinstance(question, Asked):
            labels = self.encode.asked(labels, len(ids) - 3, question)  # answer and end token follow
        return ids, labels
