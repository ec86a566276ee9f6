"""Two real processes (gloo, CPU) train as one does, and sharding that would not be real is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lm2.training import train
from tests.training.test_trainer import a_run, lm2, log_of

ROOT = Path(__file__).parents[2]


def in_two_processes(folder: Path) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(ROOT / "tests/training/two_processes.py"), str(folder)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.dist
def test_two_processes_train_as_one(tmp_path):
    done = in_two_processes(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("fsdp=True was asked for, but on cpu the trainer runs MULTI_CPU") == 2
    alone, both = (a_run(tmp_path / name, lm2) for name in ("alone", "both"))
    train(alone)
    columns = ("step", "loss", "grad_norm")
    found, expected = (torch.tensor(log_of(run, *columns)) for run in (both, alone))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (both.output_dir / "checkpoint-6" / "rng_state_1.pth").exists()
