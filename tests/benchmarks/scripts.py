"""The scripts of benchmarks/ as modules."""

import importlib.util
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """A script, run as a module of its own name, so that its classes and functions can be named."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def trains_on_once(script: ModuleType, options: Any, weights: Sequence[Path]) -> None:
    """Each file of weights has write gates of its own, a second run makes none anew, and one with other options is
    refused with both values."""
    loaded = [load_file(file) for file in weights]
    for before, after in itertools.pairwise(loaded):
        assert any(not torch.equal(before[name], after[name]) for name in before if "write_gate" in name)
    made = [file.stat().st_mtime_ns for file in weights]
    script.main(replace(options, out=None))
    assert [file.stat().st_mtime_ns for file in weights] == made
    with pytest.raises(ValueError, match=rf"{options.share}.*0\.3|0\.3.*{options.share}"):
        script.main(replace(options, share=0.3))
