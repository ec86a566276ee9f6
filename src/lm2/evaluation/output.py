"""A report's files: NAME.json with every number, and NAME.md with the page, each whole or not at all."""

import json
from pathlib import Path
from typing import Any

from lm2.files import replacing


def write_report(folder: Path, name: str, report: dict[str, Any], page: str) -> None:
    """Write both files into `folder`."""
    for file, text in ((f"{name}.json", json.dumps(report, indent=1) + "\n"), (f"{name}.md", page)):
        with replacing(folder / file) as beside:
            beside.write_text(text, encoding="utf-8")
