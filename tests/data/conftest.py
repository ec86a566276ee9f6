from pathlib import Path

import pytest

from lm2.data.background import GeneratedSentences
from lm2.data.pool import TokenPool
from lm2.data.tokenizer import train_tokenizer
from tests.data.texts import generated


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(generated(3000), 1024)


@pytest.fixture(scope="session")
def pool(tokenizer):
    return TokenPool(GeneratedSentences(), tokenizer, seed=0, n_tokens=30_000)


@pytest.fixture(scope="session")
def babi(shared_data) -> Path:
    return shared_data / "babi" / "tasks_1-20_v1-2_en.zip"
