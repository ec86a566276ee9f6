"""Training rows of the demo: exact sizes, answers that the independent solver gives too, nothing but the request."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.data.babi import ACTORS, PLACES, Story
from lm2.data.rows import IGNORED
from lm2.data.tokenizer import train_tokenizer
from lm2.demo.recipe import LONGEST, Phase, kind_at, stages
from lm2.demo.rows import Rows, make_batch, parse_move, simulate_moves
from lm2.training import BatchRequest
from tests.data.texts import answers_of, generated

T = 32
TOKENIZER = train_tokenizer(generated(2000), 1024)
BACKGROUND = TOKENIZER([f" {text}" for text in generated(300, seed=1)], add_special_tokens=False)["input_ids"]
ROWS = Rows(TOKENIZER, BACKGROUND, T)
KINDS = ("pair", "repeated", "dense", "scattered")
PHASES = (
    Phase(0.06, (2,), ("repeated",)),
    Phase(0.44, (1, 2, 3, 4), ("repeated", "dense", "scattered", "scattered")),
    Phase(0.5, (1, 2, 4, 8, 16), ("dense", "scattered")),
)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), segments=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_a_row_has_its_width_and_answers_that_the_solver_gives(kind, segments, seed):
    if kind == "repeated" and segments == 1:
        segments = 2
    ids, labels = ROWS.row(kind, segments, random.Random(seed))
    assert len(ids) == len(labels) == ROWS.width(kind, segments)
    labelled = [(i, label) for i, (i, label) in enumerate(zip(ids, labels, strict=True)) if label != IGNORED]
    assert labelled
    assert all(i == label for i, label in labelled)
    assert {TOKENIZER.decode([label]).strip() for _, label in labelled} <= set(PLACES)
    written, right = answers_of("qa1", TOKENIZER.decode(ids))
    assert written == right
    assert len(labelled) - len(written) in (0, 1)  # a row may end between an answer and its full stop


@pytest.mark.parametrize("segments", [2, 3, 5])
def test_repeated_rows_tell_before_the_last_segment_and_ask_in_it(segments):
    for seed in range(20):
        ids, labels = ROWS.row("repeated", segments, random.Random(seed))
        border = (segments - 1) * T
        assert sum(label != IGNORED for label in labels[border:]) >= 1
        assert all(label == IGNORED for label in labels[:border])
        assert "Where" not in TOKENIZER.decode(ids[:border])
        assert not any(actor in TOKENIZER.decode(ids[border:]).split("Where")[0] for actor in ACTORS)


def test_pairs_are_two_people_at_two_places():
    for seed in range(50):
        text = TOKENIZER.decode(ROWS.row("pair", 1, random.Random(seed))[0], skip_special_tokens=True)
        told = text.split("Where")[0]
        assert sum(actor in told for actor in ACTORS) == 2
        assert sum(place in told for place in PLACES) == 2
        assert text.rstrip().endswith(".")  # whole, also with the longest facts


def test_of_a_pair_either_is_asked_for():
    """What answers with the last fact is as often wrong."""
    first = 0
    for seed in range(60):
        text = TOKENIZER.decode(ROWS.row("pair", 1, random.Random(seed))[0], skip_special_tokens=True)
        first += text.split()[0] == text.partition("Where is ")[2].partition("?")[0]
    assert 15 < first < 45


def test_background_begins_anywhere_and_leaves_room_for_all_that_is_told():
    fact = ROWS.encode.item("Mary moved to the garden.")
    rows = [ROWS._scatter([fact], 40, random.Random(seed)) for seed in range(30)]
    assert {len(row) for row in rows} == {40}
    assert all("Mary moved to the garden." in TOKENIZER.decode(row.ids) for row in rows)
    assert len({tuple(row.ids[:12]) for row in rows}) > 15


def test_facts_of_scattered_rows_lie_everywhere():
    """In thirds of the row: none has less than half of what a uniform draw gives (the last ones hold fewer facts)."""
    name = {TOKENIZER(f" {verb}", add_special_tokens=False)["input_ids"][0] for verb in ("journeyed", "travelled")}
    counts = torch.zeros(3)
    for seed in range(150):
        ids, _ = ROWS.row("scattered", 8, random.Random(seed))
        for i, token in enumerate(ids):
            counts[3 * i // len(ids)] += token in name
    assert counts.min() > counts.sum() / 6


def test_scattered_rows_tell_the_real_stories():
    facts = ("Mary moved to the kitchen.", "John went back to the office.", "Mary journeyed to the garden.")
    rows = Rows(TOKENIZER, BACKGROUND, T, [Story(facts, ())])
    for seed in range(20):
        text = TOKENIZER.decode(rows.row("scattered", 6, random.Random(seed))[0])
        told = [fact for fact in facts if fact in text]
        assert told == list(facts[: len(told)])
        assert told
        assert "Daniel" not in text
        written, right = answers_of("qa1", text)
        assert written == right


def test_facts_of_another_task_are_refused():
    with pytest.raises(ValueError, match=r"'Mary got the milk\.' does not"):
        Rows(TOKENIZER, BACKGROUND, T, [Story(("Mary got the milk.",), ())])
    with pytest.raises(ValueError, match=r"'Mary is in the office\.' does not"):
        parse_move("Mary is in the office.")
    assert parse_move("Sandra went back to the hallway.").actor == "Sandra"


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_a_move_is_never_to_where_one_is(seed):
    where = {}
    for move in simulate_moves(random.Random(seed), 30, {}):
        assert where.get(move.actor) != move.place
        where[move.actor] = move.place


@settings(max_examples=25, deadline=None)
@given(step=st.integers(0, 99), segments=st.sampled_from((1, 2, 4, 8, 16)), first=st.sampled_from((0, 16, 32, 48)))
def test_a_batch_is_the_same_in_parts_and_has_about_as_many_tokens_for_any_length(step, segments, first):
    phases = PHASES[2:]
    plan = stages(phases, 100)
    whole = make_batch(ROWS, phases, plan, BatchRequest(3, step, range(64), segments))
    part = make_batch(ROWS, phases, plan, BatchRequest(3, step, range(first, first + 16), segments))
    assert whole["input_ids"].numel() == 64 * T
    rows = slice(first // segments, (first + 16) // segments)
    assert torch.equal(whole["input_ids"][rows], part["input_ids"])
    assert torch.equal(whole["labels"][rows], part["labels"])
    for seed, other_step in ((4, step), (3, step + 1)):
        other = make_batch(ROWS, phases, plan, BatchRequest(seed, other_step, range(64), segments))
        assert not (whole["input_ids"] == other["input_ids"]).all(1).any()


def test_each_step_draws_a_kind_of_its_phase_that_suits_its_length():
    plan = stages(PHASES, 1000)
    kinds = [[kind_at(PHASES, plan, seed, step, 4) for step in range(500, 600)] for seed in (0, 1)]
    assert kinds[0] != kinds[1]
    assert 30 < kinds[0].count("dense") < 70
    assert [stage.steps for stage in plan] == [60, 440, 500]
    for step in range(1000):
        phase = PHASES[0 if step < 60 else 1 if step < 500 else 2]
        for segments in phase.segments:
            kind = kind_at(PHASES, plan, 0, step, segments)
            assert kind in phase.kinds
            assert segments <= LONGEST.get(kind, 16)
            assert kind != "repeated" or segments > 1
