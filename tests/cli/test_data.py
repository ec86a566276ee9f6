"""`lm2 data prepare` and `lm2 data check` from their command lines."""

import json

import pytest

import lm2_command as cli
from lm2.data.tokenizer import train_tokenizer

TEXTS = [f"document {n} says that word {n % 7} is word {n % 5}. " * (1 + n % 9) for n in range(30)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    train_tokenizer(TEXTS, 400, single_tokens=()).save_pretrained(folder / "tokenizer")
    (folder / "x.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    return folder


def prepare(place, *more):
    words = ["data", "prepare", f"x={place / 'x.jsonl'}", "--tokenizer", str(place / "tokenizer")]
    return cli.main([*words, "--out", str(place / "out"), "--column", "body", "--segment-length", "16", *more])


def test_a_store_is_made_checked_and_found_corrupt(place, capsys):
    assert prepare(place, "--processes", "1") == 0
    made = capsys.readouterr().out
    assert "30 documents" in made
    assert "| x | 30 | 0 |" in made
    assert "> 64 segments" in made
    assert prepare(place) == 0  # nothing is left to do
    assert capsys.readouterr().out == made
    assert cli.main(["data", "check", str(place / "out"), "--segment-length", "16"]) == 0
    checked = capsys.readouterr().out
    assert "1 shards are sound" in checked
    assert made.partition("\n\n")[2] == checked.partition("\n\n")[2]
    path = next((place / "out" / "shards").glob("*.tokens"))
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    assert cli.main(["data", "check", str(place / "out")]) == 2
    assert f"{path} is corrupt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--segment-length", "1"], "--segment-length is 1: it must be at least 2"),
        (["--column", "text", "--out", "other"], "x.jsonl:1 has no column 'text', it has ['body']"),
        (["--tokenizer", "./nowhere"], "no tokenizer could be read from './nowhere'"),
    ],
)
def test_errors_are_one_line(place, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    assert prepare(place, "--processes", "1", *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
