"""A finished training as a folder: the model with its tokenizer, and what it cost."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm2.environment import environment
from lm2.files import write_json
from lm2.training.config import RunConfig
from lm2.training.trainer import LOG_FILE, last_checkpoint, train

MODEL_FOLDER, TRAINING_FILE = "model", "training.json"


def train_folder(
    run: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    part: Callable[[Any], PreTrainedModel] | None = None,
) -> None:
    """Do a run from its last checkpoint; `model` appears in its folder when it is done, and then nothing is done.

    Args:
        tokens: what the run reads, for the facts.
        part: the part of the trained model that is saved; all of it when not given.
    """
    folder = run.output_dir
    if (folder / MODEL_FOLDER).exists():
        return
    resumed = any(folder.glob("checkpoint-*"))
    began = time.perf_counter()
    model = train(run, resume=True).model
    assert isinstance(model, PreTrainedModel)
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": run.steps,
        "tokens": tokens,
        "seconds": None if resumed else round(time.perf_counter() - began, 1),  # unknown when stopped in between
        "commit": environment()["commit"],
    }
    write_json(folder / TRAINING_FILE, facts)
    partial_folder = folder / ".model.partial"
    (model if part is None else part(model)).save_pretrained(partial_folder)
    tokenizer.save_pretrained(partial_folder)
    partial_folder.rename(folder / MODEL_FOLDER)


def begin_with(other: Path, folder: Path) -> None:
    """Let a run begin with what another one of the same settings has done; one that has begun is left as it is.

    The checkpoint comes last, and whole, so that this can be cut off.

    Raises:
        ValueError: the other has no checkpoint.
    """
    if any(folder.glob("checkpoint-*")):
        return
    checkpoint = last_checkpoint(other)
    if checkpoint is None:
        raise ValueError(f"{other} has no checkpoint to begin with: train there first")
    folder.mkdir(parents=True, exist_ok=True)
    for path in other.glob("*.jsonl"):
        shutil.copy(path, folder)
    beside = folder / ".checkpoint.partial"
    shutil.copytree(checkpoint, beside, dirs_exist_ok=True)
    beside.rename(folder / checkpoint.name)


def steps_done(folder: Path) -> int:
    """The step that the training in `folder` has logged last."""
    path = folder / LOG_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1])["step"] if whole else 0
