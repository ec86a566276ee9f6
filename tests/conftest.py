"""Fixtures that several parts of the suite share."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real bAbI files and books: `LM2_DATA`, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("LM2_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}: set LM2_DATA to run this test")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
