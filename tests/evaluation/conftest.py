import warnings
from pathlib import Path

import numpy as np
import pytest

from lm2.data import grammar
from lm2.evaluation.sentences import Background
from lm2.evaluation.tokens import LengthTokenizer


@pytest.fixture(scope="session")
def background() -> Background:
    """Three small books of generated sentences."""
    rng = np.random.default_rng(0)
    texts = [" ".join(grammar.sentence(rng) for _ in range(400)) for _ in range(3)]
    return Background(texts, LengthTokenizer.gpt2(), "small", min_tokens=1)


@pytest.fixture(scope="session")
def babi_files(shared_data) -> Path:
    return shared_data / "babi"


@pytest.fixture(scope="session")
def results(shared_data) -> Path:
    return shared_data / "babilong_results"


@pytest.fixture(scope="session")
def harness():
    """The module around lm-eval, which takes seconds to load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval", reason="needs the harness extra")
        from lm2.evaluation import harness
    return harness
