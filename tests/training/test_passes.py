"""Which rows a process makes in a pass."""

from itertools import chain
from pathlib import Path

from lm2.training.passes import Passes, StillToDo
from tests.training.test_trainer import a_run


def test_every_row_of_a_step_is_made_once_by_one_process_in_one_pass():
    run = a_run(Path("unused"), make_batch=lambda request: request, accumulation=2)
    shares = [Passes(run, process, processes=2) for process in range(2)]
    assert [len(share) for share in shares] == [6 * 2] * 2
    for step in range(run.steps):
        requests = [share[2 * step + part] for share in shares for part in range(2)]
        n_rows = run.stage_at(step).rows
        assert sorted(chain.from_iterable(request.rows for request in requests)) == list(range(n_rows))
        assert {len(request.rows) for request in requests} == {n_rows // 4}
        assert {(request.step, request.segments, request.seed) for request in requests} == {
            (step, run.segments_at(step), run.seed)
        }


def test_what_is_done_is_not_done_again():
    run = a_run(Path("unused"), accumulation=2)
    assert list(StillToDo(run, lambda: 4)) == [8, 9, 10, 11]
