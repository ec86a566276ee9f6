"""Corpora that have a name, so that a run can be repeated from one word."""

from collections.abc import Callable

from lm2.data.hub import HubSource
from lm2.data.sources import Source

SMOLLM_CORPUS = "HuggingFaceTB/smollm-corpus"


def smollm_corpus() -> tuple[Source, ...]:
    """SmolLM-Corpus as the LM2 paper (arXiv 2502.06049) trains on it: without its Python part.

    Synthetic textbooks and stories (28 billion tokens) and educational web pages (220 billion), mixed in these
    proportions. Whether the paper's run read all of it is not said.
    """
    return (
        HubSource("cosmopedia-v2", SMOLLM_CORPUS, "cosmopedia-v2", weight=28),
        HubSource("fineweb-edu-dedup", SMOLLM_CORPUS, "fineweb-edu-dedup", weight=220),
    )


CORPORA: dict[str, Callable[[], tuple[Source, ...]]] = {"smollm-corpus": smollm_corpus}
