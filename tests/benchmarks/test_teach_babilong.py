"""Teaching a reproduction's LM2: what is asked of it beside the answers is true, and in the loss as documented."""

import json
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from lm2.data.babi import ACTORS, MOVE, PLACES, Question
from lm2.data.rooms import OPPOSITE
from lm2.data.rows import IGNORED
from lm2.data.world import DROP, TAKE, simulate_dense
from lm2.reproduce import material
from lm2.reproduce.sizes import SMOKE
from lm2.training.write_cost import fresh_rows, watched_gates
from tests.benchmarks.scripts import script, trains_on_once

hardening = script("harden_babilong")  # which the other imports
teaching = script("teach_babilong")


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
    assert teaching.moved_on(facts, Question("Where is the milk?", "office", support)) is expected


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 40))
def test_where_a_thing_was_dropped_is_the_answer(seed, n_facts):
    """The simulator knows where everybody is; `places` has it from what was told of who dropped it."""
    story = simulate_dense("qa2", np.random.default_rng(seed), n_facts)
    known = teaching.places(story.facts, story.questions)
    for _, question in story.questions:
        touched, brought = question.support
        actor, _, deed = story.facts[touched].partition(" ")
        if deed.startswith(DROP):
            assert known[touched] in (question.answer, None)
            assert known[touched] is not None or not story.facts[brought].startswith(actor)
    deeds = [fact.partition(" ")[2] for fact in story.facts]
    assert all(place is None for place, deed in zip(known, deeds, strict=True) if not deed.startswith((*TAKE, *DROP)))
    assert not any(teaching.places(story.facts, []))


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 40))
def test_where_a_move_began_is_where_the_one_before_it_ended(seed, n_facts):
    story = simulate_dense("qa3", np.random.default_rng(seed), n_facts)
    moves = [(i, fact.split()[0]) for i, fact in enumerate(story.facts) if fact.partition(" ")[2].startswith(MOVE)]
    known = teaching.places(story.facts, [(n_facts, BEFORE)])
    for index, actor in moves:
        before = [i for i, who in moves if who == actor and i < index]
        assert known[index] == (story.facts[before[-1]].rstrip(".").split()[-1] if before else None)


@given(seed=st.integers(0, 2**32), n_facts=st.integers(2, 40))
def test_a_carrier_is_where_the_thing_is(seed, n_facts):
    story = simulate_dense("qa2", np.random.default_rng(seed), n_facts)
    for at, question in story.questions:
        actor, deed = teaching.carrier(story.facts, question), story.facts[question.support[0]].partition(" ")[2]
        assert (actor is None) == deed.startswith(DROP)
        moved = tuple(f"{actor} {verb}" for verb in MOVE)
        assert [fact for fact in story.facts[:at] if fact.startswith(moved)][-1:] in (
            [],
            [story.facts[question.support[1]]],
        )
        assert story.facts[question.support[1]].endswith(f" {question.answer}.")


@given(seed=st.integers(0, 2**32), n_facts=st.integers(4, 60))
def test_a_carrier_is_who_brought_the_thing(seed, n_facts):
    story = simulate_dense("qa3", np.random.default_rng(seed), n_facts)
    for _, question in story.questions:
        place = question.text.rstrip("?").split()[-1]
        (brought,) = [story.facts[i] for i in question.support if story.facts[i].endswith(f" {place}.")]
        assert teaching.carrier(story.facts, question) == brought.split()[0]


@given(seed=st.integers(0, 2**32))
def test_every_question_about_rooms_is_one_the_simulator_may_ask(seed):
    story = simulate_dense("qa4", np.random.default_rng(seed), 2)
    asked = teaching.room_questions(story.facts)
    assert len({question.text for question in asked}) == 4
    texts = {(question.text, question.answer, question.support) for question in asked}
    assert all((question.text, question.answer, question.support) in texts for _, question in story.questions)
    assert [question.known for question in asked] == [story.facts[index].split()[3] for index in (0, 0, 1, 1)]


@pytest.mark.parametrize("task", ["qa1", "qa5"])
def test_of_other_tasks_nothing_is_to_be_known(task):
    story = simulate_dense(task, np.random.default_rng(0), 40)
    assert story.questions
    assert not any(teaching.places(story.facts, story.questions))
    assert not any(teaching.carrier(story.facts, question) for _, question in story.questions)


@pytest.fixture(scope="module")
def rows(reproduction):
    plain = material.training_rows(reproduction, SMOKE)
    tokenizer = material.load_tokenizer(reproduction)
    return teaching.TaughtRows(tokenizer, plain.pool, plain.T, plain.stories)


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
        for at, label in enumerate(labels)
        if label not in (IGNORED, ids[at])
    ]
    assert {text[-1] for text, _ in found} == marks
    assert {label for _, label in found} == known
    for text, label in found if task == "qa4" else []:
        *_, asked = re.split(r"[.?] ", text)
        named = next(word for word in asked.split() if word in OPPOSITE)
        assert label == (OPPOSITE[named] if asked.endswith(" of?") else named)


def test_rows_end_with_the_answer_as_the_reproductions_do(rows, decode):
    for task in ("qa2", "qa4"):
        for ids, labels in _made(rows, task, 10):
            assert labels[-2:] == ids[-2:]
            assert decode(ids[-3:-2]) == "?"


