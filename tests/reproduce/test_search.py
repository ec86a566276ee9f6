"""The search for a learning rate: each rate begins the whole training, and the one ahead goes on."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lm2.demo import contender
from lm2.files import read_lines
from lm2.reproduce import validation
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import CONTENDERS, FULL, recipe_of, search_steps, validation_steps
from lm2.reproduce.work import Work, chosen_rate
from lm2.training import train


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_training_goes_on_where_its_search_stopped(finished, name):
    config, sizes, _ = finished
    (rate,) = sizes.rates
    begun, whole = (
        read_lines(folder / validation.VALIDATION_FILE)
        for folder in (config.search_folder(name, rate), config.out / name)
    )
    every = validation_steps(sizes, name)
    assert [line["step"] for line in begun] == [every, 2 * every]
    assert search_steps(sizes, name) == 2 * every
    assert whole[: len(begun)] == begun
    assert whole[-1]["step"] == recipe_of(sizes, name).steps > begun[-1]["step"]
    assert whole[-1]["seconds"] > begun[-1]["seconds"]


class Ended(Exception):
    """What ends a training in the middle of a step, as a kill does."""


def test_seconds_are_those_of_the_steps_also_after_a_kill_between_validations(finished, tmp_path, monkeypatch):
    """A second passes with each step."""
    config, sizes = replace(finished.config, out=tmp_path), replace(finished.sizes, validations=2)
    for name in ("base", "tokenizer"):
        shutil.copytree(finished.config.out / name, tmp_path / name)
    monkeypatch.setattr(contender, "SAVE_EVERY", 1)
    clock = SimpleNamespace(seconds=0, process_time=lambda: clock.seconds)
    monkeypatch.setattr(validation, "time", clock)
    work = Work(config, sizes)

    def go_on(ends_at: int) -> None:
        run, _ = work._training("rmt", sizes.rates[0], tmp_path / "rmt")

        def forward(model, batch, step):
            if step == ends_at:
                raise Ended
            clock.seconds += 1
            return model(**batch, use_cache=False)

        train(replace(run, training_forward=forward), resume=True)

    every, steps = validation_steps(sizes, "rmt"), recipe_of(sizes, "rmt").steps
    assert 1 < every < steps
    with pytest.raises(Ended):
        go_on(every + 1)
    go_on(steps)
    lines = read_lines(tmp_path / "rmt" / validation.VALIDATION_FILE)
    assert lines[-1]["step"] == steps
    assert all(line["seconds"] == line["step"] for line in lines)


def test_the_rate_with_the_lowest_loss_goes_on(tmp_path):
    config, sizes = ReproduceConfig(out=tmp_path), replace(FULL, rates=(1e-4, 2e-4, 4e-4))
    for rate, accuracy, loss in zip(sizes.rates, (0.9, 0.7, 0.8), (0.5, 0.4, 0.6), strict=True):
        folder = config.search_folder("rmt", rate)
        folder.mkdir(parents=True)
        line = {"step": 393, "seconds": 1.0, "accuracy": accuracy, "loss": loss}
        (folder / validation.VALIDATION_FILE).write_text(json.dumps(line) + "\n")
    assert chosen_rate(config, sizes, "rmt") == sizes.rates[1]
