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


@torch.no_grad()
def test_a_tokenizer_without_start_and_end_tokens(harness):
    model, words = memory_model("lm2"), other_tokenizer("$A")
    expected = []
    for context in CONTEXTS:
        for answer in ANSWERS:
            ids, n = words(context + answer, return_tensors="pt").input_ids, len(words(answer).input_ids)
            log_p = model(ids).logits[0, -n - 1 : -1].log_softmax(-1)
            expected.append(log_p.gather(1, ids[0, -n:, None]).sum().item())
    assert scores(harness.HarnessModel(model, words)) == pytest.approx(expected, rel=1e-4)
