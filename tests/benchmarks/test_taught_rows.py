"""Rows that say more than answers: what shall be known is true, and the slots are those of what is told."""

import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm2.data.babi import ACTORS, MOVE, OBJECTS, PLACES, Question
from lm2.data.rooms import OPPOSITE
from lm2.data.rows import IGNORED
from lm2.data.world import DROP, TAKE, simulate_dense
from lm2.reproduce import material
from lm2.reproduce.sizes import SMOKE
from tests.benchmarks.scripts import script

taught = script("taught_rows")


def _facts(text: str) -> list[str]:
    return [f"{fact}." for fact in text.split(". ")]


CARRIED = _facts("John went to the office. John took the milk. John moved to the garden. Mary moved to the hallway")
STAYED = _facts("John went to the office. John took the milk. John dropped the milk. Mary moved to the hallway")
MOVED = _facts("John went to the office. John took the milk. John put down the milk there. John moved to the garden")


BEFORE = Question("Where was the milk before the office?", "garden", ())


@pytest.mark.parametrize(
    ("facts", "support", "expected"), [(CARRIED, (1, 2), False), (STAYED, (2, 0), False), (MOVED, (2, 0), True)]
)
def test_a_carrier_moved_on_who_dropped_the_thing_and_moved_later(facts, support, expected):
    assert taught.moved_on(facts, Question("Where is the milk?", "office", support)) is expected


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 40))
def test_where_a_thing_was_dropped_is_the_answer(seed, n_facts):
    """The simulator knows where everybody is; `places` has it from what was told of who dropped it."""
    story = simulate_dense("qa2", np.random.default_rng(seed), n_facts)
    known = taught.places(story.facts, story.questions)
    for _, question in story.questions:
        touched, brought = question.support
        actor, _, deed = story.facts[touched].partition(" ")
        if deed.startswith(DROP):
            assert known[touched] in (question.answer, None)
            assert known[touched] is not None or not story.facts[brought].startswith(actor)
    deeds = [fact.partition(" ")[2] for fact in story.facts]
    assert all(place is None for place, deed in zip(known, deeds, strict=True) if not deed.startswith((*TAKE, *DROP)))
    assert not any(taught.places(story.facts, []))


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 40))
def test_where_a_move_began_is_where_the_one_before_it_ended(seed, n_facts):
    story = simulate_dense("qa3", np.random.default_rng(seed), n_facts)
    moves = [(i, fact.split()[0]) for i, fact in enumerate(story.facts) if fact.partition(" ")[2].startswith(MOVE)]
    known = taught.places(story.facts, [(n_facts, BEFORE)])
    for index, actor in moves:
        before = [i for i, who in moves if who == actor and i < index]
        assert known[index] == (story.facts[before[-1]].rstrip(".").split()[-1] if before else None)


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 60))
def test_the_slots_of_a_question_of_qa2_are_those_of_its_facts(seed, n_facts):
    story = simulate_dense("qa2", np.random.default_rng(seed), n_facts)
    for _, question in story.questions:
        touched, brought = (story.facts[index] for index in question.support)
        asked = taught.Asked.of(story.facts, question)
        first, kept = taught.slots_of(touched)
        assert asked.note.first == first
        if touched.partition(" ")[2].startswith(DROP):
            assert (asked.note.known, asked.read) == (None, kept)
        else:  # it is where its carrier is
            assert (asked.note.known, asked.read) == (brought.split()[0], None)


@given(seed=st.integers(0, 2**32), n_facts=st.integers(4, 80))
def test_the_slots_of_a_question_of_qa3_are_those_of_its_facts(seed, n_facts):
    story = simulate_dense("qa3", np.random.default_rng(seed), n_facts)
    for at, question in story.questions:
        touched, brought, _ = (story.facts[index] for index in question.support)
        asked = taught.Asked.of(story.facts, question)
        assert asked.note == (brought.split()[0], taught.slots_of(touched)[0], None)
        latest = [i for i, fact in enumerate(story.facts[:at]) if taught.slots_of(fact)[1] == asked.read][-1]
        if latest == question.support[1]:  # and not a later visit without the thing
            known = taught.places(story.facts, [(at, question)])
            assert known[latest] == question.answer


def test_every_person_with_every_place_and_every_thing_has_a_slot_of_its_own():
    told = [f"{actor} {verb} the {place}." for actor in ACTORS for verb in MOVE[:2] for place in PLACES]
    told += [
        f"{actor} {verb} the {thing}{there}."
        for actor in ACTORS
        for verb in ("took", "put down")
        for thing in OBJECTS
        for there in ("", " there")
    ]
    slots = [taught.slots_of(fact) for fact in told]
    assert {last for _, last in slots} == {*range(len(ACTORS) * len(PLACES) + len(OBJECTS))}
    assert {first for first, _ in slots} == {*range(len(ACTORS) + len(OBJECTS))}
    assert len({fact.split()[0] for fact, (first, _) in zip(told, slots, strict=True) if first == 1}) == 1
    assert taught.slots_of("Mary gave the milk to Fred.") == (None, None)
    assert taught.slots_of("Bill went to the office.") == (None, None)


