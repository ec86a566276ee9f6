"""`lm2 train pretrain-tiny`: what it takes of a store, and a training that was stopped."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm2.recipes.options import PretrainTinyOptions
from lm2.recipes.plan import carry_out
from lm2.recipes.pretrain import pretrain_tiny
from tests.recipes.test_recipes import weights


def test_pretraining_takes_vocabulary_and_tokenizer_of_the_store(tmp_path, base, store, tokenizer):
    options = PretrainTinyOptions(
        out=tmp_path, data=store, tokenizer=str(base), steps=2, warmup_steps=1, segments=(1, 2), rows=2, report_to=()
    )
    model = AutoModelForCausalLM.from_pretrained(carry_out(pretrain_tiny(options)))
    assert model.config.vocab_size == len(tokenizer)
    settings = model.generation_config
    assert (settings.bos_token_id, settings.eos_token_id) == (None, tokenizer.eos_token_id)
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_a_tokenizer_that_is_not_there_is_all_that_is_said_to_be_wrong(tmp_path, store):
    """Nothing of the vocabulary of a model that would not be made like that."""
    large = Path(shutil.copytree(store, tmp_path / "large"))
    facts = json.loads((large / "store.json").read_text())
    facts["tokenizer"]["vocabulary"] = 5000  # more than the preset's
    (large / "store.json").write_text(json.dumps(facts))
    options = PretrainTinyOptions(data=large, tokenizer=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"^no tokenizer could be read from '[^;]*$"):
        pretrain_tiny(options)


def test_a_stopped_pretraining_goes_on_with_the_same_command(tmp_path, base, store):
    options = PretrainTinyOptions(
        out=tmp_path, data=store, tokenizer=str(base), steps=4, warmup_steps=1, save_every=2, rows=2, report_to=()
    )
    options = replace(options, segments=(1, 2))
    whole = weights(carry_out(pretrain_tiny(options)))
    shutil.rmtree(tmp_path / "train" / "checkpoint-4")
    shutil.rmtree(tmp_path / "model")
    carry_out(pretrain_tiny(options))
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "model").items())
