"""Facts about people in plain sentences, told once in the text of books, and questions about them.

    ... Konrad lives in Vienna. ... Alma keeps a goat. ... Question: Where does Konrad live? Answer: Vienna.

A story is told fact by fact; no two of its facts are about the same thing of the same person, so a fact stays true.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm2.data.babi import Question, Story

NAMES = ("Alma", "Bruno", "Cyril", "Delia", "Edgar", "Flora", "Gustav", "Hilda", "Ivor", "Judith", "Konrad", "Lydia")
MOST = 10
"""Facts of a story, at most."""


@dataclass(frozen=True)
class Relation:
    """Something that is told of people: sentences that say it, the question about it, and the words that answer it."""

    told: tuple[str, ...]
    asked: str
    words: str

    @property
    def values(self) -> tuple[str, ...]:
        """What it can be."""
        return tuple(self.words.split())


RELATIONS = (
    Relation(
        ("{name} lives in {value}.", "{name} has a small house in {value}.", "{name} has come back to {value}."),
        "Where does {name} live?",
        "London Paris Rome Madrid Vienna Berlin Dublin Lisbon Oslo Athens Prague Moscow",
    ),
    Relation(
        ("{name} works as a {value}.", "{name} earned a living as a {value}.", "{name} had always been a {value}."),
        "What is the trade of {name}?",
        "baker doctor farmer lawyer sailor teacher painter soldier tailor miller butcher carpenter",
    ),
    Relation(
        ("{name} keeps a {value}.", "{name} has bought a {value}.", "{name} went nowhere without a {value}."),
        "Which animal does {name} have?",
        "dog cat horse goat rabbit parrot pony sheep donkey goose pig cow",
    ),
    Relation(
        (
            "{name} always wears a {value} hat.",
            "{name} came in a {value} hat.",
            "{name} was known by a {value} hat.",
        ),
        "What colour is the hat of {name}?",
        "red blue green yellow white black brown grey purple orange pink scarlet",
    ),
    Relation(
        (
            "{name} plays the {value}.",
            "{name} practised the {value} all day.",
            "{name} was learning the {value}.",
        ),
        "Which instrument does {name} play?",
        "piano violin flute harp drum trumpet guitar organ cello horn fiddle bugle",
    ),
    Relation(
        ("{name} likes {value} best.", "{name} lived on {value}.", "{name} asked everybody for {value}."),
        "What does {name} like to eat?",
        "bread cheese soup fish rice cake apples beef honey butter eggs plums",
    ),
)
"""Names come first in every sentence: what is told is known at its last words."""


def words() -> tuple[str, ...]:
    """What is a single token in a tokenizer made for these facts: names, values, and the words of the questions."""
    asked = (word for relation in RELATIONS for word in relation.asked.removesuffix("?").split() if word != "{name}")
    values = (value for relation in RELATIONS for value in relation.values)
    return tuple(dict.fromkeys((*NAMES, *values, *asked, "Question", "Answer")))


def tell(n_facts: int, rng: np.random.Generator) -> Story:
    """A story of so many facts (at most 72), after each a question about any fact so far."""
    chosen = rng.choice(len(NAMES) * len(RELATIONS), n_facts, replace=False)
    facts, questions = _told([divmod(int(one), len(RELATIONS)) for one in chosen], rng)
    return Story(facts, tuple((n, questions[int(rng.integers(n))]) for n in range(1, n_facts + 1)))


def tell_alike(n_people: int, rng: np.random.Generator) -> Story:
    """The same thing told of so many people (at most 12), then a question about each: only the name tells which."""
    relation = int(rng.integers(len(RELATIONS)))
    people = rng.choice(len(NAMES), n_people, replace=False)
    facts, questions = _told([(int(name), relation) for name in people], rng)
    return Story(facts, tuple((n_people, questions[int(i)]) for i in rng.permutation(n_people)))


def _told(about: Sequence[tuple[int, int]], rng: np.random.Generator) -> tuple[tuple[str, ...], list[Question]]:
    """Facts about (name, relation) and the question that each of them answers."""
    facts: list[str] = []
    questions: list[Question] = []
    for number, (name, kind) in enumerate(about):
        relation = RELATIONS[kind]
        value, sentence = (str(rng.choice(options)) for options in (relation.values, relation.told))
        facts.append(sentence.format(name=NAMES[name], value=value))
        asked = f"Question: {relation.asked.format(name=NAMES[name])} Answer:"
        questions.append(Question(asked, value, (number,)))
    return tuple(facts), questions


@dataclass(frozen=True)
class Stories(Sequence[Story]):
    """So many different stories, each made when it is looked up: of 1 to `most` facts, or pairs."""

    seed: int
    most: int = MOST
    pairs: bool = False
    size: int = 2**31

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(f"there are {self.size} stories, and number {index} was asked for")
        rng = np.random.default_rng([self.seed, index])
        return tell_alike(2, rng) if self.pairs else tell(1 + int(rng.integers(self.most)), rng)
