"""Rows and questions of the bake-off: the answers are decided by what was told, and told once."""

import numpy as np
import pytest
import torch

from lm2.data.rows import IGNORED
from lm2.study.tasks import BLOCK, base_batch, batch, load_task
from lm2.training import BatchRequest

ONCE = load_task("once")


def told_before(ids: np.ndarray, at: int) -> dict[int, int]:
    """Values by key in the text before a position, questions left out."""
    return {
        int(ids[i]): int(ids[i + 1])
        for i in range(at - 1)
        if 1 <= ids[i] <= ONCE.keys and ids[i + 1] > ONCE.keys and (i == 0 or ids[i - 1] != 0)
    }


@pytest.mark.parametrize("segments", [1, 2, 4, 16])
def test_once_labels_are_what_was_told_in_the_first_segment(segments):
    for seed in range(20):
        ids, labels = ONCE.row(np.random.default_rng(seed), segments, False)
        asked = np.flatnonzero(labels != IGNORED)
        assert len(ids) == segments * ONCE.segment_length
        assert len(asked) >= ONCE.facts
        assert asked[-1] >= (segments - 1) * ONCE.segment_length
        for at in asked:
            assert ids[at - 2] == 0
            assert told_before(ids[: ONCE.segment_length], ONCE.segment_length)[int(ids[at - 1])] == labels[at]
        assert len(told_before(ids, len(ids))) == ONCE.facts


def test_once_questions_and_noise():
    asked = ONCE.questions(3, 50)
    assert asked.ids.shape == (50, 5 * ONCE.segment_length)
    assert torch.equal(asked.ids, ONCE.questions(3, 50).ids)
    for ids, answer in zip(asked.ids.numpy(), asked.answers, strict=True):
        assert told_before(ids, ONCE.segment_length)[int(ids[-1])] == answer
        assert (ids[ONCE.segment_length : -2] > 2 * ONCE.keys).all()
    assert (ONCE.noise(2, 3, np.random.default_rng(0)) > 2 * ONCE.keys).all()
    assert 1 / 8 <= asked.constant < 0.4


@pytest.mark.parametrize("name", ["once", "qa1", "qa2"])
@pytest.mark.parametrize("segments", [1, 2, 3, 8, 16])
def test_batches_are_whole_blocks_and_depend_on_their_index_alone(name, segments):
    T, rows = load_task(name).segment_length, BLOCK // segments
    whole = batch(BatchRequest(3, 50, range(2), segments), name, 10)
    second = batch(BatchRequest(3, 50, range(1, 2), segments), name, 10)
    assert whole["input_ids"].shape == whole["labels"].shape == (2 * rows, segments * T)
    assert torch.equal(whole["input_ids"][rows:], second["input_ids"])
    assert ((whole["labels"] != IGNORED).sum(1) > 0).all()


@pytest.mark.parametrize("name", ["qa1", "qa2"])
def test_story_rows(name):
    task = load_task(name)
    for step, opening in ((0, True), (20, False)):
        rows = base_batch(BatchRequest(0, step, range(1), 1), name, 10)
        assert rows["input_ids"].shape[1] == task.segment_length
        if opening:
            assert ((rows["labels"] != IGNORED).sum(1) == 1).all()
    ids, labels = task.row(np.random.default_rng(0), 2, True)
    T = task.segment_length
    assert (labels[:T] == IGNORED).all()
    assert (labels[T:] != IGNORED).any()
    answers = [task.tokenizer.decode([token]) for token in labels[labels != IGNORED]]
    assert all(f"the{answer}" in task.tokenizer.decode(ids[:T]) for answer in answers)


def test_no_row_of_a_long_training_is_without_an_answer():
    task, rng = load_task("qa2"), np.random.default_rng(0)
    for segments in (1, 2, 3, 4):
        assert all((task.row(rng, segments, False)[1] != IGNORED).any() for _ in range(500))
    assert all((task.base_row(rng, False)[1] != IGNORED).any() for _ in range(2000))


def test_story_questions_are_about_an_earlier_segment():
    asked = load_task("qa1").questions(4, 10)
    assert asked.ids.shape == (10, 4 * 32)
    text = load_task("qa1").tokenizer.decode(asked.ids[0])
    assert text.endswith("?")
    assert load_task("qa1").noise(2, 3, np.random.default_rng(0)).shape == (2, 96)
