"""What can be asked of a simulated world now, with the answer and the facts that decide it: qa1-qa3 and qa5-qa8.

Each function draws one question that the facts told so far decide, or gives None when there is none. As in the files, a
question is asked only while its latest supporting fact (of a thing: the one that touched it last) is among the last
`RECENT` facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lm2.data.babi import OBJECTS, PLACES, Question

if TYPE_CHECKING:
    from lm2.data.world import World

RECENT = 5
"""A question is asked only while its latest supporting fact is among this many last facts."""
ASK_THING = 1 / 3
"""Share of qa5 questions about the thing given, against those about giver or receiver."""
NUMBERS = ("none", "one", "two", "three")


def is_recent(n_facts: int, index: int) -> bool:
    """Whether a fact is near enough to be asked about after `n_facts` facts."""
    return n_facts - index <= RECENT


def _recently_moved(world: World) -> str | None:
    actors = [actor for actor, (_, index) in world.told.items() if is_recent(len(world.facts), index)]
    return world.dice.pick(actors) if actors else None


def where_is_actor(world: World) -> Question | None:
    actor = _recently_moved(world)
    if actor is None:
        return None
    place, index = world.told[actor]
    return Question(f"Where is {actor}?", place, (index,))


def is_actor_there(world: World) -> Question | None:
    actor = _recently_moved(world)
    if actor is None:
        return None
    place, index = world.told[actor]
    if world.dice.uniform() < 0.5:
        return Question(f"Is {actor} in the {place}?", "yes", (index,))
    other = world.dice.pick([p for p in PLACES if p != place])
    return Question(f"Is {actor} in the {other}?", "no", (index,))


def _recently_touched(world: World, settled: Mapping[str, bool]) -> str | None:
    """One of the settled things that were taken or dropped recently."""
    n_facts, touched = len(world.facts), world.touched
    known = [thing for thing in OBJECTS if settled.get(thing) and is_recent(n_facts, touched[thing])]
    return world.dice.pick(known) if known else None


def where_is_object(world: World) -> Question | None:
    """As in the files, a thing just taken is not asked for before its holder has moved."""
    brought = world.brought
    settled = {thing: thing not in world.holder or at > world.touched[thing] for thing, (_, at) in brought.items()}
    thing = _recently_touched(world, settled)
    if thing is None:
        return None
    place, moved = brought[thing]
    return Question(f"Where is the {thing}?", place, (world.touched[thing], moved))


def where_was_object(world: World) -> Question | None:
    """As in the files, who touched the thing last has carried it to both places since it was taken."""
    thing = _recently_touched(world, {thing: len(carry) > 1 for thing, carry in world.carry.items()})
    if thing is None:
        return None
    carry = world.carry[thing]
    asked, _ = world.dice.pick(carry[1:])
    # "before the office" means before the last time it came to the office
    at = max(i for i, (place, _) in enumerate(carry) if place == asked)
    (before, came), (place, moved) = carry[at - 1], carry[at]
    return Question(f"Where was the {thing} before the {place}?", before, (world.touched[thing], moved, came))


def about_gift(world: World) -> Question | None:
    recent = [thing for thing, (_, _, index) in world.gifts.items() if is_recent(len(world.facts), index)]
    if not recent:
        return None
    thing = world.dice.pick(recent)
    giver, receiver, index = world.gifts[thing]
    # The files also ask this when he has given her another thing since; the facts then leave it open.
    single = all(gift[:2] != (giver, receiver) for other, gift in world.gifts.items() if other != thing)
    if single and world.dice.uniform() < ASK_THING:
        return Question(f"What did {giver} give to {receiver}?", thing, (index,))
    text, answer = world.dice.pick(
        (
            (f"Who gave the {thing}?", giver),
            (f"Who gave the {thing} to {receiver}?", giver),
            (f"Who received the {thing}?", receiver),
            (f"Who did {giver} give the {thing} to?", receiver),
        )
    )
    return Question(text, answer, (index,))


def _recently_handled(world: World) -> str | None:
    """Who did one of the recent takes, drops and givings; as in the files, the more of them the likelier."""
    recent = [actor for actor, index in world.deeds[-RECENT:] if is_recent(len(world.facts), index)]
    return world.dice.pick(recent) if recent else None


def how_many(world: World) -> Question | None:
    actor = _recently_handled(world)
    if actor is None:
        return None
    n = list(world.holder.values()).count(actor)
    support = tuple(index for _, index in world.handled[actor])
    return Question(f"How many objects is {actor} carrying?", NUMBERS[n], support)


def what_carried(world: World) -> Question | None:
    """The answer names things in the order in which they were first taken; the support is told thing by thing."""
    actor = _recently_handled(world)
    if actor is None:
        return None
    touches = world.handled[actor]
    things = list(dict.fromkeys(thing for thing, _ in touches))
    held = [thing for thing in things if world.holder.get(thing) == actor]
    support = tuple(index for thing in things for touched, index in touches if touched == thing)
    return Question(f"What is {actor} carrying?", ",".join(held) or "nothing", support)


ASK: dict[str, Callable[[World], Question | None]] = {
    "qa1": where_is_actor,
    "qa2": where_is_object,
    "qa3": where_was_object,
    "qa5": about_gift,
    "qa6": is_actor_there,
    "qa7": how_many,
    "qa8": what_carried,
}
