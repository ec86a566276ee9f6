"""Logs of a run that goes on: what was written after its checkpoint is written once."""

import json
from types import SimpleNamespace

import pytest

from lm2.training.callbacks import Watching, keep_lines_until
from tests.training.test_trainer import lm2, seeded
from tests.training.test_watching import rows


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [1, 2, 2]), (3, [1, 2, 2, 3]), (9, [1, 2, 2, 3])])
def test_lines_after_a_step_go_and_one_that_was_cut_off(tmp_path, step, kept):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f'{{"step": {at}}}\n' for at in (1, 2, 2, 3)) + '{"step": 4')
    keep_lines_until(path, step)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == kept


def test_a_look_that_is_done_again_has_one_line(tmp_path):
    trainer = SimpleNamespace(is_world_process_zero=lambda: True, callback_handler=SimpleNamespace(callbacks=[]))
    watching = Watching(trainer, lambda: rows(1), tmp_path / "watch.jsonl")  # ty: ignore[invalid-argument-type]
    model = seeded(lm2).eval()
    for step in (2, 4, 6, 4):
        watching(model, step)
    assert [json.loads(line)["step"] for line in watching.path.read_text().splitlines()] == [2, 4]
