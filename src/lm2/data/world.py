"""A simulator of the bAbI world for qa1, qa2 and qa3: unlimited stories with the words and habits of the real ones.

Four people walk between six places and (qa2, qa3) take and drop three objects. The world has a hidden true state; a
question is asked only when the facts told so far decide its answer, one of them recently, and its support names those.

* qa1  Where is Mary?                               one fact: her last move
* qa2  Where is the milk?                           two: the last take or drop, and the move that brought it there
* qa3  Where was the milk before the office?        three: that, and the move to the place before

Shares of moves, takes and drops, "there" suffixes and gaps between questions follow the real files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm2.data.babi import ACTORS, OBJECTS, PLACES, Question, Story

MOVE = ("went to", "went back to", "moved to", "journeyed to", "travelled to")
TAKE = ("got", "grabbed", "took", "picked up")
DROP = ("left", "dropped", "discarded", "put down")


@dataclass(frozen=True)
class Habits:
    """How one task tells its stories."""

    take: float
    """Weight of taking an object that lies at hand; a move of one person weighs 1."""
    drop: float
    """Weight of dropping an object that is carried."""
    take_there: float
    """Share of takes that end in "there"."""
    ask: float
    """Chance of a question after every second fact."""
    ask_again: float
    """The same when the last chance was used."""


HABITS = {
    "qa1": Habits(take=0, drop=0, take_there=0, ask=1, ask_again=1),
    "qa2": Habits(take=1.0, drop=1.1, take_there=1, ask=0.7, ask_again=0.85),
    "qa3": Habits(take=1.0, drop=1.1, take_there=0.2, ask=0.12, ask_again=0.65),
}
DROP_THERE = 0.2
RECENT = 5
"""A question is asked only while its latest supporting fact is among this many last facts."""
ASK_LATEST = 0.8
"""Share of qa3 questions about the last place of the object, against an earlier one."""


class Dice:
    """Cheap single draws: uniforms are taken from the generator in blocks."""

    def __init__(self, rng: np.random.Generator):
        self._rng, self._block = rng, []

    def uniform(self) -> float:
        if not self._block:
            self._block = self._rng.random(64).tolist()
        return self._block.pop()

    def pick(self, options: Sequence):
        return options[int(self.uniform() * len(options))]


class World:
    """The true state, what has been told of it, and the questions that can be asked now."""

    def __init__(self, task: str, dice: Dice):
        if task not in HABITS:
            raise ValueError(f"Unknown task {task!r}: stories can be simulated for {', '.join(HABITS)}.")
        self.task, self.dice, self.habits = task, dice, HABITS[task]
        self.facts: list[str] = []
        self.place = {actor: dice.pick(PLACES) for actor in ACTORS}
        self.lies = {thing: dice.pick(PLACES) for thing in OBJECTS}
        self.holder: dict[str, str] = {}
        self.told: dict[str, tuple[str, int]] = {}
        """Actor -> (place, index of the fact that told it)."""
        self.path: dict[str, list[tuple[str, int]]] = {thing: [] for thing in OBJECTS}
        """Object -> its known places in order, each with the index of the move that brought it there."""
        self.touched: dict[str, int] = {}
        """Object -> index of its last take or drop."""

    def step(self) -> None:
        """One more event, told as one more fact."""
        takes = [(a, o) for o in OBJECTS if o not in self.holder for a in ACTORS if self.place[a] == self.lies[o]]
        drops = list(self.holder.items())
        u = self.dice.uniform() * (len(ACTORS) + self.habits.take * len(takes) + self.habits.drop * len(drops))
        if u < len(ACTORS):
            return self._move(ACTORS[int(u)])
        u -= len(ACTORS)
        if u < self.habits.take * len(takes):
            return self._take(*takes[int(u / self.habits.take)])
        return self._drop(*self.dice.pick(drops))

    def _move(self, actor: str) -> None:
        place = self.dice.pick([p for p in PLACES if p != self.place[actor]])
        self.place[actor], self.told[actor] = place, (place, len(self.facts))
        for thing, holder in self.holder.items():
            if holder == actor:
                self.path[thing].append(self.told[actor])
        self.facts.append(f"{actor} {self.dice.pick(MOVE)} the {place}.")

    def _take(self, actor: str, thing: str) -> None:
        self.holder[thing] = actor
        path = self.path[thing]
        if actor in self.told and (not path or path[-1][0] != self.told[actor][0]):
            path.append(self.told[actor])
        self._tell(actor, TAKE, thing, self.habits.take_there)

    def _drop(self, thing: str, actor: str) -> None:
        del self.holder[thing]
        self.lies[thing] = self.place[actor]
        self._tell(actor, DROP, thing, DROP_THERE)

    def _tell(self, actor: str, verbs: tuple[str, ...], thing: str, there: float) -> None:
        self.touched[thing] = len(self.facts)
        suffix = " there" if self.dice.uniform() < there else ""
        self.facts.append(f"{actor} {self.dice.pick(verbs)} the {thing}{suffix}.")

    def question(self) -> Question | None:
        """A question the facts decide, drawn at random; None if there is none yet."""
        if self.task == "qa1":
            return self._where_is_actor()
        hops = 1 if self.task == "qa2" else 2
        known = [o for o in OBJECTS if len(self.path[o]) >= hops and self._settled(o)]
        if not known:
            return None
        thing = self.dice.pick(known)
        return self._where_is_object(thing) if self.task == "qa2" else self._where_was_object(thing)

    def _recent(self, index: int) -> bool:
        return len(self.facts) - index <= RECENT

    def _settled(self, thing: str) -> bool:
        """As in the real files: an object just taken is not asked for before its holder has moved."""
        moved, touched = self.path[thing][-1][1], self.touched[thing]
        return self._recent(max(moved, touched)) and (thing not in self.holder or moved > touched)

    def _where_is_actor(self) -> Question | None:
        actors = [actor for actor, (_, index) in self.told.items() if self._recent(index)]
        if not actors:
            return None
        actor = self.dice.pick(actors)
        place, index = self.told[actor]
        return Question(f"Where is {actor}?", place, (index,))

    def _where_is_object(self, thing: str) -> Question:
        place, moved = self.path[thing][-1]
        return Question(f"Where is the {thing}?", place, (self.touched[thing], moved))

    def _where_was_object(self, thing: str) -> Question:
        path = self.path[thing]
        at = len(path) - 1
        if self.dice.uniform() > ASK_LATEST:
            place = path[1 + int(self.dice.uniform() * at)][0]
            # "before the office" means before the last time it came to the office
            at = max(i for i, (p, _) in enumerate(path) if p == place)
        (before, came), (place, moved) = path[at - 1], path[at]
        return Question(f"Where was the {thing} before the {place}?", before, (self.touched[thing], moved, came))


def simulate(task: str, rng: np.random.Generator, n_questions: int = 5) -> Story:
    """A story like those in the files: `n_questions` questions, each after an even number of facts."""
    world = World(task, Dice(rng))
    questions: list[tuple[int, Question]] = []
    asked = False
    while len(questions) < n_questions:
        world.step()
        world.step()
        chance = world.habits.ask_again if asked else world.habits.ask
        question = world.question() if world.dice.uniform() < chance else None
        asked = question is not None
        if question is not None:
            questions.append((len(world.facts), question))
    return Story(tuple(world.facts), tuple(questions))


def simulate_dense(task: str, rng: np.random.Generator, n_facts: int) -> Story:
    """A story of exactly `n_facts` facts with a question after every fact from which one can be answered."""
    world = World(task, Dice(rng))
    questions: list[tuple[int, Question]] = []
    for position in range(1, n_facts + 1):
        world.step()
        question = world.question()
        if question is not None:
            questions.append((position, question))
    return Story(tuple(world.facts), tuple(questions))
