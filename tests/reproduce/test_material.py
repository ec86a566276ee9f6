"""Background of the trainings: what contenders read past is harder than what the backbone and validation have."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from lm2.data.background import GeneratedSentences
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.material import harder_rows, training_rows, validation_rows
from lm2.reproduce.sizes import SMOKE
from lm2.reproduce.work import Work

GARDEN = "Nobody had been seen in the garden for so many years that it had no gate."


@pytest.fixture
def config(tmp_path) -> ReproduceConfig:
    """Books that say "garden" in one sentence of a hundred."""
    (tmp_path / "books").mkdir()
    for book in range(4):
        sentences = GeneratedSentences().sentences(np.random.default_rng(book))
        text = " ".join(GARDEN if i % 100 == 50 else next(sentences) for i in range(2000))
        (tmp_path / "books" / f"{book}.txt").write_text(text, encoding="utf-8")
    config = ReproduceConfig(out=tmp_path / "run", books=tmp_path / "books", smoke=True)
    config.out.mkdir()
    Work(config, SMOKE).prepare()
    return config


def share_with_garden(rows) -> float:
    (garden,) = rows.encode(" garden")
    return np.mean([garden in ids for ids in islice(rows.pool.sentences(np.random.default_rng(0)), 2000)])


def test_only_contenders_train_on_sentences_with_words_of_the_stories(config):
    calm = replace(SMOKE, strange=0.0)
    for rows in (training_rows(config, calm), validation_rows(config, calm)):
        assert share_with_garden(rows) < 0.03
    n_words = len(harder_rows(config, calm).pool.holders)
    assert share_with_garden(harder_rows(config, calm)) > 0.8 * SMOKE.telling / n_words
    assert share_with_garden(harder_rows(config, replace(calm, telling=0.9))) > 0.8 * 0.9 / n_words


def test_contenders_train_on_the_harder_rows(config):
    pool = Work(config, SMOKE).rows().pool
    assert (pool.telling, pool.strange) == (SMOKE.telling, SMOKE.strange)
