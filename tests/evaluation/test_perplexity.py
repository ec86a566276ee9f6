"""Perplexity by segment: the losses are those of the models themselves, and only comparable numbers stand together."""

import gzip
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lm2 import LM2ForCausalLM
from lm2.evaluation import perplexity
from lm2.evaluation.models import parse_specs
from lm2.evaluation.perplexity import PerplexityOptions, common_length, documents, score, tokens
from lm2.evaluation.perplexity_report import bins, gain, measured, pooled
from tests.accelerator import DEVICE, accelerator
from tests.evaluation.tiny import SEGMENT, codec, llama, memory_model, prose, save, tokenizer
from tests.processes import in_two_processes


def ids(segments: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, len(tokenizer()), (segments, SEGMENT), generator=torch.Generator().manual_seed(seed))


def losses(logits_LV: torch.Tensor, ids_L: torch.Tensor) -> float:
    return F.cross_entropy(logits_LV[:-1], ids_L[1:]).item()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lm2", "rmt", "armt"])
def test_carried_is_the_whole_document_and_reset_each_segment_alone(kind, monkeypatch):
    model, ids_ST = memory_model(kind), ids(5)
    whole = model(ids_ST.reshape(1, -1)).logits[0].view(5, SEGMENT, -1)
    for at_once in (1, 3 * SEGMENT, 10_000):
        monkeypatch.setattr(perplexity, "TOKENS_AT_ONCE", at_once)
        found = score(model, ids_ST)
        assert found["carried"] == pytest.approx([losses(*pair) for pair in zip(whole, ids_ST, strict=True)], abs=1e-4)
        assert found["reset"] == pytest.approx([losses(model(row[None]).logits[0], row) for row in ids_ST], abs=1e-4)
    assert found["carried"][0] == pytest.approx(found["reset"][0], abs=1e-5)
    assert found["carried"][1:] != pytest.approx(found["reset"][1:], abs=1e-3)


@torch.no_grad()
def test_a_plain_model_has_one_row_up_to_the_length_that_it_takes(monkeypatch):
    monkeypatch.setattr(perplexity, "TOKENS_AT_ONCE", 2 * SEGMENT)
    model, ids_ST = llama(256), ids(256 // SEGMENT + 3)
    found = score(model, ids_ST)
    assert list(found) == ["full"]
    assert len(found["full"]) == 256 // SEGMENT
    kept = ids_ST[: 256 // SEGMENT]
    logits = model(kept.reshape(1, -1)).logits[0].view(*kept.shape, -1)
    assert found["full"] == pytest.approx([losses(*pair) for pair in zip(logits, kept, strict=True)], abs=1e-4)


def test_a_document_s_tokens_are_those_of_the_whole_text(monkeypatch):
    text, own = prose(60), codec(llama())
    whole = tokenizer()(text).input_ids
    for piece in (50, 1000, 10**6):
        monkeypatch.setattr(perplexity, "PIECE", piece)
        assert list(tokens(own, text)) == whole


def test_documents_of_every_kind(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": "four"}\n')
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"text": "five"}\n')
    (tmp_path / "d.csv").write_text("not this")
    names = [("a.txt:1", "one\ntwo"), ("b.jsonl:1", "three"), ("b.jsonl:2", "four"), ("c.jsonl.gz:1", "five")]
    assert list(documents(tmp_path, None)) == names
    assert list(documents(tmp_path, 2)) == names[:2]
    assert list(documents(tmp_path / "b.jsonl", None)) == names[1:3]
    with pytest.raises(ValueError, match=r"there is no .*nowhere.txt"):
        list(documents(tmp_path / "nowhere.txt", None))
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"txt": "four"}\n')
    with pytest.raises(ValueError, match=r"b.jsonl:2: expected a JSON object with a text field"):
        list(documents(tmp_path, None))


@given(last=st.integers(1, 500))
def test_bins_cover_every_segment_once(last):
    covered = [number for first, end in bins(last) for number in range(first, end + 1)]
    assert covered == list(range(1, last + 1))


def test_pooled_is_the_perplexity_over_all_tokens():
    rows = [{"segment": 1, "documents": 3, "nll": 2.0}, {"segment": 2, "documents": 1, "nll": 4.0}]
    assert pooled(rows, 1, 2) == pytest.approx(math.exp((3 * 2 + 4) / 4))
    assert pooled(rows, 3, 4) is None


def test_the_gain_leaves_the_first_segment_out():
    records = [
        {"nll": {"carried": [9.0, 2.0, 2.0], "reset": [1.0, 3.0, 4.0]}},
        {"nll": {"carried": [9.0, 2.0], "reset": [1.0, 2.5]}},
    ]
    found = gain(records)
    assert found["nats"] == pytest.approx((1.5 + 0.5) / 2)
    assert found["low"] < 1.0 < found["high"]
    assert gain(records[:1]) == {"nats": 1.5, "documents": 1}
    assert gain([{"nll": {"full": [1.0, 2.0]}}]) is None


def test_a_mean_of_fewer_segments_than_others_have_is_none():
    rows = [{"segment": number, "documents": 1, "nll": 2.0} for number in (1, 2, 3)]
    assert pooled(rows, 3, 4) is None
    assert pooled(rows, 1, 4) is None
    assert pooled(rows, 1, 3) == pytest.approx(math.exp(2))


def test_documents_of_a_column_are_those_that_have_its_segments():
    rows = [{"segment": number, "documents": n, "nll": 2.0} for number, n in enumerate((1003, 1003, 7, 2), 1)]
    assert [measured(rows, *span) for span in ((1, 1), (1, 2), (3, 4))] == ["1,003", "1,003", "2-7"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {"lm2": save(memory_model("lm2"), place / "lm2"), "plain": save(llama(), place / "plain")}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps({"text": prose(40, seed)}) + "\n" for seed in range(3)))
    return path


