"""Answers bAbI questions of qa1, qa2 and qa3 from the text alone; written apart from the simulator, to check it.

It replays the facts: who is where, who holds what, and through which places each object has come.
"""

import re
from collections.abc import Sequence

_MOVE = re.compile(r"(\w+) (?:went|went back|moved|journeyed|travelled) to the (\w+)\.")
_TAKE = re.compile(r"(\w+) (?:got|grabbed|took|picked up) the (\w+)(?: there)?\.")
_DROP = re.compile(r"(\w+) (?:left|dropped|discarded|put down) the (\w+)(?: there)?\.")
_QUESTION = {
    "qa1": re.compile(r"Where is (\w+)\?"),
    "qa2": re.compile(r"Where is the (\w+)\?"),
    "qa3": re.compile(r"Where was the (\w+) before the (\w+)\?"),
}


def solve(task: str, facts: Sequence[str], question: str) -> str:
    """The answer that `facts` give to `question`.

    Raises:
        ValueError: unknown task, a sentence the task does not have, or facts that do not decide the question.
    """
    if task not in _QUESTION:
        raise ValueError(f"Unknown task {task!r}: the solver knows {', '.join(_QUESTION)}.")
    match = _QUESTION[task].fullmatch(question.strip())
    if match is None:
        raise ValueError(f"Not a question of {task}: {question!r}.")
    people, things = _replay(facts)
    try:
        if task == "qa1":
            return people[match[1]]
        if task == "qa2":
            return things[match[1]][-1]
        return _before(things[match[1]], match[2])
    except (KeyError, IndexError):
        raise ValueError(f"The {len(facts)} facts do not decide {question!r}.") from None


def _replay(facts: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(place of each person, places of each object in order), as far as told."""
    people: dict[str, str] = {}
    things: dict[str, list[str]] = {}
    carried: dict[str, set[str]] = {}
    for fact in facts:
        if match := _MOVE.fullmatch(fact):
            people[match[1]] = match[2]
            for thing in carried.get(match[1], ()):
                things.setdefault(thing, []).append(match[2])
        elif match := _TAKE.fullmatch(fact):
            carried.setdefault(match[1], set()).add(match[2])
            seen = things.setdefault(match[2], [])
            if match[1] in people and seen[-1:] != [people[match[1]]]:
                seen.append(people[match[1]])
        elif match := _DROP.fullmatch(fact):
            carried[match[1]].discard(match[2])
        else:
            raise ValueError(f"Not a fact of qa1, qa2 or qa3: {fact!r}.")
    return people, things


def _before(places: list[str], place: str) -> str:
    """The place before the last stay at `place`."""
    last = len(places) - 1 - places[::-1].index(place) if place in places else 0
    if last == 0:
        raise IndexError
    return places[last - 1]
