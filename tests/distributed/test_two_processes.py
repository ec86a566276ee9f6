"""Two processes (gloo, CPU) train as one does: DDP, FSDP2 and a tensor-parallel model; and shards come together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lm2 import LM2ForCausalLM
from lm2.training import RunConfig, train
from lm2.training.export import export
from lm2.training.sharding import check_in_force
from tests.distributed.loop import ROWS, STEPS, adamw, build, loop, muon, rows_of
from tests.distributed.two_processes import CELLS, laned, lanes, reentrant, sharded, tensor_parallel, trained, trainer
from tests.processes import in_two_processes
from tests.training.test_trainer import lm2, log_of, seeded

ROOT = Path(__file__).parents[2]


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_one_process_or_two_accumulated_or_not_recomputed_or_not(tmp_path):
    """All eight ways to train on the same rows have the same losses and gradient norms."""
    in_two_processes(trainer, tmp_path / "two")
    expected = steps_of(trained(tmp_path / "one", *CELLS[0]), alone=True)
    for cell in CELLS:
        two = trained(tmp_path / "two", *cell)
        torch.testing.assert_close(steps_of(two), expected, rtol=1e-5, atol=1e-5)
        assert (two.output_dir / "checkpoint-4" / "rng_state_1.pth").exists()
    assert [path.name for path in (tmp_path / "two" / "ended").glob("checkpoint-*")] == ["checkpoint-1"]
    for cell in CELLS[1:]:
        torch.testing.assert_close(
            steps_of(trained(tmp_path / "one", *cell), alone=True), expected, rtol=1e-5, atol=1e-5
        )


def steps_of(run: RunConfig, alone: bool = False) -> torch.Tensor:
    """What the log says of each step, once it is trained by this process if it is `alone`."""
    if alone:
        train(run)
    return torch.tensor(log_of(run, "step", "loss", "grad_norm", "grad_norm_memory", "grad_norm_base"))


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_torchrun_starts_them(tmp_path):
    """The documented command; the processes of the other tests are started without it, which is faster."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(ROOT / "tests/distributed/two_processes.py"), str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(log_of(trained(tmp_path, 1, False), "loss")) == 4


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_lanes_are_divided_among_the_processes(tmp_path):
    """Each process carries the banks of its own rows, and writes them into the checkpoint."""
    in_two_processes(lanes, tmp_path)
    for accumulation in (1, 2):
        two, one = (laned(tmp_path / f"{name}-{accumulation}", accumulation) for name in ("lanes", "one"))
        train(one)
        found, expected = (torch.tensor(log_of(run, "step", "loss", "grad_norm")) for run in (two, one))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        alone = load_file(one.output_dir / "checkpoint-6" / "lanes-0.safetensors")
        parts = [load_file(two.output_dir / "checkpoint-6" / f"lanes-{rank}.safetensors") for rank in range(2)]
        assert sum(name.endswith(".bank") for name in alone) == 2 * accumulation
        for name, rows in alone.items():
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), rows, rtol=1e-5, atol=1e-5)
    whole, halved = tmp_path / "lanes-1" / "checkpoint-6", tmp_path / "halved" / "checkpoint-6"
    columns = ("step", "loss", "grad_norm")
    assert log_of(laned(tmp_path / "halved"), *columns) == log_of(laned(tmp_path / "lanes-1"), *columns)
    for name in ("model.safetensors", "lanes-0.safetensors", "lanes-1.safetensors"):
        ends = [load_file(checkpoint / name) for checkpoint in (whole, halved)]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0]), name


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_sharded_blocks_train_as_whole_ones(tmp_path):
    in_two_processes(sharded, tmp_path)
    found = json.loads((tmp_path / "sharded.json").read_text())
    model = build()
    expected = torch.tensor(loop(model, adamw(model), 0, ROWS))
    assert len(expected) == STEPS
    with_muon = build()
    optimizer = muon(with_muon)
    twice = torch.tensor([pair for _ in range(2) for pair in loop(with_muon, optimizer, 0, ROWS)])
    torch.testing.assert_close(torch.tensor(found["muon"]), twice, rtol=1e-3, atol=1e-4)  # its products are bfloat16
    for checkpointing in ("False", "True"):
        torch.testing.assert_close(torch.tensor(found[checkpointing]), expected, rtol=1e-5, atol=1e-5)
    assert found["dtypes"] == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]
    assert found["bank after carrying"] == "torch.float32"
    assert len(list((tmp_path / "shards" / "shards").glob("*.safetensors"))) == 2
    export(tmp_path / "shards", tmp_path / "whole")
    written = load_file(tmp_path / "whole" / "model.safetensors")
    assert written.keys() == model.state_dict().keys()
    gathered = load_file(tmp_path / "gathered.safetensors")
    assert all(torch.equal(written[name], weight) for name, weight in gathered.items())
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(written[name], weight, rtol=1e-4, atol=1e-5)
    reread = LM2ForCausalLM.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(written[name], weight) for name, weight in reread.state_dict().items())
    next((tmp_path / "shards" / "shards").glob("shard-00002-*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"is incomplete: of .* numbers: copy the files of all processes"):
        export(tmp_path / "shards", tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_reentrant_checkpoints_are_taken_by_ddp(tmp_path):
    """A write is recomputed inside its block: of two reentrant checkpoints DDP would count its parameters twice."""
    in_two_processes(reentrant, tmp_path)


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_a_model_split_by_its_plan_is_the_model(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "model")
    in_two_processes(tensor_parallel, tmp_path)
    found = json.loads((tmp_path / "tensor_parallel.json").read_text())
    ids = rows_of(0, 0, 2)
    loss = model(ids, labels=ids).loss
    loss.backward()
    block = model.model.layers[0]
    expected = {
        "loss": loss.item(),
        "query": block.self_attn.q_proj.weight.grad.norm().item(),
        "memory": block.memory.u_proj.weight.grad.norm().item(),
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_parallelism_that_is_not_in_force_is_refused():
    model = nn.Linear(2, 2)
    check_in_force(model, fsdp=False, processes=1)
    with pytest.raises(ValueError, match="2 of 2 parameters of the wrapped Linear are whole"):
        check_in_force(model, fsdp=True, processes=2)
    with pytest.raises(ValueError, match="2 processes were started, but the model is a bare Linear"):
        check_in_force(model, fsdp=False, processes=2)


def test_the_plan_is_the_familys():
    assert seeded(lm2).config.base_model_tp_plan["layers.*.self_attn.o_proj"] == "rowwise"
    assert "base_model_tp_plan" not in seeded(lm2).config.to_dict()
