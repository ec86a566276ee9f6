"""What holds for all of a kind: deduction (qa15) and induction (qa16)."""

import re
from collections.abc import Sequence

_SINGULAR = {"mice": "mouse", "wolves": "wolf", "cats": "cat", "sheep": "sheep"}
_AFRAID = re.compile(r"(\w+) are afraid of (\w+)\.")
_KIND = re.compile(r"(\w+) is an? (\w+)\.")
_COLOR = re.compile(r"(\w+) is (\w+)\.")


def afraid_of(facts: Sequence[str], name: str) -> str | None:
    """What an animal fears: what all of its kind fear."""
    kind: dict[str, str] = {}
    fears: dict[str, str] = {}
    for fact in facts:
        if match := _AFRAID.fullmatch(fact):
            fears[_SINGULAR[match[1].lower()]] = _SINGULAR[match[2]]
        elif match := _KIND.fullmatch(fact):
            kind[match[1].lower()] = match[2]
        else:
            raise ValueError(f"Not a fact about kinds of animals: {fact!r}.")
    return fears.get(kind.get(name.lower(), ""))


def color_of(facts: Sequence[str], name: str) -> str | None:
    """The color of an animal: that of its kind; where they differ, of the one whose kind was told last."""
    kind: dict[str, str] = {}
    color: dict[str, str] = {}
    for fact in facts:
        if match := _KIND.fullmatch(fact):
            kind[match[1]] = match[2]
        elif match := _COLOR.fullmatch(fact):
            color[match[1]] = match[2]
        else:
            raise ValueError(f"Not a fact about kinds and colors: {fact!r}.")
    alike = [other for other in kind if kind[other] == kind.get(name) and other in color]
    return color[alike[-1]] if alike else None


RULES = {
    "qa15": {r"What is (\w+) afraid of\?": afraid_of},
    "qa16": {r"What color is (\w+)\?": color_of},
}
