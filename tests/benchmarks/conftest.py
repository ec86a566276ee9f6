"""A reproduction that scripts train on from."""

from typing import Any

import pytest
import torch

from lm2.demo.recipe import new_backbone
from lm2.memory import WriteGate
from lm2.reproduce import material, models
from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.sizes import SMOKE
from lm2.reproduce.work import Work
from lm2.settings import check_settings


@pytest.fixture(scope="session")
def reproduction(tmp_path_factory) -> ReproduceConfig:
    """A reproduction whose LM2 is there, untrained and with gates that are half open."""
    torch.set_num_threads(1)
    config = ReproduceConfig(out=tmp_path_factory.mktemp("reproduce"), smoke=True)
    check_settings(config.out, {"options": config.to_json()}, "reproduction")
    Work(config, SMOKE).prepare()
    torch.manual_seed(0)
    backbone = new_backbone(SMOKE.recipe, len(material.load_tokenizer(config)))
    model = models.contender("lm2", backbone, SMOKE)
    for gate in (module for module in model.modules() if isinstance(module, WriteGate)):
        torch.nn.init.zeros_(gate.bias)
        torch.nn.init.normal_(gate.weight, std=0.1)
    model.save_pretrained(config.out / "lm2" / "model")
    return config


@pytest.fixture
def few(reproduction, tmp_path) -> dict[str, Any]:
    """Options of a script that trains on from it, with little to read."""
    return {
        "run": reproduction.out,
        "folder": tmp_path / "trained",
        "out": tmp_path / "found.json",
        "tokens": 20_000,
        "counted": 20_000,
    }
