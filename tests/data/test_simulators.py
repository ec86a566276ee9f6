"""Simulated stories of qa4 to qa10 against the real files and the solver; qa1 to qa3 are in test_world.py."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.babi import OBJECTS, read_stories, samples
from lm2.data.rumours import CAST
from lm2.data.solver import solve
from lm2.data.world import DROP, GIVE, GIVERS, MOVE, TAKE, TASKS, simulate, simulate_dense

NEW = [f"qa{number}" for number in range(4, 11)]
PEOPLE = {person for people, _ in CAST.values() for person in people} | set(GIVERS)
PLACES = {place for _, places in CAST.values() for place in places}
KINDS = {**dict.fromkeys(PEOPLE, "PERSON"), **dict.fromkeys(PLACES, "PLACE"), **dict.fromkeys(OBJECTS, "OBJECT")}
VERBS = {"move": MOVE, "take": TAKE, "drop": DROP, "give": GIVE}


@cache
def simulated(task, n=1500):
    rng = np.random.default_rng(7)
    return [simulate(task, rng) for _ in range(n)]


@cache
def real(babi, task):
    return [story for split in ("train", "test") for story in read_stories(babi, task, split)]


def sentences(stories):
    return {text for story in stories for text in (*story.facts, *(question.text for _, question in story.questions))}


def words(sentence):
    return sentence[:-1].split()


def template(sentence):
    return " ".join(KINDS.get(word, word) for word in words(sentence)) + sentence[-1]


@pytest.mark.parametrize("task", NEW)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_solver_agrees_with_every_question_of_the_world(task, seed):
    rng = np.random.default_rng(seed)
    for story in (simulate(task, rng), simulate_dense(task, rng, 2 if task == "qa4" else 25)):
        for sample in samples(task, [story]):
            assert solve(task, sample.facts, sample.question) == sample.answer


@pytest.mark.parametrize("task", NEW)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_supporting_facts_alone_give_the_answer(task, seed):
    for sample in samples(task, [simulate_dense(task, np.random.default_rng(seed), 2 if task == "qa4" else 30)]):
        chosen = [sample.facts[index] for index in sorted(sample.support)]
        assert solve(task, chosen, sample.question) == sample.answer
        if task in ("qa7", "qa8"):
            person = words(sample.question)[-2]
            assert all(person in words(fact) for fact in chosen)
        else:
            assert len(chosen) == 1


@pytest.mark.parametrize("task", NEW)
def test_support_is_ordered_as_in_the_files(babi, task):
    for stories in (simulated(task)[:200], read_stories(babi, task, "test")):
        assert all(list(sample.support) == in_order(sample) for sample in samples(task, stories))


def in_order(sample):
    """The support by time; in qa8 thing by thing, in the order in which the things first came."""
    if sample.task != "qa8":
        return sorted(sample.support)
    thing = {i: next(word for word in words(sample.facts[i]) if word in OBJECTS) for i in sample.support}
    first = {name: min(i for i in thing if thing[i] == name) for name in thing.values()}
    return sorted(sample.support, key=lambda i: (first[thing[i]], i))


@pytest.mark.parametrize("task", NEW)
def test_same_sentences_and_words_as_the_real_files(babi, task):
    mine, theirs = sentences(simulated(task)), sentences(real(babi, task))
    assert set(map(template, mine)) == set(map(template, theirs))
    assert {word for text in mine for word in words(text)} == {word for text in theirs for word in words(text)}


@pytest.mark.parametrize("task", NEW)
def test_same_statistics_as_the_real_files(babi, task):
    mine, theirs = statistics(simulated(task)), statistics(real(babi, task))
    for name in mine.keys() | theirs.keys():
        assert mine.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=0.25, abs=0.02), name


def statistics(stories):
    """Shares of events, questions, answers, numbers of supports, and how far back the latest support lies."""
    facts = [fact for story in stories for fact in story.facts]
    questions = [(at, question) for story in stories for at, question in story.questions]
    shares = Counter(f"fact: {kind_of(fact)}" for fact in facts)
    asked = Counter(f"question: {template(question.text)}" for _, question in questions)
    asked += Counter(f"answer: {KINDS.get(question.answer, question.answer)}" for _, question in questions)
    asked += Counter(f"supports: {len(question.support)}" for _, question in questions)
    asked += Counter(f"facts since: {at - max(question.support)}" for at, question in questions)
    return {
        **{name: count / len(facts) for name, count in shares.items()},
        **{name: count / len(questions) for name, count in asked.items()},
        "questions in a story": len(questions) / len(stories),
        "facts in a story": len(facts) / len(stories),
        "facts before the first question": np.mean([story.questions[0][0] for story in stories]),
        "same person again": np.mean([words(a)[0] == words(b)[0] for s in stories for a, b in pairwise(s.facts)]),
    }


def kind_of(fact):
    for kind, verbs in VERBS.items():
        if any(f" {verb} " in fact for verb in verbs):
            return kind + " there" * (words(fact)[-1] == "there")
    return template(fact)


def test_what_was_given_is_asked_only_while_it_is_one_thing():
    for story in simulated("qa5"):
        for at, question in story.questions:
            if question.text.startswith("What did"):
                _, _, giver, _, _, receiver = words(question.text)
                facts = [words(fact) for fact in story.facts[:at]]
                gifts = {fact[3]: (fact[0], fact[5]) for fact in facts if fact[1] in GIVE}
                assert list(gifts.values()).count((giver, receiver)) == 1


@pytest.mark.parametrize("task", ["qa5", "qa7"])
def test_given_is_only_what_is_held_and_only_by_one_who_is_there(task):
    for story in simulated(task)[:200]:
        holder, place = {}, {}
        for fact in map(words, story.facts):
            if fact[-2] == "to":
                giver, thing, receiver = fact[0], fact[3], fact[5]
                assert holder[thing] == giver
                assert giver != receiver
                assert place.get(giver, "?") == place.get(receiver, "?") or not {giver, receiver} <= place.keys()
                holder[thing] = receiver
            elif fact[-1] in PLACES:
                place[fact[0]] = fact[-1]
            else:
                thing = next(word for word in fact if word in OBJECTS)
                holder[thing] = fact[0]


def test_tasks_are_the_first_ten():
    assert list(TASKS) == [f"qa{number}" for number in range(1, 11)]


@pytest.mark.parametrize("task", NEW)
def test_same_seed_same_story_and_other_seed_other_story(task):
    one, two, other = (simulate(task, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert len(one.questions) == (1 if task == "qa4" else 5)


def test_a_story_of_three_rooms_has_no_more():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="qa4 has one question, not 5: simulate more stories"):
        simulate("qa4", rng, 5)
    with pytest.raises(ValueError, match="qa4 has at most 2 facts, not 3: ask for fewer"):
        simulate_dense("qa4", rng, 3)
    assert len(simulate_dense("qa4", rng, 1).facts) == 1
