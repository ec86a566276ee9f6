"""What people carry and gave, and through which places things came: qa2, qa3, qa5, qa7 and qa8.

The files hold a few questions of qa5 that their facts leave open: "What did Bill give to Mary?" when he gave her the
football and shortly after the apple. Answered here is the later thing; the files draw one of the two, so 2 questions of
`test` and 18 of `en-10k` `train` (1 of them in `en`) have the earlier one.
"""

from collections.abc import Sequence

from lm2.data.solver.events import Event, events

_NUMBERS = ("none", "one", "two", "three")


def _ways(facts: Sequence[str]) -> dict[str, list[str]]:
    """The places of each thing in order, as far as told: it goes where its holder goes."""
    place: dict[str, str] = {}
    holder: dict[str, str] = {}
    ways: dict[str, list[str]] = {}
    for event in events(facts):
        (person,) = event.who
        if event.kind == "at":
            place[person] = event.what
            for thing in (thing for thing, by in holder.items() if by == person):
                ways[thing].append(event.what)
        elif event.kind == "take":
            holder[event.what] = person
            way = ways.setdefault(event.what, [])
            if person in place and way[-1:] != [place[person]]:
                way.append(place[person])
        elif event.kind == "drop":
            holder.pop(event.what, None)
    return ways


def where_is_thing(facts: Sequence[str], thing: str) -> str | None:
    """The place of a thing."""
    way = _ways(facts).get(thing)
    return way[-1] if way else None


def where_was_thing(facts: Sequence[str], thing: str, place: str) -> str | None:
    """The place of a thing before its last stay at `place`."""
    way = _ways(facts).get(thing, [])
    stays = [at for at in range(1, len(way)) if way[at] == place]
    return way[stays[-1] - 1] if stays else None


def _carried(facts: Sequence[str], person: str) -> list[str] | None:
    """What a person holds, in the order it first came to hand; None if nothing was told of it."""
    holds: dict[str, bool] = {}
    for event in events(facts):
        if event.kind in ("take", "drop", "give") and person in (*event.who, event.other):
            holds[event.what] = event.kind == "take" or event.other == person
    return [thing for thing, held in holds.items() if held] if holds else None


def how_many(facts: Sequence[str], person: str) -> str | None:
    """How many things a person carries, as a word."""
    held = _carried(facts, person)
    return None if held is None else _NUMBERS[len(held)]


def what_carried(facts: Sequence[str], person: str) -> str | None:
    """The things a person carries, with commas between them, or "nothing"."""
    held = _carried(facts, person)
    return None if held is None else ",".join(held) or "nothing"


def _gift(facts: Sequence[str], giver: str = "", thing: str = "", receiver: str = "") -> Event | None:
    """The latest giving that has the named parts, where of each thing only its last giving counts."""
    last: dict[str, Event] = {}
    for event in events(facts):
        if event.kind == "give":
            last.pop(event.what, None)
            last[event.what] = event
    fitting = [
        gift
        for gift in last.values()
        if giver in ("", gift.who[0]) and thing in ("", gift.what) and receiver in ("", gift.other)
    ]
    return fitting[-1] if fitting else None


def what_given(facts: Sequence[str], giver: str, receiver: str) -> str | None:
    """What one person gave to another."""
    gift = _gift(facts, giver=giver, receiver=receiver)
    return gift.what if gift else None


def who_gave(facts: Sequence[str], thing: str, receiver: str | None) -> str | None:
    """Who gave a thing (to somebody)."""
    gift = _gift(facts, thing=thing, receiver=receiver or "")
    return gift.who[0] if gift else None


def who_received(facts: Sequence[str], thing: str) -> str | None:
    """Who was given a thing."""
    gift = _gift(facts, thing=thing)
    return gift.other if gift else None


def given_to(facts: Sequence[str], giver: str, thing: str) -> str | None:
    """To whom a person gave a thing."""
    gift = _gift(facts, giver=giver, thing=thing)
    return gift.other if gift else None


RULES = {
    "qa2": {r"Where is the (\w+)\?": where_is_thing},
    "qa3": {r"Where was the (\w+) before the (\w+)\?": where_was_thing},
    "qa5": {
        r"What did (\w+) give to (\w+)\?": what_given,
        r"Who gave the (\w+)(?: to (\w+))?\?": who_gave,
        r"Who received the (\w+)\?": who_received,
        r"Who did (\w+) give the (\w+) to\?": given_to,
    },
    "qa7": {r"How many objects is (\w+) carrying\?": how_many},
    "qa8": {r"What is (\w+) carrying\?": what_carried},
}
