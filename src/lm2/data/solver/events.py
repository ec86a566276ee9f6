"""Sentences about people, read into events."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

_WHO = r"(?P<who>\w+(?: and \w+)?)"
_THE = r"the (?P<what>\w+)"
_TIME = r"yesterday|this morning|this afternoon|this evening"
_FORMS = {
    "at": (
        rf"(?:(?:Afterwards|Then|After that|Following that|(?P<first>(?i:{_TIME}))) )?"
        rf"{_WHO} (?:went|went back|moved|journeyed|travelled) to {_THE}(?: (?P<last>{_TIME}))?\.",
        rf"{_WHO} is in {_THE}\.",
    ),
    "not at": (rf"{_WHO} is (?:not|no longer) in {_THE}\.",),
    "either at": (rf"{_WHO} is either in {_THE} or the (?P<other>\w+)\.",),
    "take": (rf"{_WHO} (?:got|grabbed|took|picked up) {_THE}(?: there)?\.",),
    "drop": (rf"{_WHO} (?:left|dropped|discarded|put down) {_THE}(?: there)?\.",),
    "give": (rf"{_WHO} (?:gave|handed|passed) {_THE} to (?P<other>\w+)\.",),
    "feel": (r"(?P<who>\w+) is (?P<what>\w+)\.",),
}
_PATTERNS = [(kind, re.compile(form)) for kind, forms in _FORMS.items() for form in forms]
_PRONOUNS = (("he",), ("she",), ("they",))


@dataclass(frozen=True, slots=True)
class Event:
    """Who did or is what: a place ("at", "not at", "either at"), a thing ("take", "drop", "give") or a state ("feel").

    `other` is the second place of "either at" and the receiver of "give"; `time` is "" or in lower case.
    """

    kind: str
    who: tuple[str, ...]
    what: str
    other: str = ""
    time: str = ""


def events(facts: Sequence[str]) -> Iterator[Event]:
    """The facts as events in order; "he", "she" and "they" are the people of the fact before.

    Raises:
        ValueError: a sentence of another form, or a pronoun with nobody before it.
    """
    who: tuple[str, ...] = ()
    for fact in facts:
        event = _read(fact)
        if event.who not in _PRONOUNS:
            who = event.who
        elif not who:
            raise ValueError(f"Nobody is named before {fact!r}.")
        yield replace(event, who=who)


@lru_cache(maxsize=4096)
def _read(fact: str) -> Event:
    for kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(fact):
            found = match.groupdict()
            time = found.get("first") or found.get("last") or ""
            return Event(
                kind, tuple(found["who"].split(" and ")), found["what"], found.get("other") or "", time.lower()
            )
    raise ValueError(f"Not a fact about people: {fact!r}.")
