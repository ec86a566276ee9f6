"""A file appears whole or stays what it was."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.errors import sentence
from lm2.files import append_line, by_rows, content_digest, replacing, write_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_json_by_rows_is_the_same_json(values):
    assert json.loads(by_rows(values)) == values


def test_a_row_of_a_table_is_a_line():
    found = by_rows({"n": 2, "by name": {"a": {"rows": [{"x": 1, "y": [1, 2]}, {"x": 2}], "z": {}}}, "plain": [1, 2]})
    assert found.splitlines() == [
        *("{", ' "n": 2,', ' "by name": {', '  "a": {'),
        *('   "rows": [', '    {"x": 1, "y": [1, 2]},', '    {"x": 2}', "   ],", '   "z": {}', "  }", " },"),
        *(' "plain": [1, 2]', "}"),
    ]


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "it.json", {"a": [1, 2.5, None]})
    text = (tmp_path / "it.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1, 2.5, None]}
    assert text.endswith("}\n")


def test_what_was_there_stays_where_values_cannot_be_written(tmp_path):
    write_json(tmp_path / "it.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "it.json", {"a": object()})
    assert json.loads((tmp_path / "it.json").read_text(encoding="utf-8")) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    """The system names none when it is the writing that fails, not the opening."""
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "it.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert sentence(caught.value).startswith(f"{tmp_path / 'it.json'}: the disk is full")
    with pytest.raises(OSError, match="reset") as caught, replacing(tmp_path / "it.json"):
        raise OSError(errno.ECONNRESET, "connection reset")  # of what is read meanwhile
    assert caught.value.filename is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_line_that_does_not_fit_on_the_disk_names_its_file(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(tmp_path / "log.jsonl", {"step": 1})
    assert caught.value.filename == str(tmp_path / "log.jsonl")


def test_a_part_that_was_written_goes_when_the_rest_cannot_be(tmp_path):
    def half_of_it():
        with replacing(tmp_path / "it.txt") as beside:
            beside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        half_of_it()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Or a machine that loses its power leaves an empty file under the name."""
    done, sync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("sync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or rename(*names))
    write_json(tmp_path / "it.json", {"a": 1})
    assert done == ["sync", "rename"]


def test_a_digest_is_that_of_what_the_files_hold_and_are_called(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "in").mkdir(parents=True)
        (folder / "in/a.txt").write_text("Mary went to the garden.")
    digest = content_digest(first, (".txt",))
    assert digest == content_digest(second, (".txt",))
    (second / "notes.md").write_text("of another kind")
    assert digest == content_digest(second, (".txt",))
    (second / "in/a.txt").rename(second / "in/b.txt")
    assert digest != content_digest(second, (".txt",))
    (first / "in/a.txt").write_text("Mary went to the office.")
    assert digest != content_digest(first, (".txt",))
    assert content_digest(first / "in/a.txt", (".txt",)) != content_digest(second / "in/b.txt", (".txt",))
