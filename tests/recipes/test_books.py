"""`lm2 train books`: from nothing and from a base, in few steps."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import lm2_command as cli
from lm2 import LM2ForCausalLM
from lm2.data.background import GeneratedSentences
from lm2.data.people import words
from lm2.recipes import books as recipe
from lm2.recipes.books import books
from lm2.recipes.dry_run import describe
from lm2.recipes.options import BooksOptions
from lm2.recipes.plan import carry_out
from lm2.training import BatchRequest
from lm2.training.quiet import quiet_segments
from lm2.training.write_cost import QUIET


@pytest.fixture
def options(tmp_path, monkeypatch) -> BooksOptions:
    """A training of seconds."""
    texts = GeneratedSentences().sentences(np.random.default_rng(0))
    (tmp_path / "book.txt").write_text(" ".join(next(texts) for _ in range(1000)))
    monkeypatch.setattr(recipe, "BookRows", partial(recipe.BookRows, pool_tokens=3000))
    monkeypatch.setattr(recipe, "SMALL", replace(recipe.SMALL, vocabulary=1024, hidden_size=32, intermediate_size=64))
    return BooksOptions(
        out=tmp_path / "run", books=tmp_path / "book.txt", backbone_steps=4, steps=8, rows=16, log_every=1, report_to=()
    )


def test_a_small_model_from_nothing(options):
    folder = carry_out(books(options))
    model = LM2ForCausalLM.from_pretrained(folder)
    assert model.config.memory_indices == (2, 3)
    assert model.config.segment_length == 64
    lines = [json.loads(line) for line in (options.out / "memory" / "log.jsonl").read_text().splitlines()]
    assert {line["segments"] for line in lines if "segments" in line} <= {1, 2, 3, 4, 8, 16}
    tokenizer = recipe.load_tokenizer(str(folder))
    assert all(len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1 for word in words())
    before = {path: path.stat().st_mtime_ns for path in options.out.rglob("*.safetensors")}
    carry_out(books(options))
    assert {path: path.stat().st_mtime_ns for path in options.out.rglob("*.safetensors")} == before
    with pytest.raises(ValueError, match=r"rows: 16 then, 32 now|rows.*16.*32"):
        carry_out(books(replace(options, rows=32)))


def test_the_memory_starts_from_the_backbone(options):
    plan = books(options)
    carry_out(replace(plan, phases={"backbone": plan.phases["backbone"]}))
    started = plan.phases["memory"].model().state_dict()
    trained = recipe.last_model(options.out / "backbone").backbone.state_dict()
    assert trained
    assert all(torch.equal(started[name], value) for name, value in trained.items())


def test_the_memorys_rate_falls_and_the_backbones_stays_up(options):
    phases = books(replace(options, learning_rate=2e-4)).phases
    assert (phases["backbone"].learning_rate, phases["backbone"].schedule) == (3e-3, "trapezoid")
    assert (phases["memory"].learning_rate, phases["memory"].schedule) == (2e-4, "linear")


def test_the_price_on_writing_is_on_book_text_alone_and_the_backbone_has_none(options):
    phases = books(options).phases
    request = BatchRequest(seed=1, step=5, rows=range(4), segments=2)
    batch, rows = (phases["memory"].make_batch(request) for _ in range(2))
    assert batch[QUIET].shape == (1, 8 * options.segment_length)
    assert batch[QUIET].equal(rows[QUIET])
    assert phases["memory"].training_forward.keywords["cost"] == 100.0
    assert QUIET not in phases["backbone"].make_batch(replace(request, segments=1))
    assert phases["backbone"].training_forward is None


def test_a_dry_run_counts_the_quiet_text(options):
    backbone, memory = describe(books(options)).split("phase memory")
    model = books(options).phases["backbone"].model()
    assert f" all: {sum(p.numel() for p in model.parameters()):,} parameters" in backbone
    assert "steps of 16 segments in rows of 1 segments: 1,024 tokens a step" in backbone
    assert "or 16 segments and 8 of quiet text: 1,536 tokens a step" in memory


def test_a_base_gets_its_memory_in_one_phase(options, base):
    plan = books(replace(options, base=str(base), segment_length=256, look_back=16))
    assert list(plan.phases) == ["memory"]
    run = plan.phases["memory"]
    assert run.learning_rate == 5e-5
    assert run.memory_learning_rate_factor == pytest.approx(7.5e-4 / 5e-5)
    assert plan.config.memory_indices == (1, 2)
    assert quiet_segments(run) == 8


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"accumulation": 2}, "rows is 16, in 2 passes 8 segments each, and rows have up to 16: raise rows"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"backbone_steps": 0}, "backbone_steps must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_found_before_the_training(options, own, said):
    with pytest.raises(ValueError, match=said):
        books(replace(options, **own))


def test_a_base_needs_a_rate(options, base):
    with pytest.raises(ValueError, match=r"base_learning_rate must be above 0, got 0\.0"):
        books(replace(options, base=str(base), segment_length=256, look_back=16, base_learning_rate=0.0))


def test_what_is_wrong_is_told_at_once(tmp_path, capsys):
    assert cli.main(["train", "books", "--books", str(tmp_path / "none.txt"), "--out", str(tmp_path / "run")]) == 2
    assert "none.txt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
