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
from lm2.training import train
from lm2.training.export import export
from lm2.training.sharding import check_in_force
from tests.distributed.loop import ROWS, STEPS, build, loop, rows_of
from tests.distributed.two_processes import trained
from tests.training.test_trainer import lm2, log_of, seeded

ROOT = Path(__file__).parents[2]


def in_two_processes(part: str, folder: Path) -> str:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(ROOT / "tests/distributed/two_processes.py"), part, str(folder)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_the_trainer_in_two_processes_is_the_trainer_in_one(tmp_path):
    printed = in_two_processes("trainer", tmp_path)
    assert printed.count("fsdp=True was asked for, but on cpu the trainer runs MULTI_CPU") == 2
    alone = trained(tmp_path / "alone", 1, False)
    train(alone)
    columns = ("step", "loss", "grad_norm", "grad_norm_memory")
    expected = torch.tensor(log_of(alone, *columns))
    for accumulation in (1, 4):
        for checkpointing in (False, True):
            both = trained(tmp_path / f"{accumulation}-{checkpointing}", accumulation, checkpointing)
            found = torch.tensor(log_of(both, *columns))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (both.output_dir / "checkpoint-4" / "rng_state_1.pth").exists()


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_sharded_blocks_train_as_whole_ones(tmp_path):
    in_two_processes("sharded", tmp_path)
    found = json.loads((tmp_path / "sharded.json").read_text())
    model = build()
    expected = torch.tensor(loop(model, 0, ROWS))
    assert len(expected) == STEPS
    for checkpointing in ("False", "True"):
        torch.testing.assert_close(torch.tensor(found[checkpointing]), expected, rtol=1e-5, atol=1e-5)
    assert found["dtypes"] == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]
    assert found["bank after carrying"] == "torch.float32"
    assert len(list((tmp_path / "shards" / "shards").glob("*.safetensors"))) == 2
    export(tmp_path / "shards", tmp_path / "whole")
    written = load_file(tmp_path / "whole" / "model.safetensors")
    assert written.keys() == model.state_dict().keys()
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
def test_a_model_split_by_its_plan_is_the_model(tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "model")
    in_two_processes("tensor_parallel", tmp_path)
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
