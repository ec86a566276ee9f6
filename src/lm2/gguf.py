"""Read a base model, with its tokenizer, from wherever it lies.

* `load_base` takes a local Hugging Face folder, a GGUF file or a hub name, and says in one sentence what is wrong.
* The configuration is looked at before any weight is read, so an unsupported family costs nothing.
* GGUF weights are dequantised to float32 by transformers; what it would drop in silence (scaled rotary frequencies,
  biases) is refused here. A damaged file is found by laying out every tensor first.
"""

import struct
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lm2.configuration import BASE_MODEL_TYPES
from lm2.errors import first_line
from lm2.folders import beside, check_vocabulary, has_tokenizer, model_type_of, read_tokenizer, read_whole

GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")
BIASED = {"qwen2": ("attn_q.bias", "attn_k.bias", "attn_v.bias")}
"""Biases that a model of an architecture has; those of others would be dropped."""

Base = tuple[PreTrainedModel, PreTrainedTokenizerBase | None]


def load_base(base: str | Path, dtype: torch.dtype | None = None) -> Base:
    """Load a causal language model and its tokenizer (None when it has none) for a retrofit.

    Args:
        base: a folder saved by `save_pretrained`, a GGUF file, or a name on the Hugging Face hub.
        dtype: of the weights; as they are stored when None. Those of a GGUF file are float32.

    Raises:
        ValueError: nothing is there, the file is damaged, the family is not supported, or the tokenizer has more tokens
            than the model.
    """
    model, tokenizer = _load(base, dtype)
    if tokenizer is not None:
        check_vocabulary(tokenizer, model.config.vocab_size, repr(str(base)))
    return model, tokenizer


def _load(base: str | Path, dtype: torch.dtype | None) -> Base:
    path = Path(base).expanduser()
    if path.is_file():
        return load_gguf(path)
    if path.is_dir():
        return load_folder(path, dtype)
    if not _could_be_hub_name(str(base)):
        raise ValueError(
            f"there is no folder or file {str(base)!r}: give a Hugging Face folder, a GGUF file or a hub name such as "
            "'HuggingFaceTB/SmolLM2-135M-Instruct'"
        )
    return load_hub(str(base), dtype)


