"""A simulator of qa4: three rooms in a line, two facts about them, and one question.

The office is north of the kitchen.     The garden is south of the kitchen.     What is north of the kitchen?
"""

from lm2.data.babi import PLACES, Question
from lm2.data.dice import Dice

OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
MIDDLE_LAST = 2 / 3
"""Share of facts that name the middle room last; the room named last is the one that can be asked about."""


class Rooms:
    """Two facts, told one by one, and the questions about them."""

    n_facts = 2
    n_questions = 1

    def __init__(self, task: str, dice: Dice):
        self.dice = dice
        self.facts: list[str] = []
        side = dice.pick(tuple(OPPOSITE))
        rooms = list(PLACES)
        first, middle, last = (rooms.pop(int(dice.uniform() * len(rooms))) for _ in range(3))
        told = [self._tell(first, side, middle), self._tell(last, OPPOSITE[side], middle)]
        self._told = told if dice.uniform() < 0.5 else told[::-1]

    def _tell(self, room: str, side: str, middle: str) -> tuple[str, str, str]:
        return (room, side, middle) if self.dice.uniform() < MIDDLE_LAST else (middle, OPPOSITE[side], room)

    def step(self) -> None:
        """The next fact."""
        room, side, other = self._told[len(self.facts)]
        self.facts.append(f"The {room} is {side} of the {other}.")

    def question(self) -> Question | None:
        """A question about one of the facts told so far, in one of two forms."""
        if not self.facts:
            return None
        index = int(self.dice.uniform() * len(self.facts))
        room, side, other = self._told[index]
        if self.dice.uniform() < 0.5:
            return Question(f"What is {side} of the {other}?", room, (index,))
        return Question(f"What is the {other} {OPPOSITE[side]} of?", room, (index,))
