"""Lines of validation: one a step, and the processor seconds of training alone."""

import time
from types import SimpleNamespace

import torch

from lm2.reproduce.validation import Validator, at_seconds, read


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
    assert [(line["step"], line["seconds"]) for line in read(first.path)] == [(2, 10.0), (4, 17.0)]
    assert at_seconds(tmp_path, 10.0)["step"] == 2
    assert at_seconds(tmp_path, 9.9) is None
