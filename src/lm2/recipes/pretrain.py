"""Train a model from nothing on a token store."""

from contextlib import suppress
from copy import deepcopy
from functools import partial

from transformers import PreTrainedTokenizerBase

from lm2.configuration import LM2Config
from lm2.data.encoding import load_tokenizer
from lm2.data.store import Store
from lm2.modeling import LM2ForCausalLM
from lm2.recipes.findings import Findings
from lm2.recipes.options import PretrainOptions, PretrainTinyOptions
from lm2.recipes.plan import ModelOf, Plan, one_phase
from lm2.training import RunConfig, Stage


def pretrain_lm2_1_7b(options: PretrainOptions) -> Plan:
    """The paper's model. Raises ValueError as `pretrain_tiny`."""
    return _plan("pretrain-lm2-1.7b", options, LM2Config.preset("lm2-1.7b"))


def pretrain_tiny(options: PretrainTinyOptions) -> Plan:
    """A model for trying things out, with the vocabulary and the special tokens of the store's tokenizer.

    Raises:
        ValueError: everything that is wrong with the options, at once.
    """
    ids = {}
    with suppress(ValueError, OSError):  # `_plan` says so
        ids["vocab_size"] = Store(options.data).facts["tokenizer"]["vocabulary"]  # known without the tokenizer, too
        tokenizer = _tokenizer(options)
        ids |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return _plan("pretrain-tiny", options, LM2Config.preset("lm2-tiny", **ids))


def new_model(config: LM2Config) -> LM2ForCausalLM:
    """An untrained model. It writes into its configuration, by which the run is known again: so into a copy."""
    return LM2ForCausalLM(deepcopy(config))


def _plan(recipe: str, options: PretrainTinyOptions, config: LM2Config) -> Plan:
    findings = Findings(options.dry_run)
    tokenizer = findings.find(partial(_tokenizer, options))
    run_of = partial(_run, options, findings, config, tokenizer)
    return one_phase(recipe, options, findings, config, tokenizer, run_of)


def _tokenizer(options: PretrainTinyOptions) -> PreTrainedTokenizerBase:
    return load_tokenizer(options.tokenizer or Store(options.data).facts["tokenizer"]["name"])


def _run(
    options: PretrainTinyOptions, findings: Findings, config: LM2Config, tokenizer: PreTrainedTokenizerBase | None
) -> RunConfig:
    stages = (Stage(steps=options.steps, segments=options.segments, rows=options.rows),)
    return RunConfig(
        **options.shared(),
        model=ModelOf(start=partial(new_model, config)),
        make_batch=findings.rows(options.data, stages, config, tokenizer),
        stages=stages,
        output_dir=options.out / "train",
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        warmup_steps=options.warmup_steps,
    )
