"""Quiet text stands beside the rows of a pass, the same for the same request."""

import random
from pathlib import Path

import torch

from lm2.training import BatchRequest
from lm2.training.quiet import quiet_segments, row_maker, with_quiet_text
from lm2.training.write_cost import QUIET
from tests.training.test_trainer import T, a_run, uneven_rows

REQUEST = BatchRequest(seed=3, step=5, rows=range(4), segments=2)


class Numbers:
    def quiet(self, segments: int, rng: random.Random) -> list[int]:
        return [rng.randrange(1000) for _ in range(segments * T)]


def test_it_stands_beside_the_rows_and_depends_on_the_request_alone():
    run = a_run(Path("unused"))
    quiet = with_quiet_text(run, Numbers(), 8)
    batch, again, rows = quiet.make_batch(REQUEST), quiet.make_batch(REQUEST), run.make_batch(REQUEST)
    assert batch.keys() - rows.keys() == {QUIET}
    assert all(torch.equal(batch[name], rows[name]) for name in rows)
    assert batch[QUIET].shape == (1, 8 * T)
    assert torch.equal(batch[QUIET], again[QUIET])
    for other in ({"step": 6}, {"seed": 4}, {"rows": range(2, 4)}):
        assert not torch.equal(batch[QUIET], quiet.make_batch(BatchRequest(**{**vars(REQUEST), **other}))[QUIET])


def test_a_run_knows_how_much_it_reads():
    run = a_run(Path("unused"))
    quiet = with_quiet_text(run, Numbers())
    assert (quiet_segments(run), quiet_segments(quiet)) == (0, 8)
    assert row_maker(run) is row_maker(quiet) is uneven_rows
