"""A simulator of the bAbI tasks qa1 to qa10: unlimited stories with the words and habits of the real ones.

Four people walk between six places and (but for qa1) take, drop and (qa5, qa7) give three objects. The world has a
hidden true state; a question is asked only when the facts told so far decide its answer, one of them recently, and its
support names those.

* qa1   Where is Mary?                               one fact: her last move
* qa2   Where is the milk?                           two: the last take or drop, and the move that brought it there
* qa3   Where was the milk before the office?        three: that, and the move to the place before
* qa4   What is north of the kitchen?                one: see `rooms.py`
* qa5   Who gave the milk to Bill?                   one: the last giving of the milk
* qa6   Is Mary in the kitchen?                      one: her last move
* qa7   How many objects is Mary carrying?           every take, drop and giving of hers
* qa8   What is Mary carrying?                       the same
* qa9, qa10   Is Mary in the kitchen?                one: what was told of her last, see `rumours.py`

Shares of moves, takes, drops and givings and "there" suffixes follow the real files, and questions stand where theirs
do: after every second fact, whenever one can be asked (see `questions`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lm2.data.babi import ACTORS, MOVE, OBJECTS, PLACES, Question, Story
from lm2.data.dice import Dice
from lm2.data.questions import ASK
from lm2.data.rooms import Rooms
from lm2.data.rumours import Rumours

TAKE = ("got", "grabbed", "took", "picked up")
DROP = ("left", "dropped", "discarded", "put down")
GIVE = ("gave", "handed", "passed")
GIVERS = ("Mary", "Bill", "Fred", "Jeff")


@dataclass(frozen=True)
class Habits:
    """How one task tells its stories."""

    take: float
    """Weight of taking an object that lies at hand; a move of one person weighs 1."""
    drop: float
    """Weight of dropping an object that is carried."""
    take_there: float
    """Share of takes that end in "there"."""
    give: float = 0
    """Weight of all givings together when somebody can give."""
    actors: tuple[str, ...] = ACTORS


HABITS = {
    "qa1": Habits(take=0, drop=0, take_there=0),
    "qa2": Habits(take=1.0, drop=1.1, take_there=1),
    "qa3": Habits(take=1.0, drop=1.1, take_there=0.2),
    "qa5": Habits(take=1.0, drop=1.1, take_there=1, give=4.8, actors=GIVERS),
    "qa6": Habits(take=1.0, drop=1.1, take_there=1),
    "qa7": Habits(take=1.0, drop=1.1, take_there=1, give=4.8),
    "qa8": Habits(take=1.0, drop=1.1, take_there=1),
}
DROP_THERE = 0.2


class World:
    """The true state, what has been told of it, and the questions that can be asked now: qa1-qa3 and qa5-qa8."""

    def __init__(self, task: str, dice: Dice):
        if task not in HABITS:
            raise ValueError(f"Unknown task {task!r}: a world can be simulated for {', '.join(HABITS)}.")
        self.task, self.dice, self.habits = task, dice, HABITS[task]
        self.facts: list[str] = []
        self.place = {actor: dice.pick(PLACES) for actor in self.habits.actors}
        self.lies = {thing: dice.pick(PLACES) for thing in OBJECTS}
        self.holder: dict[str, str] = {}
        self.told: dict[str, tuple[str, int]] = {}
        """Actor -> (place, index of the fact that told it)."""
        self.brought: dict[str, tuple[str, int]] = {}
        """Object -> (place, index of the move) of who touched it last, where that was told."""
        self.carry: dict[str, list[tuple[str, int]]] = {}
        """Object -> (place, index) of each move with it since it was last taken."""
        self.touched: dict[str, int] = {}
        """Object -> index of its last take, drop or giving."""
        self.handled: dict[str, list[tuple[str, int]]] = {}
        """Actor -> (object, index) of each take, drop and giving of theirs, either side."""
        self.deeds: list[tuple[str, int]] = []
        """(actor, index) of each take, drop and giving."""
        self.gifts: dict[str, tuple[str, str, int]] = {}
        """Object -> (giver, receiver, index) of its last giving."""

    def step(self) -> None:
        """One more event, told as one more fact."""
        actors, habits = self.habits.actors, self.habits
        takes = [(a, o) for o in OBJECTS if o not in self.holder for a in actors if self.place[a] == self.lies[o]]
        drops = list(self.holder.items())
        gifts = self._possible_gifts() if habits.give else []
        weight = len(actors) + habits.take * len(takes) + habits.drop * len(drops) + habits.give * bool(gifts)
        u = self.dice.uniform() * weight
        if u < len(actors):
            return self._move(actors[int(u)])
        u -= len(actors)
        if u < habits.take * len(takes):
            return self._take(*takes[int(u / habits.take)])
        u -= habits.take * len(takes)
        if gifts and u < habits.give:
            return self._give(*self.dice.pick(gifts))
        return self._drop(*self.dice.pick(drops))

    def _possible_gifts(self) -> list[tuple[str, str, str]]:
        place = self.place
        return [(o, a, b) for o, a in self.holder.items() for b in place if b != a and place[a] == place[b]]

    def _move(self, actor: str) -> None:
        place = self.dice.pick([p for p in PLACES if p != self.place[actor]])
        self.place[actor], self.told[actor] = place, (place, len(self.facts))
        for thing, holder in self.holder.items():
            if holder == actor:
                self.brought[thing] = self.told[actor]
                self.carry[thing].append(self.told[actor])
        self.facts.append(f"{actor} {self.dice.pick(MOVE)} the {place}.")

    def _take(self, actor: str, thing: str) -> None:
        self.holder[thing], self.carry[thing] = actor, []
        self._tell(actor, TAKE, thing, self.habits.take_there)

    def _drop(self, thing: str, actor: str) -> None:
        del self.holder[thing]
        self.lies[thing] = self.place[actor]
        self._tell(actor, DROP, thing, DROP_THERE)

    def _give(self, thing: str, giver: str, receiver: str) -> None:
        self.holder[thing] = receiver
        self.gifts[thing] = giver, receiver, len(self.facts)
        self._touch(thing, giver, receiver)
        self.facts.append(f"{giver} {self.dice.pick(GIVE)} the {thing} to {receiver}.")

    def _tell(self, actor: str, verbs: tuple[str, ...], thing: str, there: float) -> None:
        self._touch(thing, actor)
        if actor in self.told:
            self.brought[thing] = self.told[actor]
        else:
            self.brought.pop(thing, None)
        suffix = " there" if self.dice.uniform() < there else ""
        self.facts.append(f"{actor} {self.dice.pick(verbs)} the {thing}{suffix}.")

    def _touch(self, thing: str, *actors: str) -> None:
        self.touched[thing] = len(self.facts)
        self.deeds.append((actors[0], len(self.facts)))
        for actor in actors:
            self.handled.setdefault(actor, []).append((thing, len(self.facts)))

    def question(self) -> Question | None:
        """A question the facts decide, drawn at random; None if there is none yet."""
        return ASK[self.task](self)


class Simulator(Protocol):
    """What tells a story fact by fact: `World`, `Rooms` or `Rumours`."""

    dice: Dice
    facts: list[str]

    def step(self) -> None: ...
    def question(self) -> Question | None: ...


SIMULATORS: dict[str, Callable[[str, Dice], Simulator]] = {
    **dict.fromkeys(HABITS, World),
    "qa4": Rooms,
    **dict.fromkeys(("qa9", "qa10"), Rumours),
}
TASKS = tuple(sorted(SIMULATORS, key=lambda task: int(task[2:])))
"""The tasks that can be simulated."""
MOST_FACTS = {"qa4": Rooms.n_facts}
"""Where a story cannot go on for ever."""


def _simulator(task: str, rng: np.random.Generator) -> Simulator:
    if task not in SIMULATORS:
        raise ValueError(f"Unknown task {task!r}: stories can be simulated for {', '.join(TASKS)}.")
    return SIMULATORS[task](task, Dice(rng))


def simulate(task: str, rng: np.random.Generator, n_questions: int | None = None) -> Story:
    """A story like those in the files: `n_questions` questions, each after an even number of facts.

    None is the number in the files: 1 for qa4 (which has no more), 5 for the others.

    Raises:
        ValueError: unknown task, or more than one question of qa4.
    """
    world = _simulator(task, rng)
    if n_questions is None:
        n_questions = Rooms.n_questions if task == "qa4" else 5
    if task == "qa4" and n_questions > Rooms.n_questions:
        raise ValueError(f"A story of qa4 has one question, not {n_questions}: simulate more stories.")
    questions: list[tuple[int, Question]] = []
    while len(questions) < n_questions:
        world.step()
        world.step()
        if (question := world.question()) is not None:
            questions.append((len(world.facts), question))
    return Story(tuple(world.facts), tuple(questions))


def simulate_dense(task: str, rng: np.random.Generator, n_facts: int) -> Story:
    """A story of exactly `n_facts` facts with a question after every fact from which one can be answered.

    Raises:
        ValueError: unknown task, or more than two facts of qa4.
    """
    world = _simulator(task, rng)
    if n_facts > (most := MOST_FACTS.get(task, n_facts)):
        raise ValueError(f"A story of {task} has at most {most} facts, not {n_facts}: ask for fewer facts.")
    questions: list[tuple[int, Question]] = []
    for position in range(1, n_facts + 1):
        world.step()
        question = world.question()
        if question is not None:
            questions.append((position, question))
    return Story(tuple(world.facts), tuple(questions))
