"""Which model answers, and how."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lm2.evaluation.models import (
    ModelSpec,
    RunnerOptions,
    fingerprint,
    load_model,
    load_runner,
    parse_spec,
    parse_specs,
    source_name,
)
from lm2.evaluation.runners.attention import AttentionRunner
from lm2.evaluation.runners.memory import StreamingRunner
from lm2.evaluation.runners.rag import RagRunner
from tests.evaluation import tiny
from tests.gguf_files import write_gguf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/model", ModelSpec("model", "org/model")),
        ("./a/b", ModelSpec("b", "./a/b")),
        ("x/SmolLM2.gguf@full", ModelSpec("SmolLM2@full", "x/SmolLM2.gguf", "full")),
        ("m@last:512", ModelSpec("m@last:512", "m", "last", 512)),
        ("mine=m@window:64", ModelSpec("mine", "m", "window", 64)),
        ("m@rag", ModelSpec("m@rag", "m", "rag", 5)),
        ("m@rag:3", ModelSpec("m@rag:3", "m", "rag", 3)),
        ("a b=org/model@rag:3", ModelSpec("a b", "org/model", "rag", 3)),
        ("m@rag:3#20", ModelSpec("m@rag:3", "m", "rag", 3, 20)),
        ("mine=m#5", ModelSpec("mine", "m", samples=5)),
        ("./user@host/model", ModelSpec("model", "./user@host/model")),
    ],
)
def test_specs(text, expected):
    assert parse_spec(text) == expected


def test_a_path_that_looks_like_a_spec_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=b", "m@last"):
        (tmp_path / name).mkdir()
        assert parse_spec(name) == ModelSpec(name, name)


def test_the_folder_that_one_is_in_has_a_name(tmp_path, monkeypatch):
    """Without one its answers would lie in OUT/answers itself, and those of `..` in OUT."""
    (tmp_path / "mine" / "below").mkdir(parents=True)
    for place, text in (("mine", "."), ("mine/below", ".."), ("mine/below", "../")):
        monkeypatch.chdir(tmp_path / place)
        assert parse_spec(text).name == source_name(text) == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no source"),
        ("@full", "has no source"),
        ("m@first:3", "asks for kind 'first': choose one of full, last, window, rag"),
        ("m@full:3", "full takes no number"),
        ("m@last", "last needs a number of at least 1, such as @last:512"),
        ("m@window:0", "window needs a number of at least 1"),
        ("m#0", "'m#0' asks for 0 samples of a cell: give at least 1"),
        ("m@rag:x", "rag needs a number of at least 1, such as @rag:5"),
    ],
)
def test_specs_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


def test_names_are_all_different():
    assert [spec.name for spec in parse_specs(["m", "b=m", "m@rag"])] == ["m", "b", "m@rag"]
    with pytest.raises(ValueError, match=r"2 models, and 'm' is the name of two: write NAME=SOURCE"):
        parse_specs(["m", "org/m"])
    assert parse_specs(["m#3"], limits=True)[0].samples == 3
    with pytest.raises(ValueError, match="m#3: this evaluation asks every model the same; leave out the #"):
        parse_specs(["m#3"])
    with pytest.raises(ValueError, match="no model was given"):
        parse_specs([])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    models = {"llama": tiny.llama(), **{kind: tiny.memory_model(kind) for kind in ("lm2", "rmt", "armt")}}
    return {name: tiny.save(model, place / name) for name, model in models.items()}


@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
def test_models_with_a_memory_stream(folders, kind):
    runner = load_runner(parse_spec(str(folders[kind])), RunnerOptions())
    assert isinstance(runner, StreamingRunner)
    assert runner.description["segment_length"] == tiny.SEGMENT
    assert runner.description["source"] == kind
    assert runner.description["dtype"] == "float32"
    with pytest.raises(ValueError, match="has a memory and reads segment by segment: leave out @full"):
        load_runner(parse_spec(f"{folders[kind]}@full"), RunnerOptions())


def test_plain_models_run_as_asked(folders):
    made = {
        ending: load_runner(parse_spec(f"{folders['llama']}{ending}"), RunnerOptions(passage_words=7))
        for ending in ("", "@full", "@last:99", "@window:9", "@rag:2")
    }
    assert all(isinstance(made[ending], AttentionRunner) for ending in ("", "@full", "@last:99", "@window:9"))
    assert made["@last:99"].last == 99
    assert made["@window:9"].window == 9
    rag = made["@rag:2"]
    assert isinstance(rag, RagRunner)
    assert {"k": 2, "passage_words": 7}.items() <= rag.description.items()
    assert "BM25" in rag.description["retriever"]
    kinds = [runner.description["kind"] for runner in made.values()]
    assert kinds == ["full attention"] * 2 + ["the last 99 tokens", "sliding window of 9 tokens", "retrieval"]


@pytest.mark.parametrize("kind", ["llama", "lm2"])
def test_rotary_frequencies_are_not_rounded(folders, kind):
    """As `from_pretrained` leaves them."""
    model, _ = load_model(str(folders[kind]), RunnerOptions(dtype="bfloat16"))
    assert model.dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_weights_of_a_gguf_file_are_as_asked_for(tmp_path):
    model, _ = load_model(str(write_gguf(tmp_path / "tiny.gguf")), RunnerOptions(dtype="bfloat16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_fingerprints_tell_models_apart():
    model = tiny.llama()
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
        assert fingerprint(model) != before
        model.lm_head.weight[0, 0] -= 1
    assert len({before, fingerprint(tiny.memory_model("lm2")), fingerprint(tiny.memory_model("rmt"))}) == 3


@pytest.mark.parametrize("kind", ["llama", "lm2", "rmt"])
def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(folders, kind, tmp_path):
    folder = Path(shutil.copytree(folders[kind], tmp_path / kind))
    larger = AutoTokenizer.from_pretrained(folder)
    tokens = len(larger)
    larger.add_tokens(["Alma"])
    larger.save_pretrained(folder)
    with pytest.raises(ValueError, match=rf"ids up to {tokens}, and the model has embeddings of {tokens} tokens"):
        load_runner(parse_spec(str(folder)), RunnerOptions())


def test_models_that_cannot_be_read(folders, tmp_path):
    def load(source):
        load_runner(parse_spec(str(source)), RunnerOptions())

    with pytest.raises(ValueError, match=r"has no config\.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder or file /nowhere/at/all"):
        load("/nowhere/at/all")
    said = {"model.safetensors": "cannot be read as a causal", "tokenizer.json": "no tokenizer: save the model's own"}
    for missing, message in said.items():
        broken = tmp_path / missing.split(".")[0]
        shutil.copytree(folders["llama"], broken)
        (broken / missing).unlink()
        (broken / "tokenizer_config.json").unlink()
        with pytest.raises(ValueError, match=message):
            load(broken)
