"""A run that is killed (SIGKILL) at any moment, also in the middle of a checkpoint, goes on as if it had never been."""

import json
import os
import random
import signal
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lm2.training import BatchRequest, LM2Trainer, RunConfig, Stage, train
from tests.processes import start
from tests.training.test_lanes import ROWS, T
from tests.training.test_trainer import SHAPE, a_run, lm2, log_of

STEPS, SAVE_EVERY, ORDER_FILE = 24, 3, "order.jsonl"
HANG_AFTER = 4
"""So many steps after the one at which it is to die, a process waits for its end."""

order_file: Path
last_step = STEPS


def pieces(request: BatchRequest) -> dict[str, torch.Tensor]:
    """Two segments of each row's text, noted in a file: which step, which rows, which tokens."""
    while request.step > last_step:
        time.sleep(0.01)
    draws = [torch.Generator().manual_seed(100 * request.step + row) for row in request.rows]
    ids = torch.stack([torch.randint(SHAPE["vocab_size"], (2 * T,), generator=draw) for draw in draws])
    place = [request.step, request.rows.start, request.rows.stop, zlib.crc32(ids.numpy().tobytes())]
    with order_file.open("a") as file:
        file.write(json.dumps(place) + "\n")
    return {"input_ids": ids, "labels": ids, "fresh": torch.tensor([request.step % 5 == row for row in request.rows])}


def lane_run(folder: Path) -> RunConfig:
    """Lanes, so that banks go on from step to step, and lines of the log that do not end where checkpoints do."""
    fields = {"stages": (Stage(steps=STEPS, segments=(2,), rows=ROWS),), "lanes": True, "accumulation": 2}
    return replace(a_run(folder, lm2, log_every=2, save_every=SAVE_EVERY, **fields), make_batch=pieces)


def go_on(folder: Path, last: int = STEPS, dies_writing: bool = False) -> None:
    """Do or resume the run; it stands still after step `last`, or in the middle of the first checkpoint it writes."""
    global order_file, last_step
    torch.set_num_threads(1)
    order_file, last_step = folder / ORDER_FILE, last

    def stand_still(*arguments) -> None:  # the weights and the optimiser's state are written
        (folder / "writing").write_text(str(os.getpid()))
        time.sleep(600)

    if dies_writing:
        LM2Trainer._save_rng_state = stand_still
    train(lane_run(folder), resume=True)


def kill_at(step: int, folder: Path, in_checkpoint: bool, draw: random.Random) -> None:
    """Start or resume, and kill the process some time after the step, or as it writes a checkpoint."""
    step = max(step, *checkpoints(folder), 0)
    before = len(steps_read(folder))
    process = start(go_on, folder, STEPS if in_checkpoint else min(step + HANG_AFTER, STEPS - 2), in_checkpoint)

    def reached() -> bool:
        writing = folder / "writing"
        if in_checkpoint:
            return writing.exists() and writing.read_text() == str(process.pid)
        return steps_read(folder)[before:][-1:] >= [step]

    while not reached():
        assert process.is_alive(), f"the process ended before step {step}"
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def steps_read(folder: Path) -> list[int]:
    """The step of each batch that was made, in order."""
    path = folder / ORDER_FILE
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)[0] for line in lines if line.endswith("\n")]


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def kill_and_compare(folder: Path, kills: list[tuple[int, bool]], seed: int) -> None:
    """Kill a run at each of these steps, let it end, and compare it with one that was never killed."""
    whole, killed, draw = folder / "whole", folder / "killed", random.Random(seed)
    for run in (whole, killed):
        run.mkdir()
    go_on(whole)
    resumed_from = []
    for step, in_checkpoint in kills:
        kill_at(step, killed, in_checkpoint, draw)
        resumed_from.append((len(steps_read(killed)), max(checkpoints(killed), default=0)))
        partial = [int(path.name.split("-")[1]) for path in killed.glob(".partial/checkpoint-*")]
        assert not set(partial) & set(checkpoints(killed))
        assert partial or not in_checkpoint
    go_on(killed)
    for lines, checkpoint in resumed_from:
        assert steps_read(killed)[lines] == checkpoint, "the next rows are those after the last whole checkpoint"
    assert_same(whole, killed)


def assert_same(whole: Path, killed: Path) -> None:
    orders = [
        [tuple(json.loads(line)) for line in (run / ORDER_FILE).read_text().splitlines()] for run in (whole, killed)
    ]
    assert len(orders[0]) == 2 * STEPS < len(orders[1])
    assert set(orders[1]) == set(orders[0])  # what was read again was the same
    columns = ("step", "loss", "grad_norm", "grad_norm_memory", "learning_rate", "segments")
    lines = [log_of(lane_run(run), *columns) for run in (whole, killed)]
    assert lines[0] == lines[1]
    assert [line[0] for line in lines[0]] == [step for step in range(1, STEPS + 1) if step % 2 == 0 or step % 3 == 0]
    for name in ("model.safetensors", "lanes-0.safetensors"):
        ends = [load_file(run / f"checkpoint-{STEPS}" / name) for run in (whole, killed)]
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0]), name
    states = [torch.load(run / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True) for run in (whole, killed)]
    assert str(states[0]) == str(states[1])
    assert not (killed / ".partial").exists()


@pytest.mark.dist
@pytest.mark.timeout(1000)
def test_killed_between_checkpoints_and_in_one(tmp_path):
    kill_and_compare(tmp_path, [(7, False), (12, True)], seed=0)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_at_random(tmp_path):
    draw = random.Random(1)
    steps = sorted(draw.sample(range(STEPS - HANG_AFTER - SAVE_EVERY), 10))
    kill_and_compare(tmp_path, [(step, draw.random() < 0.4) for step in steps], seed=1)
