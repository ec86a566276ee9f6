"""From a training checkpoint, whole or in shards, to a model folder of safetensors."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

import lm2.baselines  # noqa: F401  registers RMT and ARMT, as `import lm2` does LM2
from lm2.folders import check_vocabulary, read_tokenizer
from lm2.training.sharding import SHARDS, untied


def export(checkpoint: Path, out: Path, tokenizer: str | Path | None = None) -> Path:
    """Write the model of a checkpoint to one folder, and read it back to see that each weight is there, bit for bit.

    Args:
        checkpoint: a folder that the trainer or `save_shards` wrote.
        out: the folder to make; it must not exist.
        tokenizer: a folder or hub name whose tokenizer goes along; None takes the checkpoint's, if it has one.

    Raises:
        ValueError: the checkpoint has no model, is incomplete or damaged, the tokenizer has more tokens than the model,
            or `out` exists.
    """
    if out.exists():
        raise ValueError(f"{out} already exists: choose another folder, or remove it")
    if not (checkpoint / "config.json").is_file():
        raise ValueError(f"{checkpoint} has no config.json: give a checkpoint folder, such as runs/one/checkpoint-1000")
    model = _empty_model(checkpoint)
    weights = read_weights(checkpoint, model)
    beside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(beside, state_dict=dict(weights))  # which it empties
        _save_tokenizer(checkpoint, tokenizer, model, beside)
        _check_equal(beside, weights)
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def _empty_model(checkpoint: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if (checkpoint / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(checkpoint, local_files_only=True)
    return model


def read_weights(checkpoint: Path, model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that a model of this shape has in a checkpoint, put together from their pieces.

    Raises:
        ValueError: some are missing or of another shape, or a file is damaged.
    """
    folder = checkpoint / SHARDS if (checkpoint / SHARDS).is_dir() else checkpoint
    wanted = untied(model)
    try:
        reader: Any = HuggingFaceStorageReader(str(folder))
        found = reader.read_metadata().state_dict_metadata
        _check_complete(folder, wanted, found)
        weights = {name: torch.empty(found[name].size, dtype=found[name].properties.dtype) for name in wanted}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is what is wanted
            dcp.load(weights, storage_reader=reader, no_dist=True)
    except SafetensorError as error:
        raise ValueError(f"{folder} has a damaged file ({error}): copy the checkpoint again, or take another") from None
    return weights


def _check_complete(folder: Path, wanted: dict[str, Tensor], found: dict[str, Any]) -> None:
    """The pieces of each weight must fill its whole shape."""
    for name, tensor in wanted.items():
        pieces = sum(chunk.sizes.numel() for chunk in found[name].chunks) if name in found else 0
        if pieces != tensor.numel() or found[name].size != tensor.shape:
            raise ValueError(
                f"{folder} is incomplete: of {name} it has {pieces} of {tensor.numel()} numbers: copy the files of all "
                "processes, or take another checkpoint"
            )


def _save_tokenizer(checkpoint: Path, tokenizer: str | Path | None, model: PreTrainedModel, out: Path) -> None:
    if tokenizer is None and not (checkpoint / "tokenizer_config.json").is_file():
        return
    place = tokenizer or checkpoint
    found = read_tokenizer(place, repr(str(place)))
    check_vocabulary(found, len(model.get_input_embeddings().get_parameter("weight")), str(place))
    found.save_pretrained(out)


def _check_equal(folder: Path, weights: dict[str, Tensor]) -> None:
    """Read what was written, and compare."""
    left = set(weights)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name not in left or not torch.equal(file.get_tensor(name), weights[name]):
                    raise OSError(f"{name} was not written as it is: the disk may be failing; nothing was left")
                left.remove(name)
    if left:
        raise OSError(f"{len(left)} weights were not written, among them {min(left)}; nothing was left")
