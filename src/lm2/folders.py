"""What kind of model a folder holds, with an error that says what to do when it is not one."""

import json
from pathlib import Path


def check_folder(folder: Path, model_types: tuple[str, ...] = ("lm2",)) -> str:
    """The type of the model whose configuration `folder` holds.

    Raises:
        ValueError: no such folder, no readable `config.json` in it, or the model of another type.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the folder of a saved model, such as `lm2 convert` makes")
    path = folder / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise ValueError(f"{folder} has no config.json: give the folder of a saved model") from None
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): save the model again") from None
    if model_type not in model_types:
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}, not {' or '.join(map(repr, model_types))}: run "
            f"`lm2 convert {folder} OUT` first"
        )
    return model_type
