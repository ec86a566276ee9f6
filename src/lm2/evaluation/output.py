"""A report's files: NAME.json with every number, and NAME.md with the page, each whole or not at all."""

from pathlib import Path
from typing import Any

from lm2.files import write_json, write_text


def write_report(folder: Path, name: str, report: dict[str, Any], page: str) -> None:
    """Write both files into `folder`."""
    write_json(folder / f"{name}.json", report)
    write_text(folder / f"{name}.md", page)