def test_a_run_writes_its_report_and_goes_on_where_it_was_stopped(folders, text, tmp_path, monkeypatch):
    options = PerplexityOptions(tuple(map(str, folders.values())), text, segments=6, out=tmp_path / "out")
    perplexity.run(options)
    report = json.loads((tmp_path / "out/perplexity.json").read_text())
    assert report["segment_length"] == SEGMENT
    lm2, plain = report["models"]
    assert lm2["documents"] == plain["documents"] == 3
    assert {name: len(rows) for name, rows in lm2["nll"].items()} == {"carried": 6, "reset": 6}
    assert list(plain["nll"]) == ["full"]
    assert (tmp_path / "out/perplexity.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out/perplexity.md").read_text()
    assert "| lm2 | carried |" in page
    assert "| documents |  | 3 | 3 | 3 | 3 | 3 |" in page
    monkeypatch.setattr(perplexity, "score", None)
    perplexity.run(options)
    assert (tmp_path / "out/perplexity.md").read_text() == page
    with pytest.raises(ValueError, match="segments: 6 then, 7 now"):
        perplexity.run(PerplexityOptions(options.models, text, segments=7, out=options.out))


def test_a_device_that_is_not_the_cpu(folders, text, tmp_path):
    for device in ("cpu", DEVICE):
        with accelerator():
            options = PerplexityOptions(tuple(map(str, folders.values())), text, segments=3, out=tmp_path / device)
            perplexity.run(replace(options, device=device, dtype="float32"))
    cpu, other = (json.loads((tmp_path / at / "perplexity.json").read_text())["models"] for at in ("cpu", DEVICE))
    for one, two in zip(cpu, other, strict=True):
        assert (one["device"], two["device"]) == ("cpu", "cuda")
        assert one["nll"].keys() == two["nll"].keys()
        for row, segments in one["nll"].items():
            assert [at["nll"] for at in two["nll"][row]] == pytest.approx([at["nll"] for at in segments], rel=1e-2)


def test_numbers_of_another_text_of_the_same_name_are_refused(folders, text, tmp_path):
    options = PerplexityOptions((str(folders["lm2"]),), text, segments=2, limit=1, out=tmp_path / "out")
    perplexity.run(options)
    text.write_text(json.dumps({"text": prose(40, 7)}) + "\n")
    with pytest.raises(ValueError, match=r"text_digest: \w{16} then, \w{16} now\): choose another --out folder"):
        perplexity.run(options)


