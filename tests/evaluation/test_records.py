"""Records on disk: a run that was killed goes on, and one with other settings does not."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm2.evaluation.records import Records, mine, wait_for_all

SETTINGS = {"seed": 0, "shots": 5}


def test_what_was_finished_is_known_to_the_next_run(tmp_path):
    Records(tmp_path, SETTINGS).add(("qa1", 3), {"right": True})
    again = Records(tmp_path, SETTINGS)
    assert ("qa1", 3) in again
    assert ("qa1", 4) not in again
    assert again.read() == [{"key": ["qa1", 3], "right": True}]


def test_a_finished_piece_is_on_the_disk(tmp_path, monkeypatch):
    """Hours of answers outlive a machine that loses its power."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size) or sync(file))
    records = Records(tmp_path, SETTINGS)
    for index in range(2):
        records.add((index,), {})
        assert synced[-1] == records.path.stat().st_size


def test_a_piece_that_two_commands_wrote_counts_once(tmp_path):
    """Both were begun before either had finished it; else a cell of 10 samples would be a cell of 20."""
    first, second = Records(tmp_path, SETTINGS), Records(tmp_path, SETTINGS)
    for records in (first, second):
        records.add((1,), {"right": True})
    second.add((2,), {"right": False})
    assert [(record["key"], record["right"]) for record in first.each()] == [([1], True), ([2], False)]


def test_an_unfinished_last_line_is_run_again_and_leaves_no_damage(tmp_path):
    records = Records(tmp_path, SETTINGS)
    records.add((1,), {})
    with records.path.open("a") as file:
        file.write('{"key": [2], "ri')
    again = Records(tmp_path, SETTINGS)
    assert (1,) in again
    assert (2,) not in again
    again.add((2,), {"right": False})
    assert [record["key"] for record in Records(tmp_path, SETTINGS).read()] == [[1], [2]]


@pytest.mark.parametrize("written", ["", '{"schema": 1, "set'])
def test_what_is_left_of_an_unfinished_header_is_written_anew(tmp_path, written):
    (tmp_path / "records.0.jsonl").write_text(written)
    Records(tmp_path, SETTINGS).add((1,), {})
    assert [record["key"] for record in Records(tmp_path, SETTINGS).read()] == [[1]]


def test_other_settings_are_refused_with_both_values_and_nothing_is_overwritten(tmp_path):
    records = Records(tmp_path, SETTINGS)
    records.add((1,), {})
    before = records.path.read_bytes()
    with pytest.raises(ValueError, match=r"shots: 5 then, 3 now.*choose another --out"):
        Records(tmp_path, {"seed": 0, "shots": 3})
    assert records.path.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "records.0.jsonl").write_text(json.dumps({"schema": 99, "settings": SETTINGS}) + "\n")
    with pytest.raises(ValueError, match="version 99, this program writes version 1"):
        Records(tmp_path, SETTINGS)


def test_a_damaged_line_is_named(tmp_path):
    records = Records(tmp_path, SETTINGS)
    records.add((1,), {})
    records.path.write_text(records.path.read_text() + "no json\n")
    with pytest.raises(ValueError, match=r"records.0.jsonl:3 is damaged \('no json'\)"):
        Records(tmp_path, SETTINGS)


@given(pieces=st.integers(0, 40), world=st.integers(1, 7))
def test_every_piece_is_one_process_s(pieces, world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(world))
        taken = []
        for rank in range(world):
            patch.setenv("RANK", str(rank))
            taken += mine(range(pieces))
    assert sorted(taken) == list(range(pieces))


def test_processes_write_files_of_their_own_and_read_all(tmp_path, monkeypatch):
    Records(tmp_path, SETTINGS).add((0,), {})
    monkeypatch.setenv("RANK", "1")
    Records(tmp_path, SETTINGS).add((1,), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.0.jsonl", "records.1.jsonl"]
    assert len(Records(tmp_path, SETTINGS).read()) == 2


def test_one_process_waits_for_nobody():
    assert wait_for_all() is None
