"""Tokenizers that put other tokens around a text than most do, inside the harness."""

from copy import deepcopy

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.evaluation.tiny import memory_model, prose, tokenizer

# Other people's packages warn about their own dependencies.
pytestmark = pytest.mark.filterwarnings("default")
CONTEXTS = [prose(3, seed) + " Mary went to the" for seed in range(3)]
ANSWERS = [" garden", " kitchen of"]


def other_tokenizer(around: str, **names: str) -> PreTrainedTokenizerFast:
    """The tokenizer, putting other tokens around a text and knowing only these special tokens."""
    core = deepcopy(tokenizer().backend_tokenizer)
    special = [(name, core.token_to_id(name)) for name in ("<bos>", "<eos>")]
    core.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def scores(model) -> list[float]:
    from lm_eval.api.instance import Instance

    pairs = [(context, answer) for context in CONTEXTS for answer in ANSWERS]
    return [score for score, _ in model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])]


def test_an_end_token_that_a_tokenizer_puts_behind_a_text_is_left_out(harness):
    """The harness would find it in the place of every answer, and generation would go on behind it."""
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    ending, usual = (
        harness.HarnessModel(memory_model("lm2"), words, batch_size=2)
        for words in (other_tokenizer("<bos> $A <eos>", **names), tokenizer())
    )
    assert scores(ending) == pytest.approx(scores(usual))
    assert ending.longest == usual.longest
    prompts = zip(ending.tok_batch_encode(CONTEXTS), usual.tok_batch_encode(CONTEXTS), strict=True)
    assert all(torch.equal(one, other) for one, other in prompts)
