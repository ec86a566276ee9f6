"""What a result file says of where it was made: the source's own commit, or none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lm2 import environment


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A copy of the module's file in a folder of somebody's repository; the module takes itself for that."""
    place = tmp_path / ".venv" / "lm2"
    place.mkdir(parents=True)
    copy = shutil.copy(environment.__file__, place)
    monkeypatch.setattr(environment, "__file__", str(copy))
    return tmp_path


def _git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_package_inside_of_another_repository_has_no_commit(source):
    _git(source, "init")
    _git(source, "commit", "--allow-empty", "-m", "theirs")
    assert environment.environment()["commit"] is None
    _git(source, "add", "-f", ".venv")
    _git(source, "commit", "-m", "ours")
    assert environment.environment()["commit"] == _git(source, "rev-parse", "HEAD").strip()


def test_outside_of_a_repository_there_is_no_commit(source):
    assert environment.environment()["commit"] is None


def test_without_a_git_program_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment.environment(["rich"])
    assert found["commit"] is None
    assert found["versions"]["rich"]