def test_stories_of_qa2_mostly_end_with_a_thing_left_behind(rows):
    draw = np.random.default_rng(0)
    stories = [story for _ in range(200) if (story := rows._story("qa2", 16, draw)).questions]
    share = np.mean([teaching.moved_on(s.facts[: s.questions[-1][0]], s.questions[-1][1]) for s in stories])
    assert 0.55 < share < 0.85


def test_stories_of_qa4_mostly_name_one_room_last(rows):
    draw = np.random.default_rng(0)
    stories = [rows._story("qa4", 2, draw) for _ in range(200)]
    assert 0.6 < np.mean([len({fact.split()[-1] for fact in story.facts}) == 1 for story in stories]) < 0.9


@pytest.fixture(scope="module")
def model(reproduction):
    return AutoModelForCausalLM.from_pretrained(reproduction.out / "lm2" / "model")


def _batch(rows, tasks: tuple[str, ...]) -> dict[str, torch.Tensor]:
    ids, labels = zip(*(row for task in tasks for row in _made(rows, task, 2)), strict=True)
    labels = torch.tensor(labels)
    return {"input_ids": torch.tensor(ids), "labels": labels, "num_items_in_batch": (labels[:, 1:] != IGNORED).sum()}


def _teaching(rows, steps: int = 10):
    places = tuple(rows.encode(f" {place}")[0] for place in PLACES)
    return teaching.Teaching(steps, places, rows.encode(".")[0])


def _by_hand(model, batch: dict[str, torch.Tensor], places: tuple[int, ...], stop: int) -> dict[str, float]:
    """The parts of the loss, label by label."""
    parts: dict[str, list[float]] = {"answers": [], "places": [], "others": [], "pay": []}
    with watched_gates(model) as rhos:
        out = model(batch["input_ids"], use_cache=False, output_hidden_states=True)
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
        for at in range(1, len(ids)):
            if labels[at] == IGNORED:
                continue
            label = torch.tensor(labels[at])
            kind = "answers" if labels[at] == ids[at] else "places" if labels[at] in places else "others"
            state = {"answers": -1, "places": -2, "others": -3}[kind]
            hidden = out.hidden_states[state][row, at - 1]
            logits = model.lm_head(hidden if kind == "answers" else model.model.norm(hidden))
            parts[kind].append(F.cross_entropy(logits, label).item())
            if kind != "answers" and ids[at] == stop:
                greatest = [rho.reshape(len(batch["input_ids"]), -1, rho.shape[-1])[row, at - 1].max() for rho in rhos]
                parts["pay"] += [max(0.0, teaching.OPEN - value.item()) for value in greatest]
    return {name: float(np.mean(values)) if values else 0.0 for name, values in parts.items()}


@pytest.mark.parametrize("tasks", [("qa2", "qa4", "qa5"), ("qa4",), ("qa1",)])
@pytest.mark.parametrize("step", [0, 3, 7])
def test_the_loss_is_the_sum_of_its_parts(rows, model, tasks, step):
    taught, batch = _teaching(rows), _batch(rows, tasks)
    parts = _by_hand(model, batch, taught.places, taught.stop)
    pay = teaching.PAY * max(0.0, 1 - step / (teaching.PAID_UNTIL * 10))
    expected = parts["answers"] + (1 - step / 10) * (parts["places"] + parts["others"]) + pay * parts["pay"]
    assert taught(model, batch, step).loss.item() == pytest.approx(expected, rel=1e-4)


def test_passes_share_the_loss_by_their_labels(rows, model):
    taught, batch = _teaching(rows), _batch(rows, ("qa2",))
    whole = taught(model, batch, 0).loss
    half = taught(model, {**batch, "num_items_in_batch": 2 * batch["num_items_in_batch"]}, 0).loss
    assert half.item() == pytest.approx(whole.item() / 2, rel=1e-5)


def test_without_anything_to_know_it_is_the_plain_pass(rows, model):
    batch = _batch(rows, ("qa1",))
    assert torch.equal(_teaching(rows)(model, batch, 0).loss, fresh_rows(model, batch, 0).loss)


def test_a_model_is_taught_once_and_measured(reproduction, few, monkeypatch):
    monkeypatch.setattr(hardening, "ROWS", 50)
    options = teaching.Options(**few, steps=3)
    teaching.main(options)
    models = json.loads(options.out.read_text())["models"]
    assert list(models) == ["before", "taught"]
    assert models["before"]["held_out_rows"]["loss"] != models["taught"]["held_out_rows"]["loss"]
    folders = [reproduction.out / "lm2", options.folder / "lm2"]
    trains_on_once(teaching, options, [folder / "model" / "model.safetensors" for folder in folders])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"share": 1.5}, r"--share is 1\.5: it must be above 0 and at most 1"),
        ({"steps": 1}, r"--steps is 1: at least 2"),
    ],
)
def test_options_out_of_range_are_named(reproduction, tmp_path, changed, says):
    with pytest.raises(ValueError, match=says):
        teaching.main(teaching.Options(run=reproduction.out, folder=tmp_path / "taught", **changed))


def test_there_must_be_a_model_to_teach(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no trained LM2: finish `lm2 reproduce"):
        teaching.main(teaching.Options(run=tmp_path, folder=tmp_path / "taught"))