def base_config(base: str | Path, offline: bool = False) -> PreTrainedConfig:
    """The configuration of what `load_base` would load, without its weights.

    Args:
        base: as for `load_base`.
        offline: whether a hub name is looked for in the cache only.

    Raises:
        ValueError: nothing is there, or the family is not supported.
    """
    path = Path(base).expanduser()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(base), "local_files_only": offline}
    if path.is_file():
        check_gguf(path)
        place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    elif path.is_dir():
        check_family(model_type_of(path))
        place = {"pretrained_model_name_or_path": path, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(**place)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(
            f"{str(base)!r} cannot be read as a model ({first_line(error)}): give a Hugging Face folder, a GGUF file "
            "or a hub name such as 'HuggingFaceTB/SmolLM2-135M-Instruct'"
        ) from error
    check_family(config.model_type)
    return config


def load_folder(folder: Path, dtype: torch.dtype | None = None) -> Base:
    """Load a folder written by `save_pretrained`, without asking the network. Raises ValueError as `load_base`."""
    check_family(model_type_of(folder))
    try:
        options: dict[str, Any] = {"dtype": dtype or "auto", "local_files_only": True, "use_safetensors": True}
        model = read_whole(AutoModelForCausalLM, folder, repr(str(folder)), **options)
    except OSError as error:
        raise ValueError(f"{str(folder)!r} cannot be read as a model: {first_line(error)}") from error
    return model, read_tokenizer(folder, repr(str(folder)), local_files_only=True) if has_tokenizer(folder) else None


def load_hub(name: str, dtype: torch.dtype | None = None) -> Base:
    """Load a model by its name on the Hugging Face hub, or from its cache. Raises ValueError as `load_base`."""
    try:
        check_family(PreTrainedConfig.get_config_dict(name)[0].get("model_type", ""))
        model = read_whole(AutoModelForCausalLM, name, repr(name), dtype=dtype or "auto", use_safetensors=True)
        return model, read_tokenizer(name, repr(name))
    except OSError as error:
        raise ValueError(
            f"{name!r} is no local folder or file and could not be fetched from the Hugging Face hub: check the name "
            f"and the network, or give a local folder or GGUF file ({first_line(error)}){beside(name)}"
        ) from error


def load_gguf(path: Path) -> Base:
    """Load a GGUF file of a Llama, Qwen2 or Qwen3 architecture: float32 weights and, if it carries one, its tokenizer.

    Raises:
        ValueError: not a GGUF file, damaged, an unsupported architecture, rotary frequencies that would be lost, or the
            `gguf` package is missing.
    """
    brings_tokenizer = check_gguf(path)
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        model = read_whole(AutoModelForCausalLM, path.parent, repr(str(path)), **options)
        tokenizer = read_tokenizer(path.parent, repr(str(path)), **options) if brings_tokenizer else None
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a model: {first_line(error)}") from error
    del model.config.quantization_config  # it describes the file; the weights in memory are plain float32
    return model, tokenizer


def check_family(family: str) -> None:
    """Raise ValueError unless a memory can be added to this `model_type`."""
    if family not in BASE_MODEL_TYPES:
        raise ValueError(
            f"a memory cannot be added to a {family!r} model: the base must be one of {', '.join(BASE_MODEL_TYPES)}"
        )


def check_gguf(path: Path) -> bool:
    """Lay out every tensor of the file, refuse what cannot be represented, and tell whether a tokenizer is inside.

    Raises:
        ValueError: as `load_gguf`.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(
                f"{str(path)!r} is not a GGUF file: give a GGUF file, or the folder that holds config.json"
            )
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ValueError("reading a GGUF file needs the `gguf` package: pip install 'lm2[gguf]'") from error
    try:
        reader = GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        brings_tokenizer = "tokenizer.ggml.model" in reader.fields
        scaled = _scales(reader, architecture)
        biases = [tensor.name for tensor in reader.tensors if tensor.name.endswith(".bias")]
    except (ValueError, KeyError, IndexError, OverflowError, TypeError, struct.error) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or cut short ({path.stat().st_size:,} bytes): download it again "
            f"({first_line(error)})"
        ) from error
    if architecture not in GGUF_ARCHITECTURES:
        raise ValueError(
            f"{str(path)!r} holds a {architecture!r} model: a GGUF base must be one of {', '.join(GGUF_ARCHITECTURES)}"
        )
    if scaled:
        raise ValueError(
            f"{str(path)!r} scales its rotary frequencies, which cannot be read from a GGUF file: "
            "give the Hugging Face folder of the same model"
        )
    if lost := [name for name in biases if not name.endswith(BIASED.get(architecture, ()))]:
        raise ValueError(
            f"{str(path)!r} has {len(lost)} biases that a {architecture!r} model read from a GGUF file has no place "
            f"for, such as {lost[0]}: give the Hugging Face folder of the same model"
        )
    return brings_tokenizer


def _scales(reader: Any, architecture: str) -> bool:
    """Whether rotary frequencies are scaled; a factor without a type means that they are, linearly."""
    names = ("scaling.type", "scaling.factor", "scale_linear")
    kind, *factors = (reader.fields.get(f"{architecture}.rope.{name}") for name in names)
    if any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        return True
    if kind is not None:
        return kind.contents() != "none"
    return any(factor is not None and factor.contents() not in (0, 1) for factor in factors)


def _could_be_hub_name(base: str) -> bool:
    """Whether the text can be `name` or `owner/name` on the hub, rather than a mistyped path."""
    return base.count("/") <= 1 and not base.startswith((".", "/", "~")) and not base.endswith((".gguf", "/"))
