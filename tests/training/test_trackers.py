"""trackio and wandb, offline: each is told what `log.jsonl` has, and draws histograms of the memory."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from lm2.training import RunConfig, train
from tests.processes import start
from tests.training.test_trainer import a_run, lm2, log_of
from tests.training.test_watching import rows


def tracked(tracker: str, folder: Path) -> RunConfig:
    return a_run(folder / "run", lm2, report_to=(tracker,), held_out=rows, watch_every=3)


def report(tracker: str, folder: Path) -> None:
    """Train in a process whose tracker writes into a folder, and write down the last of each thing it was told."""
    os.environ.update(TRACKIO_DIR=str(folder / "trackio"), WANDB_DIR=str(folder), WANDB_MODE="offline")
    train(tracked(tracker, folder))
    if tracker == "wandb":
        import wandb

        assert wandb.run is not None
        last = dict(wandb.run.summary)
        wandb.finish()
    else:
        from trackio.sqlite_storage import SQLiteStorage

        last = {name: value for line in SQLiteStorage.get_logs("lm2", "run") for name, value in line.items()}
    (folder / "last.json").write_text(json.dumps(last, default=str))


@pytest.mark.dist
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_a_tracker_is_told_what_the_log_has(tmp_path, tracker):
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install 'lm2[track]' to run this test")
    process = start(report, tracker, tmp_path)
    process.join(300)
    assert process.exitcode == 0
    last = json.loads((tmp_path / "last.json").read_text())
    names = ("loss", "grad_norm_memory", "tokens_per_second", "segments")
    assert [last[f"train/{name}"] for name in names] == pytest.approx(log_of(tracked(tracker, tmp_path), *names)[-1])
    assert {"train/watch_gain", "train/watch_slots_used", "train/watch_write_norm"} <= set(last)
    assert {f"watch/model.layers.{block}.memory.{name}" for block in (0, 1) for name in ("mass", "write_gate")} <= set(
        last
    )
