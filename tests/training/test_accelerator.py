"""The trainer and what it watches on a device that is not the CPU."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from unittest import mock

import accelerate
import pytest
import torch
from transformers import TrainingArguments

from lm2.training import LM2Trainer, Stage
from lm2.training.watching import watch
from lm2.training.write_cost import QUIET, with_write_cost
from tests.accelerator import DEVICE, accelerator
from tests.training.test_trainer import a_run, lm2, log_of, plain, rmt, seeded, uneven_rows

SHORT = (Stage(steps=1, segments=(1,), rows=4), Stage(steps=2, segments=(1, 3), rows=8))
BATCH = dict.fromkeys(
    ("input_ids", "labels"), torch.randint(2, 17, (2, 14), generator=torch.Generator().manual_seed(0))
)


def with_quiet_text(request):
    rows = uneven_rows(request)
    return {**rows, QUIET: rows["input_ids"].flip(1)}


def log_of_run_on(device, run, model):
    """Its losses and norms. Nothing is saved: safetensors looks at addresses, and pretended tensors have none."""
    there = torch.device(device)
    with ExitStack() as stack:
        stack.enter_context(accelerator())
        for owner, found in (
            (TrainingArguments, lambda arguments: arguments._setup_devices and there),
            (accelerate.Accelerator, lambda _: there),
        ):
            stack.enter_context(mock.patch.object(owner, "device", property(found)))
        stack.enter_context(mock.patch.object(LM2Trainer, "_save_checkpoint"))
        trainer = LM2Trainer(run, seeded(model))
        trainer.train()
        assert {parameter.device for parameter in trainer.model.parameters()} == {there}
    return torch.tensor(log_of(run, "loss", "grad_norm"))


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [(plain, "adamw"), (rmt, "muon"), pytest.param(lm2, "adamw", marks=pytest.mark.slow), (lm2, "muon")],
)
def test_a_run_is_the_cpus(tmp_path, model, optimizer):
    """With accumulation, and for LM2 a price on writing in quiet text and the memory watched."""
    runs = {
        at: a_run(tmp_path / at[:4], model, stages=SHORT, optimizer=optimizer, accumulation=2) for at in ("cpu", DEVICE)
    }
    if model is lm2:
        more = {"training_forward": partial(with_write_cost, cost=1.0), "watch_every": 2, "held_out": BATCH.copy}
        runs = {at: replace(run, make_batch=with_quiet_text, **more) for at, run in runs.items()}
    wanted, found = (log_of_run_on(device, run, model) for device, run in runs.items())
    assert len(wanted) == 3
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("model", [rmt, lm2])
def test_a_watched_batch(model):
    wanted = watch(seeded(model), BATCH).scalars()
    with accelerator() as moved:
        watched = watch(moved(seeded(model)), BATCH)
        found = watched.scalars()
        assert all(counts.device.type == "cpu" for counts in watched.histograms().values())
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
