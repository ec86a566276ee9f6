"""Where people are. qa1, qa6, qa9 (no longer there), qa10 (here or there), qa11, qa12 and qa13 (pronouns, pairs).

What was told last of a person holds.
"""

from collections.abc import Sequence

from lm2.data.solver.events import Event, events


def _last_told(facts: Sequence[str], person: str) -> Event | None:
    told = None
    for event in events(facts):
        if person in event.who and event.kind in ("at", "not at", "either at"):
            told = event
    return told


def where_is(facts: Sequence[str], person: str) -> str | None:
    """The place of a person."""
    told = _last_told(facts, person)
    return told.what if told and told.kind == "at" else None


def is_in(facts: Sequence[str], person: str, place: str) -> str | None:
    """Whether a person is at a place: yes, no or maybe."""
    told = _last_told(facts, person)
    if told is None:
        return None
    if told.kind == "not at":
        return "no" if told.what == place else None
    if told.kind == "either at":
        return "maybe" if place in (told.what, told.other) else "no"
    return "yes" if told.what == place else "no"


_WHERE = {r"Where is (\w+)\?": where_is}
_WHETHER = {r"Is (\w+) in the (\w+)\?": is_in}
RULES = {
    **dict.fromkeys(("qa1", "qa11", "qa12", "qa13"), _WHERE),
    **dict.fromkeys(("qa6", "qa9", "qa10"), _WHETHER),
}
