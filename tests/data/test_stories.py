"""Rows of stories: by arithmetic in the request, of all tasks, and noise without a fact."""

import random
import re

import numpy as np
import pytest
import torch

from lm2.data.babi import ACTORS
from lm2.data.rows import IGNORED
from lm2.data.stories import StoryRows
from lm2.data.tokenizer import opening
from lm2.training import BatchRequest


@pytest.fixture
def rows(tokenizer) -> StoryRows:
    return StoryRows(tokenizer=tokenizer, segment_length=64, tasks=("qa1", "qa6"))


def test_a_row_depends_on_nothing_but_the_request(rows):
    whole = rows(BatchRequest(0, 3, range(6), 2))
    part = rows(BatchRequest(0, 3, range(2, 4), 2))
    other = rows(BatchRequest(0, 4, range(6), 2))
    for name, batch in whole.items():
        assert batch.shape == (6, 128)
        assert torch.equal(batch[2:4], part[name])
        assert not torch.equal(batch, other[name])


def test_all_tasks_are_drawn_and_every_row_has_an_answer(rows, tokenizer):
    labels = rows(BatchRequest(0, 0, range(16), 2))["labels"]
    answers = {word for row in labels for word in tokenizer.decode(row[row != IGNORED]).split()}
    assert all((row != IGNORED).any() for row in labels)
    assert answers & {"yes", "no"}
    assert answers - {"yes", "no"}


def test_a_row_closes_with_an_answer_and_the_end(rows, tokenizer):
    ids, labels = rows.row("qa1", 2, np.random.default_rng(0))
    assert ids[-1] == labels[-1] == tokenizer.eos_token_id
    assert labels[-2] == ids[-2]
    assert (labels == tokenizer.eos_token_id).sum() == 1


def test_noise_tells_nothing(rows, tokenizer):
    noise = rows.noise(3, 4, np.random.default_rng(0))
    assert noise.shape == (3, 256)
    assert not set(tokenizer.decode(noise.flatten()).split()) & set(ACTORS)


def test_quiet_text_is_background_from_its_opening_on(rows, tokenizer):
    ids = rows.quiet(4, random.Random(0))
    assert len(ids) == 256
    assert ids[: len(opening(tokenizer))] == opening(tokenizer)
    assert not set(tokenizer.decode(ids).split()) & set(ACTORS)
    assert ids == rows.quiet(4, random.Random(0)) != rows.quiet(4, random.Random(1))


def test_a_task_that_cannot_be_simulated_is_named(tokenizer):
    with pytest.raises(ValueError, match="qa14 cannot be simulated: choose among qa1, "):
        StoryRows(tokenizer=tokenizer, segment_length=64, tasks=("qa1", "qa14"))
    with pytest.raises(ValueError, match="names 0 tasks"):
        StoryRows(tokenizer=tokenizer, segment_length=64, tasks=())


def test_other_texts_of_the_same_name_are_another_run(tokenizer, tmp_path):
    def rows() -> StoryRows:
        return StoryRows(tokenizer=tokenizer, background=tmp_path / "book.txt", segment_length=64, tasks=("qa1",))

    (tmp_path / "book.txt").write_text("It rained. It was late. Nobody came.")
    first = rows()
    assert rows() == first
    (tmp_path / "book.txt").write_text("It snowed. It was late. Nobody came.")
    assert rows() != first
    assert re.match(r"stories built-in, background book\.txt \(\w{16}\), tokenizer \w{12}$", first.texts)
