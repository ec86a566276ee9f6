"""Looking into answers whose supporting facts are known."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lm2.analysis.places import Encoded, Places
from lm2.evaluation.babilong import LocalBabilong
from lm2.evaluation.sentences import Background
from tests.benchmarks.scripts import script

MODEL = Path(__file__).parents[2] / "models" / "lm2-babilong"


@pytest.fixture(scope="module")
def looking():
    return script("look_babilong")


def test_places_at_supporting_facts_are_those_in_them_and_shortly_after(looking):
    sample = next(LocalBabilong(None, Background.generated()).samples("qa1", "1k"))
    text = sample.context()
    at = np.arange(len(text))
    encoded = Encoded(text, at, at, at + 1)
    (fact,) = [fact for fact in sample.facts if fact.supporting]
    start = text.index(fact.text)
    end = start + len(fact.text)
    first = np.array(sorted({max(0, start - 1), start, end, end + looking.AFTER - 1, end + looking.AFTER}))
    found = looking.supporting(Places(encoded, first, first + 1), sample)
    inside = [i for i, place in enumerate(first) if start <= place < end + looking.AFTER]
    assert sorted(found) == inside
    assert 3 <= len(inside) < len(first)


def test_shares_are_of_the_right_answers(looking):
    one = looking.Looked("qa1", True, 4, 1, True, 0.9, 0.1, 0.8, 0.2, 0.0, None, 0.0)
    wrong = replace(one, right=False, top_supports=False, whole=0.1)
    found = looking.summary([one, wrong, replace(one, top_supports=False, without_control=0.7)])
    assert found["asked"] == 3
    assert (found["top_supports"]["hits"], found["top_supports"]["n"]) == (1, 2)
    assert (found["whole"]["hits"], found["without_supporting"]["hits"]) == (2, 0)
    assert (found["without_control"]["hits"], found["without_control"]["n"]) == (1, 1)
    assert "| without the places at supporting facts | 0 (0-66) |" in looking.page({"qa1": found})


@pytest.mark.slow
def test_answers_of_the_shipped_model_hang_on_the_supporting_facts(looking, tmp_path, capsys):
    options = looking.Options(MODEL, tasks=("qa1",), length="1k", samples=4, out=tmp_path / "it.json")
    looking.main(options)
    assert "| most read is at a supporting fact |" in capsys.readouterr().out
    found = json.loads((tmp_path / "it.json").read_text(encoding="utf-8"))
    assert [one["task"] for one in islice(found["questions"], 4)] == ["qa1"] * 4
    qa1 = found["by_task"]["qa1"]
    assert qa1["whole"]["n"] >= 2
    assert qa1["without_supporting"]["hits"] < qa1["whole"]["hits"]
    assert qa1["without_control"]["hits"] > qa1["without_supporting"]["hits"]