def test_a_home_folder_behind_a_name_is_found(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders["lm2"].parent))
    (spec,) = parse_specs(["memory=~/lm2"])
    assert perplexity.common_length([spec], None) == SEGMENT


def test_models_of_different_segments_do_not_stand_together(folders, tmp_path):
    config = type(memory_model("lm2").config)(**{**memory_model("lm2").config.to_dict(), "segment_length": 8})
    other = save(LM2ForCausalLM(config), tmp_path / "other")
    with pytest.raises(ValueError, match="there are lm2 16, other 8"):
        common_length(parse_specs([str(folders["lm2"]), str(other)]), None)
    with pytest.raises(ValueError, match="there are lm2 16, --segment-length 32"):
        common_length(parse_specs([str(folders["lm2"])]), 32)
    assert common_length(parse_specs([str(folders["plain"]), str(folders["lm2"])]), None) == SEGMENT
    assert common_length(parse_specs([str(folders["plain"])]), 32) == 32


def test_models_of_different_tokenizers_do_not_stand_together(folders, text, tmp_path):
    from lm2.data.tokenizer import train_tokenizer

    llama().save_pretrained(tmp_path / "other")
    train_tokenizer([prose(30, 9)], 400).save_pretrained(tmp_path / "other")
    options = PerplexityOptions(
        (str(folders["plain"]), str(tmp_path / "other")), text, 4, SEGMENT, out=tmp_path / "out"
    )
    with pytest.raises(ValueError, match="other and plain cut document 1 into different tokens"):
        perplexity.run(options)


def test_a_plain_model_that_takes_less_than_a_segment_is_refused(folders, text, tmp_path):
    options = PerplexityOptions((str(folders["plain"]),), text, segment_length=300, out=tmp_path / "out")
    with pytest.raises(ValueError, match="plain takes 256 tokens, less than a segment of 300"):
        perplexity.run(options)


def test_progress_is_in_segments_up_to_those_of_every_document(folders, tmp_path, monkeypatch):
    """A plain model takes a segment of all its 256 positions; the last document has no whole one."""
    path, told = tmp_path / "texts.jsonl", []
    path.write_text("".join(json.dumps({"text": prose(n)}) + "\n" for n in (300, 80, 2)))
    monkeypatch.setattr(perplexity, "counted", lambda name, total: nullcontext(told.append(total) or told.append))
    monkeypatch.setattr(perplexity, "score", lambda model, ids_ST: {"full": [1.0] * len(ids_ST)})
    perplexity.run(PerplexityOptions((str(folders["plain"]),), path, 2, 256, out=tmp_path / "out"))
    assert told == [3 * 2, 2, 2, 0]


def test_a_text_without_a_whole_segment_is_refused(folders, tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    options = PerplexityOptions((str(folders["lm2"]),), tmp_path / "short.txt", out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"no document of .*short.txt has a whole segment of 16 tokens"):
        perplexity.run(options)


@pytest.mark.parametrize("name", ["segments", "segment_length", "limit"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is 0"):
        PerplexityOptions(("x",), Path("y"), **{name: 0})


def test_a_segment_of_one_token_predicts_nothing():
    with pytest.raises(ValueError, match="--segment-length is 1"):
        PerplexityOptions(("x",), Path("y"), segment_length=1)


def measured_in(folder: Path, options: PerplexityOptions) -> None:
    perplexity.run(replace(options, out=folder))


@pytest.mark.dist
def test_two_processes_report_what_one_reports(folders, text, tmp_path):
    options = PerplexityOptions((str(folders["lm2"]),), text, segments=5, out=tmp_path / "one")
    in_two_processes(partial(measured_in, options=options), tmp_path / "two")
    perplexity.run(options)
    both, alone = (
        json.loads((tmp_path / name / "perplexity.json").read_text())["models"][0] for name in ("two", "one")
    )
    assert both["documents"] == alone["documents"] == 3
    assert len(list((tmp_path / "two/answers/lm2").iterdir())) == 2
    for condition in ("carried", "reset"):
        found, expected = ([row["nll"] for row in model["nll"][condition]] for model in (both, alone))
        assert found == pytest.approx(expected, abs=1e-6)
