"""Facts about people: every question has one answer, which was told before it."""

import random
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.book_rows import BookRows
from lm2.data.people import MOST, NAMES, RELATIONS, Stories, tell, tell_alike, words
from lm2.data.rows import IGNORED
from lm2.data.tokenizer import train_tokenizer
from tests.data.texts import generated

T = 64


@given(n=st.integers(1, 72), seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_questions_are_decided_by_one_fact_told_before(n, seed):
    story = tell(n, np.random.default_rng(seed))
    assert len(story.facts) == len(story.questions) == n
    assert story == tell(n, np.random.default_rng(seed))
    for position, question in story.questions:
        told = [i for i, fact in enumerate(story.facts) if answers(fact, question.text)]
        assert told == list(question.support)
        assert question.support[0] < position
        assert question.answer in story.facts[question.support[0]].rstrip(".").split()


def answers(fact: str, question: str) -> bool:
    """Whether a fact is about the thing and the person of a question, read from the sentences alone."""
    name = fact.split()[0]
    for relation in RELATIONS:
        values = [word for word in fact.rstrip(".").split() if word in relation.values]
        if values and relation.asked.format(name=name) in question:
            return any(fact == told.format(name=name, value=values[0]) for told in relation.told)
    return False


def test_no_word_answers_two_kinds_of_questions():
    values = [value for relation in RELATIONS for value in relation.values]
    assert len(values) == len(set(values)) == 72
    assert not set(values) & set(NAMES)


@pytest.mark.parametrize("n_people", [2, 4, 12])
def test_of_people_alike_only_the_name_tells_which(n_people):
    story = tell_alike(n_people, np.random.default_rng(3))
    names = [fact.split()[0] for fact in story.facts]
    assert len(set(names)) == n_people
    asked = [question for _, question in story.questions]
    assert {question.support for question in asked} == {(i,) for i in range(n_people)}
    assert len({question.text.replace(names[question.support[0]], "") for question in asked}) == 1


def test_stories_are_made_as_they_are_looked_up():
    stories = Stories(seed=4)
    assert stories[2**30] == stories[2**30] != stories[1]
    assert {len(stories[i].facts) for i in range(200)} == set(range(1, MOST + 1))
    assert all(len(Stories(seed=4, pairs=True)[i].facts) == 2 for i in range(5))
    with pytest.raises(IndexError, match="2147483648"):
        stories[2**31]


@cache
def material(folder):
    (folder / "book.txt").write_text(" ".join(generated(2000)))
    tokenizer = train_tokenizer(generated(500), 1024, words())
    rows = BookRows(tokenizer=tokenizer, books=folder / "book.txt", segment_length=T, pool_tokens=5000)
    return tokenizer, rows


@pytest.mark.parametrize("kind", ["text", "echo", "pair", "repeated", "dense", "scattered"])
def test_rows_have_the_width_and_labels_of_their_kind(kind, tmp_path_factory):
    tokenizer, rows = material(tmp_path_factory.getbasetemp())
    ended = 0
    for segments in (2, 4) if kind == "repeated" else (1, 3):
        for seed in range(20):
            ids, labels = rows.row(kind, segments, random.Random(seed))
            assert len(ids) == len(labels) == rows.width(kind, segments)
            assert rows.row(kind, segments, random.Random(seed)) == (ids, labels)
            if kind == "text":
                assert ids == labels
                continue
            told = [tokenizer.decode([label]).strip() for label in labels if label != IGNORED]
            values = {value for relation in RELATIONS for value in relation.values}
            ends = told.count("<eos>")
            assert ends == told.count(".") <= (kind in ("dense", "scattered"))
            assert "<eos>" not in told or told[told.index("<eos>") - 1] == "."
            assert set(told) - {".", "<eos>"} <= values
            assert len(told) > 2 * ends
            ended += ends
            known = (IGNORED, tokenizer.eos_token_id)
            assert all(label == token or label in known for token, label in zip(ids, labels, strict=True))
            if kind == "repeated":
                assert all(label == IGNORED for label in labels[:-T])
    assert (ended > 0) == (kind in ("dense", "scattered"))


def test_echoes_follow_facts_about_people_alike(tmp_path_factory):
    tokenizer, rows = material(tmp_path_factory.getbasetemp())
    for seed in range(20):
        ids, labels = rows.row("echo", 1, random.Random(seed))
        answered = [i for i, label in enumerate(labels) if label != IGNORED]
        echoes = {(tokenizer.decode([ids[i - 1]]).strip(), tokenizer.decode([ids[i]]).strip()) for i in answered}
        told = tokenizer.decode(ids[: answered[0] - 1]).split(".")[:-1]
        assert len(answered) >= 5
        assert 1 <= len(echoes) <= 4
        assert all(any(name in fact and value in fact for fact in told) for name, value in echoes)
        assert sum(any(set(relation.values) & {value for _, value in echoes}) for relation in RELATIONS) == 1


def test_a_segment_too_short_for_echoes_is_told(tmp_path_factory):
    _, rows = material(tmp_path_factory.getbasetemp())
    with pytest.raises(ValueError, match="12 tokens hold no echo after two facts"):
        replace(
            rows,
            tokenizer=vars(rows)["_tokenizer"],
            books=tmp_path_factory.getbasetemp() / "book.txt",
            segment_length=12,
        ).row("echo", 1, random.Random(0))


@pytest.mark.parametrize("segments", [2, 4])
def test_a_segment_too_short_for_facts_told_again_is_told(segments, tmp_path_factory):
    """A row of another width than the others was made, or one that asks for what it does not tell."""
    tokenizer, _ = material(tmp_path_factory.getbasetemp())
    book = tmp_path_factory.getbasetemp() / "book.txt"
    rows = BookRows(tokenizer=tokenizer, books=book, segment_length=12, pool_tokens=500)
    with pytest.raises(
        ValueError, match=r"questions about them \d+, which must fit into .* segment of 12: use longer segments"
    ):
        rows.row("repeated", segments, random.Random(0))


def test_other_books_are_another_run(tmp_path):
    tokenizer, rows = material(tmp_path)
    (tmp_path / "other.txt").write_text(" ".join(generated(200)))
    other = BookRows(tokenizer=tokenizer, books=tmp_path / "other.txt", segment_length=T, pool_tokens=5000)
    assert other != rows
    assert re.match(r"books other\.txt \(\w{16}\), tokenizer ", other.texts)
    (tmp_path / "other.txt").write_text(" ".join(generated(201)))
    assert BookRows(tokenizer=tokenizer, books=tmp_path / "other.txt", segment_length=T, pool_tokens=5000) != other
