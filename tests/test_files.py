"""A file appears whole or stays what it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.files import by_rows, write_json

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
