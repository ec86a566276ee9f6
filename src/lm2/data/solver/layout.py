"""How places and shapes lie to each other and boxes fit: qa4, qa17, qa18 and qa19."""

import re
from collections import deque
from collections.abc import Sequence

_STEPS = {
    **{"east": (1, 0), "west": (-1, 0), "north": (0, 1), "south": (0, -1)},
    **{"to the right": (1, 0), "to the left": (-1, 0), "above": (0, 1), "below": (0, -1)},
}
_LETTERS = {(1, 0): "e", (-1, 0): "w", (0, 1): "n", (0, -1): "s"}
_SIDE = "north|south|east|west|above|below|to the left|to the right"
_LIES = re.compile(rf"The (.+) is ({_SIDE})(?: of)? the (.+)\.")
_FITS = re.compile(r"The (.+) fits inside the (.+)\.")
_BIGGER = re.compile(r"The (.+) is bigger than the (.+)\.")

Step = tuple[int, int]


def _neighbours(facts: Sequence[str]) -> dict[str, dict[str, Step]]:
    """For each place the places told to lie beside it, with the step that leads there."""
    beside: dict[str, dict[str, Step]] = {}
    for fact in facts:
        match = _LIES.fullmatch(fact)
        if match is None:
            raise ValueError(f"Not a fact about how things lie: {fact!r}.")
        x, y = _STEPS[match[2]]
        beside.setdefault(match[3], {})[match[1]] = (x, y)
        beside.setdefault(match[1], {})[match[3]] = (-x, -y)
    return beside


def _path(facts: Sequence[str], start: str, goal: str) -> list[Step] | None:
    """The steps of the shortest way from one place to another."""
    beside = _neighbours(facts)
    paths: dict[str, list[Step]] = {start: []}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for place, step in beside.get(here, {}).items():
            if place not in paths:
                paths[place] = [*paths[here], step]
                queue.append(place)
    return paths.get(goal)


def what_lies(facts: Sequence[str], side: str, place: str) -> str | None:
    """What lies on one side of a place."""
    found = [other for other, step in _neighbours(facts).get(place, {}).items() if step == _STEPS[side]]
    return found[0] if len(found) == 1 else None


def what_of(facts: Sequence[str], place: str, side: str) -> str | None:
    """What a place lies on one side of."""
    x, y = _STEPS[side]
    found = [other for other, step in _neighbours(facts).get(place, {}).items() if step == (-x, -y)]
    return found[0] if len(found) == 1 else None


def how_to_go(facts: Sequence[str], start: str, goal: str) -> str | None:
    """The way from place to place as letters with commas between them."""
    path = _path(facts, start, goal)
    return ",".join(_LETTERS[step] for step in path) if path is not None else None


def lies(facts: Sequence[str], shape: str, side: str, other: str) -> str | None:
    """Whether a shape lies on one side of another; every "above" or "left" told is one step, the same for all."""
    path = _path(facts, other, shape)
    if path is None:
        return None
    x, y = _STEPS[side]
    return "yes" if sum(a * x + b * y for a, b in path) > 0 else "no"


def is_bigger(facts: Sequence[str], large: str, small: str) -> str | None:
    """Whether one thing is bigger than another, through any number of things between."""
    inside: dict[str, set[str]] = {}
    for fact in facts:
        if match := _FITS.fullmatch(fact):
            inside.setdefault(match[2], set()).add(match[1])
        elif match := _BIGGER.fullmatch(fact):
            inside.setdefault(match[1], set()).add(match[2])
        else:
            raise ValueError(f"Not a fact about sizes: {fact!r}.")
    if small in _smaller(inside, large):
        return "yes"
    return "no" if large in _smaller(inside, small) else None


def _smaller(inside: dict[str, set[str]], large: str) -> set[str]:
    found: set[str] = set()
    rest = [large]
    while rest:
        new = inside.get(rest.pop(), set()) - found
        found |= new
        rest.extend(new)
    return found


def fits(facts: Sequence[str], small: str, large: str) -> str | None:
    """Whether one thing fits in another: the other is bigger."""
    return is_bigger(facts, large, small)


RULES = {
    "qa4": {
        r"What is (north|south|east|west) of the (\w+)\?": what_lies,
        r"What is the (\w+) (north|south|east|west) of\?": what_of,
    },
    "qa17": {rf"Is the (.+) ({_SIDE})(?: of)? the (.+)\?": lies},
    "qa18": {r"Is the (.+) bigger than the (.+)\?": is_bigger, r"Does the (.+) fit in the (.+)\?": fits},
    "qa19": {r"How do you go from the (\w+) to the (\w+)\?": how_to_go},
}
