"""`lm2 look`: tables, a page, a picture and numbers; bad input leaves what was there."""

import importlib
import io
import json
import sys

import pytest

from lm2_command import main

TEXT = "Mary went to the kitchen . John is in the garden . " * 4


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def look(folder, text, out, *flags: str) -> int:
    return main(["look", str(folder), str(text), "--out", str(out), *flags])


def test_it_prints_and_writes(folder, text, tmp_path, capsys):
    flags = ("--ask", "Where is Mary ?", "Where is John ?", "--max-new-tokens", "1", "--without", "2")
    assert look(folder, text, tmp_path / "out", *flags) == 0
    printed = capsys.readouterr().out
    assert "48 tokens in segments of 4" in printed
    assert printed.count("nothing written at all") == 2
    assert printed.count("the first 2 together") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["look.html", "look.json", "look.png"]
    values = json.loads((tmp_path / "out" / "look.json").read_text(encoding="utf-8"))
    assert [answer["question"] for answer in values["answers"]] == ["Where is Mary ?", "Where is John ?"]


def test_a_second_look_takes_the_place_of_the_first_and_is_the_same(folder, text, tmp_path, monkeypatch):
    look(folder, text, tmp_path, "--ask", "Where is Mary ?")
    first = {path.name: path.read_bytes() for path in tmp_path.glob("look.*")}
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    assert look(folder, "-", tmp_path, "--ask", "Where is Mary ?") == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("look.*")} == first


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--without", "-1"), "-1 places to leave out"),
        (("--max-new-tokens", "0"), "0 new tokens"),
        (("--ask", " "), "a question is empty"),
    ],
)
def test_bad_options_are_told_and_nothing_is_written(folder, text, tmp_path, capsys, flags, message):
    assert look(folder, text, tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_nothing_is_read_in_vain(folder, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    module = importlib.import_module("lm2.analysis.look")  # its name in the package is that of the function
    monkeypatch.setattr(module, "look", lambda *parts: pytest.fail("it was read"))
    assert look(folder, text, tmp_path / "out") == 2
    assert "pip install 'lm2[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_folder_is_told_before_the_reading(folder, text, tmp_path, monkeypatch, capsys):
    module = importlib.import_module("lm2.analysis.look")
    monkeypatch.setattr(module, "look", lambda *parts: pytest.fail("it was read"))
    for out in (text, text / "deep" / "out"):
        assert look(folder, text, out) == 2
        assert f"--out is {out}, and {text} is a file: choose a folder" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "standard input"])
def test_a_byte_order_mark_is_no_text(folder, text, tmp_path, monkeypatch, place):
    text.write_text(TEXT, encoding="utf-8-sig")
    monkeypatch.setattr("sys.stdin", text.open(encoding="utf-8"))
    assert look(folder, text if place == "file" else "-", tmp_path / "out") == 0
    sys.stdin.close()
    assert json.loads((tmp_path / "out" / "look.json").read_text(encoding="utf-8"))["tokens"] == len(TEXT.split())


def test_a_missing_text_and_a_folder_that_is_no_model(folder, text, tmp_path, capsys):
    assert look(folder, tmp_path / "no.txt", tmp_path / "out") == 2
    assert "no.txt" in capsys.readouterr().err
    assert look(tmp_path, text, tmp_path / "out") == 2
    assert "has no config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("said", "question", "what"), [(TEXT, "\udce4", "a question"), ("\udce4", "Mary", "the text")])
def test_bytes_that_are_not_utf8_are_one_line(folder, tmp_path, monkeypatch, capsys, said, question, what):
    """As they come from a command line and from standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    assert look(folder, "-", tmp_path / "out", "--ask", question) == 2
    told = "is the byte 0xe4, which is not UTF-8, or half of a character: convert the text, or repair"
    assert capsys.readouterr().err.startswith(f"lm2: error: {what}: \\udce4 {told}")
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_no_text(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "it.bin").write_bytes(b"\xff\xfe\x00")
    with (tmp_path / "it.bin").open(encoding="utf-8") as opened:  # as where the locale names UTF-8
        monkeypatch.setattr("sys.stdin", opened)
        assert look(folder, "-", tmp_path / "out") == 2
    assert "standard input is not UTF-8 text (invalid start byte): convert it first" in capsys.readouterr().err
    assert look(folder, tmp_path / "it.bin", tmp_path / "out") == 2
    assert "it.bin is not UTF-8 text" in capsys.readouterr().err
