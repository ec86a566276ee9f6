"""Settings beside numbers, and those of a run that goes on."""

import json

import pytest

from lm2.settings import SETTINGS_FILE, check_settings, published_settings, saved_options

SETTINGS = {"options": {"babi": None, "books": "somewhere/far/novels", "seed": 3, "out": "a/b"}, "sizes": {"steps": 5}}


def test_a_run_goes_on_with_the_same_settings_only(tmp_path):
    for _ in range(2):
        check_settings(tmp_path, SETTINGS, "run")
    before = (tmp_path / SETTINGS_FILE).read_bytes()
    with pytest.raises(ValueError, match="steps was 5 and is 6"):
        check_settings(tmp_path, {**SETTINGS, "sizes": {"steps": 6}}, "run")
    assert (tmp_path / SETTINGS_FILE).read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "novel.txt").write_text("Chapter 1")
    with pytest.raises(ValueError, match="holds other files"):
        check_settings(tmp_path, SETTINGS, "run")


def test_published_settings_tell_no_folder_of_a_machine(tmp_path):
    check_settings(tmp_path, SETTINGS, "run")
    assert published_settings(tmp_path) == {**SETTINGS, "options": {**SETTINGS["options"], "books": "novels"}}
    assert json.loads((tmp_path / SETTINGS_FILE).read_text())["options"]["books"] == "somewhere/far/novels"


def test_the_options_of_a_folder_are_those_it_was_begun_with(tmp_path):
    check_settings(tmp_path, {"options": {"seed": 3, "babi": "somewhere/babi"}, "other": {"seed": 4}}, "run")
    assert saved_options(tmp_path) == {"seed": 3, "babi": "somewhere/babi"}
