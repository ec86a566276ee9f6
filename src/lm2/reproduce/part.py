"""A part of a reproduction in a process of its own: `python -m lm2.reproduce.part FOLDER PART`."""

import sys
from functools import partial
from pathlib import Path

import torch
from transformers.utils import logging

from lm2.processes import child_exit
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import sizes_of
from lm2.reproduce.steps import steps_of
from lm2.reproduce.work import Work
from lm2.settings import saved_options


def main(folder: Path, part: str) -> None:
    """Do what is not done yet of a part."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    config = ReproduceConfig.from_json(saved_options(folder), folder)
    sizes = sizes_of(config.smoke, config.tasks)
    work = Work(config, sizes)
    for step in steps_of(config, sizes):
        if step.part == part and not step.is_done():
            step.work(work)


if __name__ == "__main__":
    sys.exit(child_exit(partial(main, Path(sys.argv[1]), sys.argv[2])))
