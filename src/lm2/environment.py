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
    """Versions of Python, our packages and the named ones, commit (None outside a repository), and processors."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    names = (*PACKAGES, *packages)
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in names}},
        "commit": done.stdout.strip() if done.returncode == 0 else None,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:  # run from a source tree that is not installed
        return None
