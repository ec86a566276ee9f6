"""A simulator of qa9 and qa10: people walk, and what is told is sometimes only where they are not, or may be.

* qa9   Mary is no longer in the kitchen.                   Is Mary in the kitchen?   no
* qa10  Mary is either in the school or the cinema.         Is Mary in the school?    maybe

Every event is somebody's walk to another place. Half of the walks are told as such, a quarter as "Mary is in the
office"; the last quarter tells what was left (qa9) or two places of which one is true (qa10).
"""

from lm2.data.babi import ACTORS, MOVE, PLACES, Question
from lm2.data.dice import Dice
from lm2.data.questions import RECENT

LEFT = ("is not in", "is no longer in")
CAST = {
    "qa9": (ACTORS, PLACES),
    "qa10": (("Mary", "Bill", "Fred", "Julie"), ("bedroom", "cinema", "kitchen", "office", "park", "school")),
}


class Rumours:
    """Where people are, what was told last of each, and the questions about it."""

    def __init__(self, task: str, dice: Dice):
        self.task, self.dice = task, dice
        self.actors, self.places = CAST[task]
        self.facts: list[str] = []
        self.named: list[str] = []
        """The person of each fact."""
        self.place = {actor: dice.pick(self.places) for actor in self.actors}
        self.told: dict[str, tuple[int, tuple[str, ...]]] = {}
        """Actor -> (index of the last fact about them, the places of which one is true; none after "not in")."""
        self.left: dict[str, str] = {}
        """Actor -> the place they went away from."""

    def step(self) -> None:
        """One more walk, told in one of the ways."""
        actor = self.dice.pick(self.actors)
        self.left[actor] = self.place[actor]
        place = self.place[actor] = self._other_than(self.place[actor])
        way = self.dice.uniform()
        if way < 0.5:
            self._tell(actor, f"{actor} {self.dice.pick(MOVE)} the {place}.", (place,))
        elif way < 0.75:
            self._tell(actor, f"{actor} is in the {place}.", (place,))
        elif self.task == "qa9":
            self._tell(actor, f"{actor} {self.dice.pick(LEFT)} the {self.left[actor]}.", ())
        else:
            self._tell_either(actor)

    def _tell_either(self, actor: str) -> None:
        # the files name the same place twice in one of six, and still answer "maybe"
        places = (self.place[actor], self.dice.pick(self.places))
        one, other = places if self.dice.uniform() < 0.5 else places[::-1]
        self._tell(actor, f"{actor} is either in the {one} or the {other}.", places)

    def _tell(self, actor: str, fact: str, places: tuple[str, ...]) -> None:
        self.told[actor] = len(self.facts), places
        self.facts.append(fact)
        self.named.append(actor)

    def _other_than(self, place: str) -> str:
        return self.dice.pick([other for other in self.places if other != place])

    def question(self) -> Question | None:
        """Whether somebody of whom something was told lately is at a place."""
        if not self.facts:
            return None
        # as in the files: the more was told of somebody lately, the likelier the question
        actor = self.dice.pick(self.named[-RECENT:])
        index, told = self.told[actor]
        asked = self._asked(actor, told)
        sure = "yes" if len(told) == 1 else "maybe"
        return Question(f"Is {actor} in the {asked}?", sure if asked in told else "no", (index,))

    def _asked(self, actor: str, told: tuple[str, ...]) -> str:
        if not told:
            return self.left[actor]
        return self.place[actor] if self.dice.uniform() < 0.5 else self._other_than(self.place[actor])
