"""A file appears whole or stays what it was."""

import json

import pytest

from lm2.files import write_json


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
