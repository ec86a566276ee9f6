"""What each of two processes (gloo, CPU) does for test_two_processes.py."""

import json
import math
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lm2 import LM2Cache, LM2ForCausalLM
from lm2.training import BatchRequest, LM2Trainer, RunConfig, Stage, train
from lm2.training.sharding import save_shards, shard
from lm2.training.write_cost import QUIET, with_write_cost
from tests.distributed.loop import ROWS, adamw, build, loop, muon, rows_of
from tests.training.test_lanes import a_lane_run, pieces
from tests.training.test_trainer import a_run, lm2, seeded, uneven_rows

CELLS = [(accumulation, checkpointing) for accumulation in (1, 4) for checkpointing in (False, True)]


def trainer(folder: Path) -> None:
    """Be refused sharding, then train at a price with accumulation and activation checkpointing, off and on.

    Last a run that shall end at a moment which has come for the first of the processes alone.
    """
    with pytest.raises(ValueError, match="fsdp=True was asked for, but on cpu the trainer runs MULTI_CPU"):
        train(a_run(folder / "refused", lm2, fsdp=True))
    for accumulation, checkpointing in CELLS:
        train(trained(folder, accumulation, checkpointing))
    train(a_run(folder / "ended", lm2), stop_at=-math.inf if dist.get_rank() == 0 else math.inf)


def trained(folder: Path, accumulation: int, checkpointing: bool) -> RunConfig:
    """The run that two processes do, and its counterpart in one."""
    stages = (Stage(steps=1, segments=(1,), rows=8), Stage(steps=3, segments=(1, 2, 3), rows=8))
    settings = {"accumulation": accumulation, "activation_checkpointing": checkpointing, "save_every": 4}
    priced = {"make_batch": quiet_beside_rows, "training_forward": partial(with_write_cost, cost=1.0)}
    return a_run(folder / f"{accumulation}-{checkpointing}", lm2, stages=stages, **settings, **priced)


def quiet_beside_rows(request: BatchRequest) -> dict[str, torch.Tensor]:
    """Rows, and a quiet text that is the step's: how its rows are split does not change it."""
    return {**uneven_rows(request), QUIET: rows_of(request.step, 0, 1)}


def lanes(folder: Path) -> None:
    """Train with lanes; the same again, stopped after four steps and resumed from the third."""
    for accumulation in (1, 2):
        train(laned(folder / f"lanes-{accumulation}", accumulation))
    run = laned(folder / "halved")
    with pytest.raises(KeyboardInterrupt):
        LM2Trainer(replace(run, make_batch=pieces_until_step_4), seeded(lm2)).train()
    if dist.get_rank() == 0:
        record = folder / "lanes-1" / "checkpoint-3" / "lm2_run.json"  # of the run without the interruption
        shutil.copy(record, run.output_dir / "checkpoint-3")
    dist.barrier()
    train(run, resume=True)


def laned(folder: Path, accumulation: int = 1) -> RunConfig:
    """The run with lanes that two processes do, and its counterpart in one."""
    return a_lane_run(folder, accumulation=accumulation, learning_rate=1e-3)


def pieces_until_step_4(request: BatchRequest) -> dict[str, torch.Tensor]:
    if request.step == 4:
        raise KeyboardInterrupt
    return pieces(request)


def sharded(folder: Path) -> None:
    """Train in a loop with FSDP2, with and without checkpointing; save in shards; bfloat16 with float32 banks."""
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    share = rank * ROWS // 2, (rank + 1) * ROWS // 2
    found["muon"] = _with_muon(share)
    for checkpointing in (False, True):
        model = build()
        shard(model)
        blocks = [module for module in model.modules() if isinstance(module, FSDPModule)]
        assert blocks == [model, *model.model.layers]
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        if checkpointing:
            model.activation_checkpointing_enable()
        found[str(checkpointing)] = loop(model, adamw(model), *share)
    save_shards(model, folder / "shards")
    gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        save_file(gathered, folder / "gathered.safetensors")
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


def _with_muon(share: tuple[int, int]) -> list[tuple[float, float]]:
    """Train on, with another optimiser that takes up the gathered state of the first, as a checkpoint does."""
    model = build()
    shard(model)
    before = muon(model)
    found = loop(model, before, *share)
    after, options = muon(model), StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(model, after, get_optimizer_state_dict(model, before, options=options), options=options)
    return found + loop(model, after, *share)


def reentrant(folder: Path) -> None:
    """Gradients of the same rows under DDP with reentrant activation checkpoints, and without either."""
    dist.init_process_group("gloo")
    ids, gradients = rows_of(0, 0, ROWS), []
    for recomputed in (False, True):
        model = build()
        if recomputed:
            model.activation_checkpointing_enable({"use_reentrant": True})
        wrapped = DistributedDataParallel(model) if recomputed else model  # kept for the backward pass, too
        wrapped(ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def tensor_parallel(folder: Path) -> None:
    """Read a model with its attention and MLP split over the processes; its logits and gradients."""
    from transformers.distributed.configuration_utils import DistributedConfig

    dist.init_process_group("gloo")
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
    trainer(Path(sys.argv[1]))
    dist.destroy_process_group()
