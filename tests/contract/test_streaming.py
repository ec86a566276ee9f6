"""However long the text, the state stays the same size: resident memory at the end is that after 32,000 tokens."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lm2 import LM2Config

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "stream_million.py"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")


@pytest.fixture(scope="module")
def streaming():
    spec = importlib.util.spec_from_file_location("stream_million", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "tokens", [96_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_resident_memory_stays_flat(streaming, tokens):
    windows = streaming.stream(streaming.Options(tokens=tokens))
    assert windows[-1]["tokens"] > tokens - streaming.WINDOW
    assert windows[-1]["resident"] <= 1.05 * windows[0]["resident"]


@pytest.mark.parametrize(("chunk", "ends"), [(1600, [32_000, 64_000, 96_000]), (64_000, [64_000, 128_000])])
def test_time_is_divided_by_the_tokens_it_was_taken_over(streaming, monkeypatch, chunk, ends):
    seconds = 0.0

    class Model:
        config = LM2Config.preset("lm2-tiny")

        def __call__(self, ids, **options):
            nonlocal seconds
            seconds += 2e-6 * ids.numel()

    monkeypatch.setattr(streaming, "time", SimpleNamespace(process_time=lambda: seconds))
    windows = streaming._feed(Model(), 96_000, chunk)
    assert [window["tokens"] for window in windows] == ends
    assert [window["microseconds"] for window in windows] == pytest.approx([2.0] * len(ends))
