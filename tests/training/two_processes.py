"""What each process does that test_distributed.py starts: be refused sharding, then train."""

import sys
from pathlib import Path

from lm2.training import train
from tests.training.test_trainer import a_run, lm2

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        train(a_run(folder / "sharded", lm2, fsdp=True))
    except ValueError as error:
        print(error)
    train(a_run(folder / "both", lm2))
