"""Needles: samples as asked for, the rule, and the report."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm2.evaluation import needle
from lm2.evaluation.needle import COUNTS, NOISE, NeedleOptions, NeedleSource, is_right
from lm2.evaluation.needle_report import cell
from lm2.evaluation.statistics import wilson
from tests.evaluation.tiny import llama, memory_model, prose, save


@cache
def default_source() -> NeedleSource:
    """GPT-2's vocabulary takes a second to read."""
    return NeedleSource(None, seed=0)


@pytest.fixture
def source() -> NeedleSource:
    return default_source()


@pytest.fixture
def _read_once(monkeypatch):
    """The same vocabulary for every source of a test."""
    tokenizer = default_source().tokenizer  # read before the name is replaced that it is read by
    monkeypatch.setattr(needle.LengthTokenizer, "gpt2", lambda: tokenizer)


def prompt(sample) -> str:
    return sample.told.before + "".join(sample.pieces()) + sample.told.after


@settings(deadline=None, max_examples=30)
@given(length=st.integers(120, 3000), depth=st.integers(0, 100), index=st.integers(0, 50))
def test_a_sample_is_as_long_and_as_deep_as_asked(length, depth, index):
    source = default_source()
    sample = source.sample(length, depth, index)
    text, planted = "".join(sample.pieces()), sample.told.needle
    assert text.count(planted) == 1
    assert 10_000 <= int(sample.told.key) < 100_000
    (total,) = source.tokenizer.count([prompt(sample)])
    assert length - 15 <= total <= length + 2  # a sentence more would not fit; borders may join a token
    before = source.tokenizer.count([text.partition(planted)[0]])[0]
    around = total - source.tokenizer.count([sample.told.before + planted + sample.told.after])[0]
    assert abs(before - depth / 100 * around) <= 8


def test_samples_follow_from_their_numbers_and_the_seed(source):
    assert source.sample(300, 50, 1) == NeedleSource(None, seed=0).sample(300, 50, 1)
    numbers = [(300, 50, index) for index in range(20)] + [(301, 50, 0), (300, 51, 0)]
    assert len({source.sample(*each).told.key for each in numbers}) == len(numbers)
    assert NeedleSource(None, seed=1).sample(300, 50, 1).told.key != source.sample(300, 50, 1).told.key


@pytest.mark.usefixtures("_read_once")
def test_a_fact_about_a_person_lies_at_its_depth_among_others():
    source = NeedleSource(None, 0, "people")
    for depth in (0, 50, 100):
        sample = source.sample(600, depth, depth)
        text, told = "".join(sample.pieces()), sample.told
        assert len(told.others) == 9
        assert all(text.count(fact) == 1 for fact in (told.needle, *told.others))
        assert told.key in told.needle
        assert told.after.startswith(" Question: ")
        name = told.needle.split()[0]
        assert name in told.after
        place = text.index(told.needle) / len(text)
        assert abs(place - depth / 100) < 0.15
    assert is_right("goat", " goat.", COUNTS["people"])
    assert not is_right("goat", " a goat.", COUNTS["people"])


@pytest.mark.usefixtures("_read_once")
def test_books_stand_around_the_needle(tmp_path):
    (tmp_path / "book.txt").write_text(prose(800))
    source = NeedleSource(tmp_path / "book.txt", seed=0)
    sample = source.sample(400, 50, 0)
    text = "".join(sample.pieces())
    assert "The grass is green." not in text
    assert sample == NeedleSource(tmp_path / "book.txt", seed=0).sample(400, 50, 0)
    (total,) = source.tokenizer.count([prompt(sample)])
    assert 330 <= total <= 402


def test_a_length_without_room_is_refused(source):
    with pytest.raises(ValueError, match=r"--lengths names 40, and prompt and needle alone have \d\d tokens"):
        source.sample(40, 0, 0)


@pytest.mark.usefixtures("_read_once")
def test_a_sample_without_room_is_found_before_a_model_is_loaded(tmp_path, monkeypatch):
    """Facts about people differ in length: at 82 tokens the first sample has room and others have none."""
    monkeypatch.setattr(needle, "load_runner", lambda spec, options: pytest.fail("a model was loaded"))
    source = NeedleSource(None, 0, "people")
    assert source.sample(82, 0, 0)
    with pytest.raises(ValueError, match=r"--lengths names 82, and .* alone have \d\d tokens: give a greater one"):
        needle.run(options_for(tmp_path, needle="people", lengths=(82, 400), samples=10))


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("12345.", True),
        ("the pass key is 12345, remember", True),
        ("123456", False),
        ("1234", False),
        ("54321 or 12345", False),
        ("", False),
        ("none", False),
    ],
)
def test_the_first_number_counts(output, right):
    assert is_right("12345", output) is right


