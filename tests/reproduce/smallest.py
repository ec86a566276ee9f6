"""A reproduction that is as small as can be, done in this process."""

from dataclasses import replace
from typing import NamedTuple

from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import SMOKE, Cells, Sizes
from lm2.reproduce.steps import steps_of
from lm2.reproduce.work import Work

SMALLEST = replace(
    SMOKE,
    rates=(3e-3,),
    validation_rows=4,
    main=Cells(("qa1", "qa2"), {"0k": 2, "1k": 2}),
    far=Cells(("qa1",), {"2k": 2}),
    controls=Cells(("qa1",), {"1k": 2}),
)


class Finished(NamedTuple):
    """A run and what came out of it."""

    config: ReproduceConfig
    sizes: Sizes
    results: dict


def do(config: ReproduceConfig, sizes: Sizes) -> list[str]:
    """Do what is missing; what was done."""
    work, done = Work(config, sizes), []
    for step in steps_of(config, sizes):
        if not step.is_done():
            step.work(work)
            done.append(f"{step.part} {step.text}")
    return done
