"""What a result file says about where it was made."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("lm2", "torch", "transformers", "tokenizers")


def environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Versions of Python, our packages and the named ones, the commit, and processors."""
    names = (*PACKAGES, *packages)
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in names}},
        "commit": commit(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
    }


def in_words(made: dict[str, Any]) -> str:
    """What `environment` found, in a line of a page."""
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return f"{versions}; commit {made['commit'] or 'unknown'}; {made['machine']}, {made['processors']} processors"


def with_one_thread(made: dict[str, Any]) -> str:
    """The same on a page of models that were trained side by side."""
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items() if number)
    machine = f"{made['processors']} processors ({made['machine']})"
    return f"commit {made['commit'] or 'unknown'}; {machine}, one thread a model; {versions}"


def commit() -> str | None:
    """The commit of this source; None where it is in no repository, or git is not there.

    A package that is installed into an environment inside of somebody's repository is no part of that.
    """
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return (git("rev-parse", "HEAD") or "").strip() or None


def git(*words: str) -> str | None:
    """What git says in this source's folder; None where it says that something is wrong, or is not there."""
    command = ["git", *words]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:  # run from a source tree that is not installed
        return None
