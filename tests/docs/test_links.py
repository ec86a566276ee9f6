"""Relative links of the documents lead to files, and functions and tests that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)[^)]*\)")
NAMED = re.compile(r"`((?:src|tests|tools|examples)/[\w/]+\.py)(?:::([\w.]+))?`")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path):
    missing = [
        target for target in LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_functions_exist(path):
    """A document names code as `src/lm2/memory.py::LM2Memory.read`; each part of the name is defined in that file."""
    for file, name in NAMED.findall(path.read_text(encoding="utf-8")):
        assert (ROOT / file).exists(), f"{file} does not exist"
        source = (ROOT / file).read_text(encoding="utf-8")
        for part in filter(None, name.split(".")):
            assert re.search(rf"^\s*(?:async )?(?:def|class) {part}\b|^\s*{part}\b.*=", source, re.MULTILINE), (
                f"{file} defines no {part}"
            )