@given(
    label=st.one_of(st.just(IGNORED), st.integers(1, taught.TOKENS - 1)),
    first=st.one_of(st.none(), st.integers(0, 30)),
    last=st.one_of(st.none(), st.integers(0, 30)),
)
def test_labels_are_unpacked_as_they_were_packed(label, first, last):
    plain, *slots = (int(part) for part in taught.unpacked(torch.tensor(taught.packed(label, first, last))))
    assert (plain, *slots) == (label, *(IGNORED if slot is None else slot for slot in (first, last)))


@given(seed=st.integers(0, 2**32))
def test_every_question_about_rooms_is_one_the_simulator_may_ask(seed):
    story = simulate_dense("qa4", np.random.default_rng(seed), 2)
    asked = taught.room_questions(story.facts)
    assert len({question.text for question in asked}) == 4
    texts = {(question.text, question.answer, question.support) for question in asked}
    assert all((question.text, question.answer, question.support) in texts for _, question in story.questions)
    assert [question.note.known for question in asked] == [story.facts[index].split()[3] for index in (0, 0, 1, 1)]


@pytest.mark.parametrize("task", ["qa1", "qa5"])
def test_of_other_tasks_nothing_is_to_be_known(task):
    story = simulate_dense(task, np.random.default_rng(0), 40)
    assert story.questions
    assert not any(taught.places(story.facts, story.questions))
    assert all(taught.Asked.of(story.facts, question).note == taught.NOTHING for _, question in story.questions)


@pytest.fixture(scope="module")
def rows(reproduction):
    plain = material.training_rows(reproduction, SMOKE)
    tokenizer = material.load_tokenizer(reproduction)
    return taught.TaughtRows(tokenizer, plain.pool, plain.T, plain.stories)


@pytest.fixture(scope="module")
def decode(reproduction):
    tokenizer = material.load_tokenizer(reproduction)
    return lambda ids: tokenizer.decode(ids).strip()


def _made(rows, task: str, n: int = 40, kind: str = "scattered"):
    rows.tasks = (task,)
    return [rows.row(kind, 4, random.Random(i)) for i in range(n)]


@pytest.mark.parametrize(
    ("task", "marks", "known"),
    [
        ("qa1", set(), set()),
        ("qa2", {".", "?"}, {*ACTORS, *PLACES}),
        ("qa3", {".", "?"}, {*ACTORS, *PLACES}),
        ("qa4", {".", "?"}, {*OPPOSITE}),
        ("qa5", set(), set()),
    ],
)
def test_what_is_to_be_known_stands_at_the_mark_behind_a_fact_or_a_question(rows, decode, task, marks, known):
    found = [
        (decode(ids[: at + 1]), decode([label]))
        for ids, labels in _made(rows, task, 60)
        for at, label in enumerate(taught.unpacked(torch.tensor(labels))[0].tolist())
        if label not in (IGNORED, ids[at])
    ]
    assert {text[-1] for text, _ in found} == marks
    assert {label for _, label in found} == known
    for text, label in found if task == "qa4" else []:
        *_, asked = re.split(r"[.?] ", text)
        named = next(word for word in asked.split() if word in OPPOSITE)
        assert label == (OPPOSITE[named] if asked.endswith(" of?") else named)


@pytest.mark.parametrize("task", ["qa2", "qa3"])
def test_the_slots_stand_where_they_are_read_and_written(rows, decode, task):
    n_facts = n_questions = 0
    for ids, labels in _made(rows, task, 30):
        _, first_L, last_L = taught.unpacked(torch.tensor(labels))
        for at in (first_L != IGNORED).nonzero().flatten().tolist():  # a last word has this mark as the next token
            text = decode(ids[:at])
            if decode(ids[at : at + 1]) == "?":
                n_questions += 1
                thing = max(OBJECTS, key=lambda thing: text.rfind(f"the {thing}"))
                assert first_L[at] == len(ACTORS) + OBJECTS.index(thing)
            else:
                n_facts += 1
                told = re.search(rf".*\b(\w+ (?:{'|'.join((*MOVE, *TAKE, *DROP))}) [\w ]+)$", text, re.DOTALL)
                assert told, text[-60:]
                assert (first_L[at], last_L[at]) == taught.slots_of(f"{told[1]}.")
        for at in ((last_L != IGNORED) & (first_L == IGNORED)).nonzero().flatten().tolist():
            assert decode(ids[at - 1 : at]) == "?"
    assert n_facts > 30
    assert n_questions > 10


def test_rows_end_with_the_answer_as_the_reproductions_do(rows, decode):
    for task in ("qa2", "qa4"):
        for ids, labels in _made(rows, task, 10):
            plain, *_ = taught.unpacked(torch.tensor(labels))
            assert plain[-2:].tolist() == ids[-2:]
            assert decode(ids[-3:-2]) == "?"


def test_stories_of_qa2_mostly_end_with_a_thing_left_behind(rows):
    draw = np.random.default_rng(0)
    stories = [story for _ in range(200) if (story := rows._story("qa2", 16, draw)).questions]
    share = np.mean([taught.moved_on(s.facts[: s.questions[-1][0]], s.questions[-1][1]) for s in stories])
    assert 0.55 < share < 0.85


def test_stories_of_qa4_mostly_name_one_room_last(rows):
    draw = np.random.default_rng(0)
    stories = [rows._story("qa4", 2, draw) for _ in range(200)]
    assert 0.6 < np.mean([len({fact.split()[-1] for fact in story.facts}) == 1 for story in stories]) < 0.9
