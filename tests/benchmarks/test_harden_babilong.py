"""Hardening a reproduction's LM2: what a gate is open for is found, and stands in the rows of the training."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lm2.data.pool import TokenPool
from lm2.reproduce import material
from lm2.reproduce.sizes import SMOKE
from lm2.training.write_cost import watched_gates
from tests.benchmarks.scripts import script, trains_on_once


@pytest.fixture(scope="module")
def hardening():
    return script("harden_babilong")


@pytest.fixture(scope="module")
def model(reproduction):
    return AutoModelForCausalLM.from_pretrained(reproduction.out / "lm2" / "model").eval()


@pytest.fixture(scope="module")
def pool(reproduction) -> TokenPool:
    source = material.texts_of(reproduction).training
    return TokenPool(source, material.load_tokenizer(reproduction), seed=5, n_tokens=35_000)


def test_rho_is_that_of_each_lane_read_from_its_start(hardening, model, pool):
    """Whatever the pass, and whatever stands in the other lanes."""
    rho = hardening.greatest_rho(model, pool.ids, "test")
    passes = hardening.SEGMENTS * model.config.segment_length
    lane = len(rho) // hardening.LANES
    assert len(rho) == len(pool.ids) // (hardening.LANES * passes) * hardening.LANES * passes
    for start in (0, 7 * lane):
        with torch.no_grad(), watched_gates(model) as found:
            model(torch.from_numpy(pool.ids[start : start + lane].astype(np.int64))[None], use_cache=False)
        alone = torch.stack([each.amax(-1).flatten()[-lane:] for each in found]).amax(0)
        np.testing.assert_allclose(rho[start : start + lane], alone.numpy(), atol=1e-5)


def test_a_hard_sentence_has_a_token_above_the_floor(hardening, model, pool):
    rho = hardening.greatest_rho(model, pool.ids, "test")
    floor = float(np.quantile(rho, 0.9995))
    hard = set(hardening.hard_sentences(model, pool, floor).tolist())
    for at in range(int(np.searchsorted(pool.starts, len(rho))) - 1):
        assert (rho[pool.starts[at] : pool.starts[at + 1]].max() > floor) == (at in hard)
    with pytest.raises(ValueError, match=r"no rho is above 1, the greatest is .* lower --floor"):
        hardening.hard_sentences(model, pool, 1.0)


def test_a_share_of_the_background_is_hard(hardening, pool):
    other = TokenPool(material.GeneratedSentences(), _Numbers(), seed=1, n_tokens=500)
    hard = hardening.HardPool(other, pool, np.array([3, 0]), 0.25)
    led = [pool.ids[pool.starts[2] : pool.starts[4]].tolist(), pool.ids[: pool.starts[1]].tolist()]
    drawn = hard.sentences(np.random.default_rng(0))
    found = [next(drawn).tolist() for _ in range(4000)]
    among = [sentence in led for sentence in found]
    assert np.mean(among) == pytest.approx(0.2, abs=0.02)  # a quarter of the others have one before them
    assert {tuple(sentence) for sentence, is_hard in zip(found, among, strict=True) if is_hard} == {*map(tuple, led)}
    plain = other.sentences(np.random.default_rng(0))
    others = [sentence for sentence, is_hard in zip(found, among, strict=True) if not is_hard]
    assert sum(map(len, others)) > 2 * len(other.ids)
    assert others[: len(other)] == _rotated([next(plain).tolist() for _ in range(len(other))], others[0])


def _rotated(sentences: list, first: list) -> list:
    at = sentences.index(first)
    return sentences[at:] + sentences[:at]


class _Numbers:
    """A tokenizer that never repeats an id, and none of the pool's."""

    def __init__(self):
        self.next = 10_000_000

    def __call__(self, texts, add_special_tokens):
        made = []
        for text in texts:
            words = len(text.split())
            made.append(list(range(self.next, self.next + words)))
            self.next += words
        return {"input_ids": made}


def test_a_model_is_hardened_once_and_measured(hardening, reproduction, model, few, monkeypatch, capsys):
    monkeypatch.setattr(hardening, "ROWS", 50)
    options = hardening.Options(**few, steps=4)
    hardening.main(options)
    models = json.loads(options.out.read_text())["models"]
    assert list(models) == ["before", "round 1", "round 2"]
    assert all(list(m["tokens_of_a_million_with_rho_above"]) == ["validation", "questions"] for m in models.values())
    assert len({m["held_out_rows"]["loss"] for m in models.values()}) == 3
    found = json.loads((options.folder / "hard.json").read_text())
    assert f"{len(found):,} of " in capsys.readouterr().out
    read = TokenPool(
        material.texts_of(reproduction).training, material.load_tokenizer(reproduction), options.seed, options.tokens
    )
    assert found == hardening.hard_sentences(model, read, options.floor).tolist()
    folders = [reproduction.out / "lm2", *(options.folder / f"round-{number}" for number in (1, 2))]
    trains_on_once(hardening, options, [folder / "model" / "model.safetensors" for folder in folders])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"share": 1.5}, r"--share is 1\.5: it must be above 0 and at most 1"),
        ({"rounds": 0}, r"--rounds 0 --steps 600: at least 1 each"),
        ({"tokens": 900}, r"[\d,]+ tokens to read, and [\d,]+ are the fewest: raise --tokens"),
    ],
)
def test_options_out_of_range_are_named(hardening, reproduction, tmp_path, changed, says):
    with pytest.raises(ValueError, match=says):
        hardening.main(hardening.Options(run=reproduction.out, folder=tmp_path / "hard", **changed))


def test_there_must_be_a_model_to_harden(hardening, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no trained LM2: finish `lm2 reproduce"):
        hardening.main(hardening.Options(run=tmp_path, folder=tmp_path / "hard"))


def test_rows_have_hard_background(hardening, reproduction, pool):
    """The rows of the reproduction, with that background."""
    rows = material.training_rows(reproduction, SMOKE)
    rows.pool = hardening.HardPool(rows.pool, pool, np.array([3]), 1.0)
    hard = pool.ids[pool.starts[2] : pool.starts[4]].tolist()
    ids, _ = rows.row("scattered", 4, random.Random(0))
    assert any(ids[at : at + len(hard)] == hard for at in range(len(ids)))
