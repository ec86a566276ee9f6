"""What kind of model a folder holds, with an error that says what to do when it is not one."""

import json
from pathlib import Path
from typing import Any

from lm2.configuration import BASE_MODEL_TYPES
from lm2.errors import in_a_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_folder(folder: Path, model_types: tuple[str, ...] = ("lm2",)) -> str:
    """The type of the model whose configuration `folder` holds.

    Raises:
        ValueError: no such folder, no readable `config.json` in it, or the model of another type.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the folder of a saved model, such as `lm2 convert` makes")
    model_type = model_type_of(folder)
    if model_type not in model_types:
        remedy = f"run `lm2 convert {folder} OUT` first"
        if model_type not in BASE_MODEL_TYPES:
            remedy = "give the folder of a model that `lm2 convert` or `lm2 train` made"
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}, not {' or '.join(map(repr, model_types))}: {remedy}"
        )
    return model_type


def model_type_of(folder: Path) -> str:
    """The `model_type` in the `config.json` of a folder, "" where it has none.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    path = folder / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type", ""))
    except FileNotFoundError:
        raise ValueError(f"{str(folder)!r} has no config.json: give the folder of a saved model") from None
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): save the model again") from None


def read_tokenizer(place: Any, name: str, **options: Any) -> Any:
    """`AutoTokenizer.from_pretrained(place, **options)`.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(place, **options)
    except Exception as error:  # what the loader raises differs by format and version
        raise ValueError(
            f"no tokenizer could be read from {name} ({in_a_line(error)[:200]}): give a folder saved with "
            "save_pretrained, a GGUF file or a hub name such as 'HuggingFaceTB/SmolLM2-135M'"
        ) from None
    assert found is not None
    return found


def check_vocabulary(tokenizer: Any, embeddings: int, name: str) -> None:
    """Check that a model has an embedding of every token that a text or a conversation can become.

    Special tokens that nothing writes, such as a pad that was added to the tokenizer alone, need none: transformers
    also adds one to tokenizers of GGUF files.

    Raises:
        ValueError: it has fewer.
    """
    if not tokenizer.is_fast:
        return  # not all of these tell which of their tokens are special
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    written = f"{tokenizer.bos_token} {tokenizer.eos_token} {tokenizer.chat_template}"
    largest = max(i for word, i in tokenizer.get_vocab().items() if i not in special or word in written)
    if largest >= embeddings:
        raise ValueError(
            f"{name}: the tokenizer writes ids up to {largest:,}, and the model has embeddings of {embeddings:,} "
            f"tokens: take the model's own tokenizer, or give it more with resize_token_embeddings({largest + 1})"
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer was saved into the folder."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def without_tokenizer(source: str) -> str:
    """What to say of a model without one: where the trainer wrote it, how a model with one is made of it."""
    remedy = "save the model's own there with tokenizer.save_pretrained"
    if (Path(source) / "trainer_state.json").is_file():
        remedy = f"it is a training's checkpoint, `lm2 export {source} OUT --tokenizer TOKENIZER` makes a model of it"
    return f"{source} holds no tokenizer: {remedy}"


def read_whole(kind: Any, place: Any, name: str, **options: Any) -> Any:
    """`kind.from_pretrained(place, **options)`, but weights that are not there are no random numbers, and those of the
    blocks that the configuration does not know are not left out.

    Raises:
        ValueError: weights are damaged, missing, too many, of another shape, or stored for a package that is not here.
        OSError: as `from_pretrained`, where nothing can be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        model, found = kind.from_pretrained(place, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except SafetensorError as error:
        raise ValueError(f"{name} has damaged or incomplete weights ({error}): save or fetch it again") from error
    except StrictDataclassError as error:  # Hugging Face's own class is not a ValueError
        raise ValueError(
            f"{name} has values that do not fit in its config.json ({in_a_line(error)}): mend them"
        ) from error
    except ImportError as error:  # what Hugging Face raises for weights that are quantised
        raise ValueError(
            f"{name} cannot be read here ({in_a_line(error)}): take the same model with float weights"
        ) from error
    if other := sorted(found["mismatched_keys"]):
        key, stored, asked = other[0]
        raise ValueError(
            f"{name} does not fit its config.json: {key} has shape {tuple(stored)}, and by the configuration it has "
            f"{tuple(asked)}: save or fetch it again"
        )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{name} lacks {len(missing)} of the model's weights, such as {missing[0]}: save or fetch it again, with "
            "all of its files"
        )
    if dropped := sorted(key for key in found["unexpected_keys"] if key.startswith("model.")):  # not a head of another
        raise ValueError(
            f"{name} has {len(dropped)} weights that its config.json has no place for, such as {dropped[0]}: mend the "
            "configuration, or fetch both again"
        )
    return model


def beside(name: str) -> str:
    """What to say of a name that was looked for on the hub, where it looks like a mistyped path."""
    folder = Path(name).parent
    return f"; {folder} here is a folder and has no {Path(name).name}" if folder != Path() and folder.is_dir() else ""
