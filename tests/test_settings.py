"""Settings beside numbers, and those of a run that goes on."""

import json

import pytest

from lm2.settings import SETTINGS_FILE, check_settings, published_settings, saved_options

SETTINGS = {"options": {"babi": None, "books": None, "seed": 3, "out": "a/b"}, "sizes": {"steps": 5}}


@pytest.fixture
def novels(tmp_path):
    folder = tmp_path / "somewhere" / "novels"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("Chapter 1")
    return folder


@pytest.fixture
def of_novels(novels):
    return {**SETTINGS, "options": {**SETTINGS["options"], "books": str(novels)}}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


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


def test_a_run_goes_on_with_the_same_texts_only(run, novels, of_novels):
    check_settings(run, of_novels, "run")
    (novels / "notes.md").write_text("not a text that is read")
    check_settings(run, of_novels, "run")
    (novels / "one.txt").write_text("Chapter 2")
    with pytest.raises(ValueError, match=r"what is in books was novels \(\w{16}\) and is novels \(\w{16}\)"):
        check_settings(run, of_novels, "run")


def test_published_settings_tell_no_folder_of_a_machine(run, novels, of_novels):
    check_settings(run, of_novels, "run")
    published = published_settings(run)
    assert published["options"] == {**SETTINGS["options"], "books": "novels"}
    assert published["sizes"] == SETTINGS["sizes"]
    assert str(novels.parent) not in json.dumps(published)
    assert json.loads((run / SETTINGS_FILE).read_text())["options"]["books"] == str(novels)


def test_the_options_of_a_folder_are_those_it_was_begun_with(run, novels):
    check_settings(run, {"options": {"seed": 3, "babi": str(novels)}, "other": {"seed": 4}}, "run")
    assert saved_options(run) == {"seed": 3, "babi": str(novels)}
