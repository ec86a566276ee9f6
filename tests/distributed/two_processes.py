"""What each of two processes (gloo, CPU) does for test_two_processes.py: `PART FOLDER`, under torchrun."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lm2 import LM2Cache, LM2ForCausalLM
from lm2.training import Stage, train
from lm2.training.sharding import save_shards, shard
from tests.distributed.loop import ROWS, build, loop, rows_of
from tests.training.test_trainer import a_run, lm2


def trainer(folder: Path) -> None:
    """Be refused sharding, then train with accumulation and activation checkpointing, off and on."""
    try:
        train(a_run(folder / "refused", lm2, fsdp=True))
    except ValueError as error:
        print(error)
    for accumulation in (1, 4):
        for checkpointing in (False, True):
            run = trained(folder / f"{accumulation}-{checkpointing}", accumulation, checkpointing)
            train(run)


def trained(folder: Path, accumulation: int, checkpointing: bool):
    """The run that the trainer part and its one-process counterpart do."""
    stages = (Stage(steps=1, segments=(1,), rows=8), Stage(steps=3, segments=(1, 2, 3), rows=8))
    settings = {"accumulation": accumulation, "activation_checkpointing": checkpointing, "save_every": 4}
    return a_run(folder, lm2, stages=stages, **settings)


def sharded(folder: Path) -> None:
    """Train in a loop with FSDP2, with and without checkpointing; save in shards; bfloat16 with float32 banks."""
    rank = dist.get_rank()
    found = {}
    for checkpointing in (False, True):
        model = build()
        shard(model)
        blocks = [module for module in model.modules() if isinstance(module, FSDPModule)]
        assert blocks == [model, *model.model.layers]
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        if checkpointing:
            model.activation_checkpointing_enable()
        found[str(checkpointing)] = loop(model, rank * ROWS // 2, (rank + 1) * ROWS // 2)
    save_shards(model, folder / "shards")
    half = build()
    shard(half, bf16=True)
    ids = rows_of(0, 0, 2)
    output = half(ids, past_key_values=LM2Cache(half.config))
    state = output.past_key_values.states[0]
    found["dtypes"] = [str(output.logits.dtype), str(state.keys.dtype), str(state.bank.dtype)]
    second = half(ids, past_key_values=output.past_key_values)
    found["bank after carrying"] = str(second.past_key_values.states[0].bank.dtype)
    if rank == 0:
        (folder / "sharded.json").write_text(json.dumps(found))


def tensor_parallel(folder: Path) -> None:
    """Read a model with its attention and MLP split over the processes; its logits and gradients."""
    from transformers.distributed.configuration_utils import DistributedConfig

    model = LM2ForCausalLM.from_pretrained(folder / "model", distributed_config=DistributedConfig(tp_size=2)).train()
    local = {name: parameter for name, parameter in model.named_parameters()}
    query = local["model.layers.0.self_attn.q_proj.weight"]
    assert isinstance(query, DTensor)
    assert query.to_local().shape[0] * 2 == query.shape[0]
    ids = rows_of(0, 0, 2)
    loss = model(ids, labels=ids).loss
    loss.backward()
    memory = local["model.layers.0.memory.u_proj.weight"].grad
    memory = memory.full_tensor() if isinstance(memory, DTensor) else memory
    gradients = {"query": query.grad.full_tensor().norm().item(), "memory": memory.norm().item()}
    if dist.get_rank() == 0:
        (folder / "tensor_parallel.json").write_text(json.dumps({"loss": loss.item(), **gradients}))


if __name__ == "__main__":
    part, place = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    if part != "trainer":  # which starts the processes' group itself
        dist.init_process_group("gloo")
    {"trainer": trainer, "sharded": sharded, "tensor_parallel": tensor_parallel}[part](place)
    if dist.is_initialized():
        dist.destroy_process_group()
