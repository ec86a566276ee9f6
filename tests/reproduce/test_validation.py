"""Lines of validation: one a step, and the processor seconds of training alone."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lm2.files import read_lines
from lm2.reproduce import validation
from lm2.reproduce.sizes import SMOKE
from lm2.reproduce.validation import Validator, at_seconds, held_out, validate
from tests.reproduce.test_rows import ROWS, TOKENIZER


def model(ids_BL, **options):
    return SimpleNamespace(logits=torch.nn.functional.one_hot(ids_BL, 5).float())


def test_a_step_that_is_done_again_has_one_line_and_validation_takes_no_time(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 100.0, 105.0, 200.0, 0.0, 7.0, 300.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    first = Validator(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, dtype=torch.long), tmp_path)
    first.start()
    for step in (2, 4):
        first(model, step)
    again = Validator(first.ids_NL, first.answer_N, tmp_path)
    again.start()
    again(model, 4)
    assert [(line["step"], line["seconds"]) for line in read_lines(first.path)] == [(2, 10.0), (4, 17.0)]
    assert at_seconds(tmp_path, 10.0)["step"] == 2
    assert at_seconds(tmp_path, 9.9) is None


def test_the_share_that_is_right_and_the_mean_loss_are_of_the_last_column(monkeypatch):
    """The model says the token that it sees: three of five rows end with their answer, in passes of two rows."""
    monkeypatch.setattr(validation, "ROWS", 2)
    ids_NL, answer_N = torch.tensor([[0, 1], [0, 2], [0, 3], [4, 0], [4, 0]]), torch.tensor([1, 2, 3, 4, 4])
    found = validate(model, ids_NL, answer_N)
    mean = math.log(4 + math.e) - 3 / 5
    assert found == {"accuracy": pytest.approx(3 / 5), "loss": pytest.approx(mean)}


def test_held_out_rows_end_before_their_answer():
    sizes = replace(SMOKE, validation_rows=6, validation_segments=2)
    ids_NL, answer_N = held_out(ROWS["qa1"], sizes)
    assert (ids_NL.shape, answer_N.shape) == ((6, 2 * ROWS["qa1"].T - 2), (6,))
    asked, answers = TOKENIZER.batch_decode(ids_NL), TOKENIZER.batch_decode(answer_N[:, None])
    assert all(text.endswith("?") for text in asked)
    assert {answer.strip() for answer in answers} <= {"bathroom", "bedroom", "garden", "hallway", "kitchen", "office"}
    assert len(set(asked)) == 6
