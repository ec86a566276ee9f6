"""Quiet text stands beside the rows of a pass, the same for the same request, and its tokens are counted."""

from dataclasses import replace
from pathlib import Path

from lm2.demo.contender import training_run, training_tokens
from lm2.demo.quiet import quiet_segments, with_quiet_text
from lm2.reproduce.sizes import FULL
from lm2.training import BatchRequest
from lm2.training.write_cost import QUIET
from tests.reproduce.test_rows import ROWS, T

REQUEST = BatchRequest(seed=3, step=5, rows=range(4), segments=2)


def test_it_stands_beside_the_rows_and_depends_on_the_request_alone():
    recipe = replace(FULL.recipe, steps=8)
    run = training_run(recipe, "lm2", ROWS["qa1"], lambda: None, Path("unused"), seed=1)
    quiet = with_quiet_text(run, ROWS["qa1"], 8)
    batch, again = quiet.make_batch(REQUEST), quiet.make_batch(REQUEST)
    rows = run.make_batch(REQUEST)
    assert all(batch[name].equal(rows[name]) for name in rows)
    assert batch[QUIET].shape == (1, 8 * T)
    assert batch[QUIET].equal(again[QUIET])
    other = quiet.make_batch(BatchRequest(seed=3, step=6, rows=range(4), segments=2))
    assert not batch[QUIET].equal(other[QUIET])
    tokens = [training_tokens(each, recipe, ROWS["qa1"], "lm2") for each in (run, quiet)]
    assert (quiet_segments(run), quiet_segments(quiet)) == (0, 8)
    assert tokens[1] - tokens[0] == run.steps * 8 * T