def test_a_cell_with_texts_that_were_too_long_has_no_number():
    records = [{"right": True, "output": "1"}, {"right": False, "output": "2"}]
    assert cell(records) == {
        "n": 2,
        "too_long": 0,
        "right": 1,
        "accuracy": 0.5,
        **dict(zip(("low", "high"), wilson(1, 2), strict=True)),
    }
    assert cell([*records, {"right": False, "output": None}])["accuracy"] is None


class Reader:
    """A model that remembers the last `span` characters before the question."""

    description = {"kind": "stub"}  # noqa: RUF012

    def __init__(self, span: int):
        self.span, self.asked = span, 0

    def answer(self, before, pieces, after, max_new_tokens):
        self.asked += 1
        kept = (before + "".join(pieces))[-self.span :]
        return kept.partition("The pass key is ")[2][:5] if "The pass key is " in kept else "forgotten"


def options_for(out: Path, **changes) -> NeedleOptions:
    return NeedleOptions(
        **{"models": ("a", "b"), "lengths": (200, 400), "depths": (0, 100), "samples": 3, "out": out, **changes}
    )


@pytest.mark.usefixtures("_read_once")
def test_the_report_shows_who_remembers_how_far(tmp_path, monkeypatch):
    readers = {"a": Reader(10**6), "b": Reader(300)}
    monkeypatch.setattr(needle, "load_runner", lambda spec, options: readers[spec.name])
    needle.run(options_for(tmp_path))
    report = json.loads((tmp_path / "needle.json").read_text())
    found = {(m["name"], one["length"], one["depth"]): one["accuracy"] for m in report["models"] for one in m["cells"]}
    assert all(found["a", length, depth] == 1.0 for length in (200, 400) for depth in (0, 100))
    assert found["b", 400, 0] == 0.0
    assert found["b", 400, 100] == 1.0
    assert (tmp_path / "needle.png").read_bytes().startswith(b"\x89PNG")
    assert "| 0 % | 100.0 (44-100) | 100.0 (44-100) |" in (tmp_path / "needle.md").read_text()
    asked = readers["a"].asked
    needle.run(options_for(tmp_path, samples=4))  # more samples: only the new ones are asked
    assert readers["a"].asked == asked + 4
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        needle.run(options_for(tmp_path, seed=1))


def test_real_models_and_a_text_too_long_for_one(tmp_path):
    models = [
        f"{kind}={save(model, tmp_path / kind)}" for kind, model in (("lm2", memory_model("lm2")), ("plain", llama()))
    ]
    needle.run(options_for(tmp_path / "out", models=(*models, f"cut={tmp_path / 'plain'}@last:150"), samples=1))
    report = json.loads((tmp_path / "out/needle.json").read_text())
    lm2, plain, cut = (model["cells"] for model in report["models"])
    assert all(one["accuracy"] is not None for one in (*lm2, *cut))
    assert all(one["too_long"] == 1 for one in plain)  # 256 positions
    assert "too long: 1 of 1" in (tmp_path / "out/needle.md").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"depths": (50, 101)}, "--depths names 101"),
        ({"samples": 0}, "--samples is 0"),
        ({"lengths": ()}, "there are 0 lengths and 2 depths"),
        ({"lengths": (256, -5)}, "--lengths names -5"),
        ({"lengths": (256, 256)}, "--lengths names 256 twice"),
        ({"depths": (0, 50, 50)}, "--depths names 50 twice"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_that_cannot_be(wrong, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        options_for(tmp_path, **wrong)


def test_a_sentence_that_just_fits_is_used():
    source = NeedleSource(None, seed=0)
    room = sum(source._count(sentence) for sentence in NOISE[:3])
    assert source._fill(np.random.default_rng(0), room) == list(NOISE[:3])
    assert source._fill(np.random.default_rng(0), room - 1) == list(NOISE[:2])
