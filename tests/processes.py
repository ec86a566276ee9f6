"""Real processes for tests, forked off a server that has imported the heavy packages once: each starts at once."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOADED = ["lm2.training", "accelerate", "torch.distributed.fsdp", "torch.distributed.checkpoint"]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that calls a module's function."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def in_two_processes(part: Callable[[Path], None], folder: Path) -> None:
    """Call a function in two processes that can find each other as those of `torchrun` do (gloo, CPU)."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [start(_be, rank, port, part, folder) for rank in range(2)]
    for process in both:
        process.join(900)
    errors = [path.read_text() for path in sorted(folder.glob("error-*.txt"))]
    assert not errors, errors[0][-3000:]
    assert [process.exitcode for process in both] == [0, 0]


def _be(rank: int, port: int, part: Callable[[Path], None], folder: Path) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in {**names, **address}.items()})
    torch.manual_seed(0)
    torch.set_num_threads(1)
    try:
        part(folder)
        dist.destroy_process_group()
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise
