"""Why people go where they go and take what they take: qa20. What each state leads to is the world's rule."""

from collections.abc import Sequence

from lm2.data.solver.events import events

_PLACE = {"hungry": "kitchen", "thirsty": "kitchen", "tired": "bedroom", "bored": "garden"}
_THING = {"hungry": "apple", "thirsty": "milk", "tired": "pajamas", "bored": "football"}


def _states(facts: Sequence[str], person: str) -> list[str]:
    """What a person was told to be, in order."""
    return [event.what for event in events(facts) if event.kind == "feel" and event.who[0].lower() == person.lower()]


def where_will_go(facts: Sequence[str], person: str) -> str | None:
    """Where a person will go, being what they are."""
    states = _states(facts, person)
    return _PLACE.get(states[-1]) if states else None


def why_went(facts: Sequence[str], person: str, place: str) -> str | None:
    """The last told state of a person that leads to a place."""
    reasons = [state for state in _states(facts, person) if _PLACE.get(state) == place]
    return reasons[-1] if reasons else None


def why_took(facts: Sequence[str], person: str, thing: str) -> str | None:
    """The last told state of a person that leads to taking a thing."""
    reasons = [state for state in _states(facts, person) if _THING.get(state) == thing]
    return reasons[-1] if reasons else None


RULES = {
    "qa20": {
        r"Where will (\w+) go\?": where_will_go,
        r"Why did (\w+) go to the (\w+)\?": why_went,
        r"Why did (\w+) get the (\w+)\?": why_took,
    }
}
