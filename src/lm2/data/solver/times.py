"""Where people were at which time of day, told in any order: qa14."""

from collections.abc import Sequence

from lm2.data.solver.events import events

_TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


def where_before(facts: Sequence[str], person: str, place: str) -> str | None:
    """The place of a person at the time told before the last one spent at `place`."""
    told = [event for event in events(facts) if event.kind == "at" and person in event.who and event.time]
    way = [event.what for event in sorted(told, key=lambda event: _TIMES.index(event.time))]
    stays = [at for at in range(1, len(way)) if way[at] == place]
    return way[stays[-1] - 1] if stays else None


RULES = {"qa14": {r"Where was (\w+) before the (\w+)\?": where_before}}
