"""A finished reproduction for all tests."""

import dataclasses

import pytest
import torch

from lm2.reproduce import results
from lm2.reproduce.config import ReproduceConfig
from lm2.settings import check_settings
from tests.reproduce.smallest import SMALLEST, Finished, do


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    torch.set_num_threads(1)
    config = ReproduceConfig(out=tmp_path_factory.mktemp("reproduce"), smoke=True)
    settings = {"options": config.to_json(), "sizes": dataclasses.asdict(SMALLEST)}
    check_settings(config.out, settings, "reproduction")
    do(config, SMALLEST)
    return Finished(config, SMALLEST, results.collect(config, SMALLEST))
