"""The search for a learning rate: each rate begins the whole training, and the one ahead goes on."""

import json
from dataclasses import replace

import pytest

from lm2.reproduce import validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import CONTENDERS, FULL, recipe_of, search_steps, validation_steps
from lm2.reproduce.work import chosen_rate


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_training_goes_on_where_its_search_stopped(finished, name):
    config, sizes, _ = finished
    (rate,) = sizes.rates
    begun, whole = (
        validation.read(folder / validation.VALIDATION_FILE)
        for folder in (config.search_folder(name, rate), config.out / name)
    )
    every = validation_steps(sizes, name)
    assert [line["step"] for line in begun] == [every, 2 * every]
    assert search_steps(sizes, name) == 2 * every
    assert whole[: len(begun)] == begun
    assert whole[-1]["step"] == recipe_of(sizes, name).steps > begun[-1]["step"]
    assert whole[-1]["seconds"] > begun[-1]["seconds"]


def test_the_rate_with_the_lowest_loss_goes_on(tmp_path):
    config, sizes = ReproduceConfig(out=tmp_path), replace(FULL, rates=(1e-4, 2e-4, 4e-4))
    for rate, accuracy, loss in zip(sizes.rates, (0.9, 0.7, 0.8), (0.5, 0.4, 0.6), strict=True):
        folder = config.search_folder("rmt", rate)
        folder.mkdir(parents=True)
        line = {"step": 393, "seconds": 1.0, "accuracy": accuracy, "loss": loss}
        (folder / validation.VALIDATION_FILE).write_text(json.dumps(line) + "\n")
    assert chosen_rate(config, sizes, "rmt") == sizes.rates[1]
