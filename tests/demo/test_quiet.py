"""Quiet text: background of exact size, the same for the same request, and no more tokens for LM2 than for others."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lm2.demo.contender import training_run, training_tokens
from lm2.demo.quiet import with_quiet_text
from lm2.reproduce.sizes import CONTENDERS, FULL, recipe_of
from lm2.training import BatchRequest
from lm2.training.write_cost import QUIET
from tests.reproduce.test_rows import EVENT, FACT, ROWS, TOKENIZER, T

REQUEST = BatchRequest(seed=3, step=5, rows=range(4), segments=2)


def a_run(name: str, steps: int = 8):
    recipe = recipe_of(replace(FULL, recipe=replace(FULL.recipe, steps=steps)), name)
    return training_run(recipe, name, ROWS["qa1"], lambda: None, Path("unused"), seed=1), recipe


@pytest.mark.parametrize("segments", [1, 3, 8])
def test_quiet_text_is_background_of_exact_size(segments):
    ids = ROWS["qa1"].quiet(segments, random.Random(0))
    text = TOKENIZER.decode(ids)
    assert len(ids) == segments * T
    assert text.startswith("<bos><context> ")
    assert not EVENT.findall(text)
    assert not re.findall(FACT, text)


def test_it_stands_beside_the_rows_and_depends_on_the_request_alone():
    run, recipe = a_run("lm2")
    quiet = with_quiet_text(run, ROWS["qa1"], 8)
    batch, again = quiet.make_batch(REQUEST), quiet.make_batch(REQUEST)
    rows = run.make_batch(REQUEST)
    assert all(batch[name].equal(rows[name]) for name in rows)
    assert batch[QUIET].shape == (1, 8 * T)
    assert batch[QUIET].equal(again[QUIET])
    other = quiet.make_batch(BatchRequest(seed=3, step=6, rows=range(4), segments=2))
    assert not batch[QUIET].equal(other[QUIET])
    tokens = [training_tokens(each, recipe, ROWS["qa1"], "lm2") for each in (run, quiet)]
    assert tokens[1] - tokens[0] == run.steps * 8 * T


def test_contenders_are_trained_alike():
    """But for the model, LM2's price, and what follows from the number of steps."""
    own = {"model", "output_dir", "make_batch", "training_forward", "stages"}
    runs = [{key: value for key, value in vars(a_run(name)[0]).items() if key not in own} for name in CONTENDERS]
    assert all(run == runs[0] for run in runs)
    assert runs[0]["schedule"] == FULL.recipe.schedule == "linear"


def test_every_contender_reads_as_many_tokens():
    found = {}
    for name in CONTENDERS:
        run, recipe = a_run(name, FULL.recipe.steps)
        run = with_quiet_text(run, ROWS["qa1"], FULL.quiet_segments) if name == "lm2" else run
        found[name] = training_tokens(run, recipe, ROWS["qa1"], name)
    assert max(found.values()) < 1.002 * min(found.values())
