"""The settings of a folder that a command goes on with: written at first, and later to be the same."""

import json
from pathlib import Path
from typing import Any

from lm2.data.babi import BABI_SUFFIXES
from lm2.data.background import TEXT_SUFFIXES
from lm2.files import name_and_digest, write_json

SETTINGS_FILE = "settings.json"
PATHS = {"babi": BABI_SUFFIXES, "books": TEXT_SUFFIXES}
"""Options that are folders of texts, and how the files end that are read of them."""


def check_settings(folder: Path, settings: dict[str, dict[str, Any]], what: str) -> None:
    """Write the settings of a new run of `what`; those of one to go on with must be the same, and the texts they name.

    Raises:
        ValueError: the folder holds a run with other settings or texts, or other files.
    """
    path, settings = folder / SETTINGS_FILE, json.loads(json.dumps({**settings, "texts": _texts(settings["options"])}))
    if not path.exists():
        if any(folder.iterdir()):
            raise ValueError(f"{folder} holds other files: choose an empty or a new folder")
        write_json(path, settings)
        return
    saved = _saved(folder)
    changed = [
        f"{name} was {saved.get(part, {}).get(name)} and is {value}"
        for part, values in settings.items()
        for name, value in values.items()
        if saved.get(part, {}).get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a {what} with other settings ({'; '.join(changed)}): choose another folder, or remove it"
        )


def _texts(options: dict[str, Any]) -> dict[str, str]:
    """What is in the folders of texts: their names stay when it changes."""
    named = {name: Path(options[name]) for name in PATHS if options.get(name)}
    return {f"what is in {name}": name_and_digest(path, PATHS[name]) for name, path in named.items()}


def saved_options(folder: Path) -> dict[str, Any]:
    """The options that the run of a folder was begun with, as JSON values."""
    return _saved(folder)["options"]


def published_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings of a folder as they stand beside its numbers: of folders of texts the last name only."""
    settings = _saved(folder)
    named = {name: Path(value).name for name, value in settings["options"].items() if name in PATHS and value}
    return {**settings, "options": {**settings["options"], **named}}


def _saved(folder: Path) -> dict[str, dict[str, Any]]:
    return json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
