"""A model spread over processes: FSDP2 by whole blocks, the check that it is real, and shards on disk.

A checkpoint of shards is a folder with the configuration and `shards/`: one safetensors file per process, each of which
says where its pieces belong, so that nothing is unpickled and any number of processes can read it.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

SHARDS = "shards"


def policy(bf16: bool) -> MixedPrecisionPolicy:
    """What is bfloat16 in a sharded model: the weights as they are used. Gradients are summed in float32, and what goes
    into a block is never cast, for the banks among it are float32."""
    weights = torch.bfloat16 if bf16 else None
    return MixedPrecisionPolicy(param_dtype=weights, reduce_dtype=torch.float32, cast_forward_inputs=False)


def shard(model: PreTrainedModel, mesh: DeviceMesh | None = None, *, bf16: bool = False) -> None:
    """Shard a model in place with FSDP2: each whole block is gathered when it runs, the rest stays together.

    A memory is never a unit of its own, since the walk over the segments calls its parts many times.

    Args:
        model: with its weights, the same in every process.
        mesh: the processes to shard over; all of them by default.
        bf16: use bfloat16 copies of the weights.
    """
    names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    for block in [module for module in model.modules() if type(module).__name__ in names]:
        fully_shard(block, mesh=mesh, mp_policy=policy(bf16))
    fully_shard(model, mesh=mesh, mp_policy=policy(bf16))


def check_in_force(model: nn.Module, fsdp: bool, processes: int) -> None:
    """Check that a wrapped model is parallel in the way that was asked for: engines drop what they cannot do silently.

    Raises:
        ValueError: it is not.
    """
    if processes == 1:
        return
    sharded = [isinstance(parameter, DTensor) for parameter in model.parameters()]
    if fsdp and not (isinstance(model, FSDPModule) and all(sharded)):
        raise ValueError(
            f"fsdp=True was asked for, but {sharded.count(False)} of {len(sharded)} parameters of the wrapped "
            f"{type(model).__name__} are whole in each process: start it with torchrun on GPUs, or set fsdp=False."
        )
    if not fsdp and not isinstance(model, DistributedDataParallel):
        raise ValueError(
            f"{processes} processes were started, but the model is a bare {type(model).__name__}, whose gradients are "
            "not shared: start it with torchrun, or with one process."
        )


def save_shards(model: PreTrainedModel, folder: Path) -> None:
    """Write a sharded model, each process its own part; the folder appears when it is complete.

    Raises:
        ValueError: the folder is there already.
    """
    if folder.exists():
        raise ValueError(f"{folder} already exists: choose another folder, or remove it")
    beside = folder.with_name(f".{folder.name}.partial")
    if dist.get_rank() == 0:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        model.config.save_pretrained(beside)
        if model.can_generate() and model.generation_config is not None:
            model.generation_config.save_pretrained(beside)
    dist.barrier()
    dcp.save(untied(model), storage_writer=HuggingFaceStorageWriter(str(beside / SHARDS), save_distributed=True))
    dist.barrier()
    if dist.get_rank() == 0:
        os.replace(beside, folder)
    dist.barrier()


def untied(model: PreTrainedModel) -> dict[str, Any]:
    """The model's weights by name, each that is shared once."""
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    return {name: tensor for name, tensor in get_model_state_dict(model).items() if name not in tied}
