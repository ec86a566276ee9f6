"""Reading a saved model, with an error that says what to do when the folder is not one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lm2 import LM2ForCausalLM


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


def quiet() -> None:
    """Keep transformers' progress bars and notices out of what the command prints."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load(folder: Path) -> "tuple[LM2ForCausalLM, PreTrainedTokenizerBase]":
    """The model of `folder`, in evaluation mode on the GPU if there is one, and its tokenizer.

    Raises:
        ValueError: as `check_folder`; transformers raises OSError if the weights or the tokenizer are missing.
    """
    check_folder(folder)
    import torch
    from transformers import AutoTokenizer

    from lm2 import LM2ForCausalLM

    quiet()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LM2ForCausalLM.from_pretrained(folder, local_files_only=True).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer is not None
    return model, tokenizer
