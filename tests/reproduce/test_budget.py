"""Equal budget: contenders are trained alike, and LM2's quiet text gives it no more tokens than the others have."""

from dataclasses import replace
from pathlib import Path

from lm2.demo.contender import training_run, training_tokens
from lm2.reproduce.sizes import CONTENDERS, FULL, recipe_of
from lm2.training.quiet import with_quiet_text
from tests.reproduce.test_rows import ROWS


def a_run(name: str, steps: int = 8):
    recipe = recipe_of(replace(FULL, recipe=replace(FULL.recipe, steps=steps)), name)
    return training_run(recipe, name, ROWS["qa1"], lambda: None, Path("unused"), seed=1), recipe


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


def test_quiet_text_is_counted():
    run, recipe = a_run("lm2")
    quiet = with_quiet_text(run, ROWS["qa1"], 8)
    tokens = [training_tokens(each, recipe, ROWS["qa1"], "lm2") for each in (run, quiet)]
    assert tokens[1] - tokens[0] == run.steps * 8 * recipe.segment_length
