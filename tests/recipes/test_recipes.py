"""Recipes from their options to a finished model, and from wrong options to one sentence."""

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import lm2_command as cli
from lm2 import LM2ForCausalLM
from lm2.data.prepare import prepare
from lm2.data.sources import FileSource
from lm2.recipes import dry_run
from lm2.recipes.finetune import finetune_babilong, load_model, sft
from lm2.recipes.options import BabilongOptions, RetrofitOptions, SftOptions
from lm2.recipes.plan import carry_out
from lm2.recipes.retrofit import retrofit, start_model
from lm2.training.optimizers import is_memory
from lm2.training.quiet import quiet_segments
from lm2.training.walks import roll_out, walked

SHORTER = {
    "train retrofit": ("--segments", "2", "--memory-layers", "0"),
    "train sft": ("--segments", "2"),
    "train finetune-babilong": ("--curriculum", "1", "2"),
}
"""Options that leave less to count."""
PAPER = ("1,235,814,400 base", "524,288 tokens a step", "247,988,224,000 in all", "16 blocks, 16 with 2048 slots")
SIZES = {"train pretrain-lm2-1.7b": PAPER}
"""What else a recipe's dry run says."""
LARGE = ("train finetune-babilong", "train sft", "train pretrain-lm2-1.7b")
"""Recipes of large models, whose bytes take a quarter of a minute to measure: that is in the slow tier."""
NAMES = [name for name in cli.COMMANDS if name.startswith("train ")]


@pytest.fixture
def options(tmp_path, base, store) -> RetrofitOptions:
    """A retrofit of seconds: 3 steps of the memory, 3 of everything."""
    return RetrofitOptions(
        out=tmp_path / "run",
        base=str(base),
        data=store,
        memory_slots=4,
        segment_length=16,
        memory_layers=(1,),
        memory_steps=3,
        steps=3,
        segments=(2,),
        rows=2,
        bf16=False,
        log_every=1,
        learning_rate=1e-3,
        report_to=(),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return LM2ForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize(
    ("name", "measured"),
    [(name, name not in LARGE) for name in NAMES] + [pytest.param(n, True, marks=pytest.mark.slow) for n in LARGE],
)
def test_a_dry_run_needs_no_files_and_leaves_none(name, measured, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if not measured:
        monkeypatch.setattr(dry_run, "estimated_row_bytes", lambda *_: lambda segments: 1)
    assert cli.main([*name.split(), *SHORTER.get(name, ()), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for label in ("not found", "parameters", "state of a row", "tokens", "operations", "memory"):
        assert f"\n{label}" in text or f"\n  {label}" in text
    settings = json.loads(text[: text.index("\n}\n") + 2])
    assert settings["recipe"] == name.removeprefix("train ")
    assert settings["phases"]
    assert list(tmp_path.iterdir()) == []
    assert all(size in text for size in SIZES.get(name, ()))


def test_the_memory_is_trained_first_and_alone(options, base):
    carry_out(retrofit(options))
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    memory, trained = weights(options.out / "memory" / "checkpoint-3"), weights(options.out / "model")
    assert all(torch.equal(memory[name], plain[name]) for name in plain)
    assert not torch.equal(memory["model.layers.1.memory.v_proj.weight"], torch.zeros(8, 16))
    assert all(not torch.equal(trained[name], memory[name]) for name in memory if name.endswith("proj.weight"))
    assert (options.out / "model" / "tokenizer.json").is_file()
    assert json.loads((options.out / "recipe.json").read_text())["phases"]["all"]["learning_rate"] == 1e-3


def test_the_same_command_goes_on_and_then_has_nothing_to_do(options):
    whole, parts = replace(options, out=options.out / "whole"), replace(options, out=options.out / "parts")
    carry_out(retrofit(whole))
    carry_out(retrofit(replace(parts, steps=0)))
    (parts.out / "model").rename(parts.out / "first")
    carry_out(retrofit(parts))
    for name, value in weights(whole.out / "model").items():
        assert torch.equal(weights(parts.out / "model")[name], value)
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.safetensors")}
    carry_out(retrofit(whole))
    assert {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.safetensors")} == before


def test_of_several_processes_one_writes_the_model_where_nothing_else_was_left_to_do(options, monkeypatch):
    """As after a stop between the last checkpoint and the model."""
    model = carry_out(retrofit(options))
    shutil.rmtree(model)
    monkeypatch.setenv("RANK", "1")
    carry_out(retrofit(options))
    assert not model.exists()
    monkeypatch.setenv("RANK", "0")
    carry_out(retrofit(options))
    assert (model / "model.safetensors").is_file()


def test_a_finished_model_does_not_stand_for_another_training(options):
    """The memory alone was the whole training, and is not the model of one that goes on with the base."""
    model = carry_out(retrofit(replace(options, steps=0)))
    before = (model / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"model is there, and all is not trained to the end.* move it away"):
        carry_out(retrofit(options))
    assert (model / "model.safetensors").read_bytes() == before
    assert not (options.out / "all").exists()


def test_phases_of_another_training_are_refused(options):
    carry_out(retrofit(replace(options, memory_steps=0)))
    with pytest.raises(ValueError, match=r"another run, of the phases all, and this one has memory, all: use the same"):
        carry_out(retrofit(options))
    with pytest.raises(ValueError, match=r"of the phases all, and this one has lora"):
        carry_out(retrofit(replace(options, memory_steps=0, train_base="lora")))


def test_held_out_rows_have_the_tokenizer_of_the_model(options, tmp_path, base, tokenizer):
    words = type(tokenizer).from_pretrained(base)
    words.add_tokens(["more"])
    lines = "\n".join(json.dumps({"text": f"Mary went to the {place} . " * 40}) for place in ("garden", "office"))
    (tmp_path / "texts.jsonl").write_text(lines)
    prepare([FileSource("texts", tmp_path / "texts.jsonl")], words, tmp_path / "other", tokenizer_name="more words")
    with pytest.raises(ValueError, match=r"made with the tokenizer more words"):
        retrofit(replace(options, held_out=tmp_path / "other"))
    with pytest.raises(ValueError, match=r"nowhere holds no token store"):
        retrofit(replace(options, held_out=Path("nowhere")))
    with pytest.raises(ValueError, match=r"watch_rows must be 1 or more, got 0"):
        retrofit(replace(options, watch_rows=0))


def test_other_settings_are_refused_and_nothing_is_changed(options):
    carry_out(retrofit(replace(options, steps=0)))
    before = (options.out / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match=r"learning_rate: 0\.001 then, 0\.5 now"):
        carry_out(retrofit(replace(options, steps=0, memory_learning_rate=0.5)))
    assert (options.out / "recipe.json").read_bytes() == before


def test_phases_have_rates_and_orders_of_their_own(options):
    phases = retrofit(replace(options, seed=3, learning_rate=1e-4, memory_learning_rate=7e-4, steps=5000)).phases
    assert [run.seed for run in phases.values()] == [6, 7]
    assert [run.learning_rate for run in phases.values()] == [7e-4, 1e-4]
    assert [run.memory_learning_rate_factor for run in phases.values()] == [1.0, pytest.approx(7)]
    assert [run.warmup_steps for run in phases.values()] == [0, 100]


def test_held_out_rows_are_as_long_as_the_longest_in_training(options):
    run = retrofit(replace(options, held_out=options.data, segments=(1, 3))).phases["all"]
    assert run.held_out()["input_ids"].shape[1] == 3 * options.segment_length


@pytest.mark.filterwarnings("default")  # peft warns about its own dependencies
def test_lora_keeps_the_base_whole_in_its_checkpoints_and_is_merged_in_the_end(options, base):
    pytest.importorskip("peft")
    options = replace(options, train_base="lora", lora_rank=2, learning_rate=1e-2)
    plan = retrofit(options)
    carry_out(plan)
    trained, plain = weights(options.out / "model"), AutoModelForCausalLM.from_pretrained(base).state_dict()
    memory = weights(options.out / "memory" / "checkpoint-3")
    changed = {name for name, value in trained.items() if not torch.equal(value, memory[name])}
    assert {name for name in plain if name.endswith(("_proj.weight",))} <= changed
    assert "model.embed_tokens.weight" not in changed
    assert sum(is_memory(name) for name in changed) > 8
    checkpoint = options.out / "lora" / "checkpoint-3"
    assert not (checkpoint / "model.safetensors").exists()
    adapted = plan.phases["lora"].model()
    adapted.load_adapter(str(checkpoint), "default")
    ids = torch.arange(20)[None] % 8
    merged = LM2ForCausalLM.from_pretrained(options.out / "model").eval()
    torch.testing.assert_close(merged(ids).logits, adapted.eval()(input_ids=ids).logits)


def test_everything_that_is_wrong_is_told_at_once(options):
    wrong = replace(options, data=Path("nowhere"), memory_layers=(7,), rows=3, accumulation=2, weight_decay=-1.0)
    with pytest.raises(ValueError, match=r"^4 things are wrong") as raised:
        retrofit(wrong)
    for part in ("nowhere holds no token store", "it names [7]", "into 2 passes, got 3", "0 or more, got -1.0"):
        assert part in str(raised.value)
    with pytest.raises(ValueError, match=r"^3 things are wrong.*lora_rank.*rows is 0 and segments is 0: each must"):
        retrofit(replace(options, data=Path("nowhere"), rows=0, segments=(0,), lora_rank=0))


def test_a_store_made_with_another_tokenizer_is_refused(options, tmp_path, base, tokenizer):
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(other)
    changed = type(tokenizer).from_pretrained(base)
    changed.add_tokens(["more"])
    changed.save_pretrained(other)
    with pytest.raises(ValueError, match=rf"made with the tokenizer words .*not with this one \({len(changed)} ids"):
        retrofit(replace(options, base=str(other)))


def test_a_corrupt_shard_is_named(options, tmp_path, store):
    copy = shutil.copytree(store, tmp_path / "copy")
    (shard,) = (copy / "shards").glob("*.tokens")
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"^\S*{shard.name} has {shard.stat().st_size:,} bytes"):
        retrofit(replace(options, data=copy))


def test_a_model_of_another_architecture_is_refused(base, tmp_path, chats):
    for recipe, made in ((sft, SftOptions(model=base, data=chats)), (finetune_babilong, BabilongOptions(model=base))):
        with pytest.raises(ValueError, match=r"of type 'llama', not 'lm2': run `lm2 convert"):
            recipe(replace(made, out=tmp_path))


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before(options):
    """A limit on the size of a file, which the second checkpoint reaches: an error of the system, as of a full disk."""
    carry_out(retrofit(replace(options, steps=0))).rename(options.out / "first")
    line = (
        f"train retrofit --base {options.base} --data {options.data} --out {options.out} --memory-slots 4 "
        "--segment-length 16 --memory-layers 1 --memory-steps 3 --steps 3 --segments 2 --rows 2 --no-bf16 "
        "--log-every 1 --learning-rate 1e-3 --report-to"
    )
    program = (
        "import resource, sys, lm2_command\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(lm2_command.main(sys.argv[1:]))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *line.split()], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (options.out / "all").glob("*checkpoint*")] == []
    assert not (options.out / "all" / ".partial").exists()
    assert (options.out / "memory" / "checkpoint-3" / "model.safetensors").is_file()


@pytest.mark.parametrize("changes", [{}, {"roll_outs": True, "write_cost": 0.0}])
def test_finetuning_for_babilong_trains(tmp_path, model, changes):
    options = BabilongOptions(
        out=tmp_path,
        model=model,
        tasks=("qa1", "qa6"),
        curriculum=(2, 4),
        steps=2,
        facts=1,
        questions=1,
        density=1.0,
        rows=2,
        bf16=False,
        report_to=(),
        **changes,
    )
    plan = finetune_babilong(options)
    assert [stage.segments for stage in plan.phases["train"].stages] == [(2,), (2, 4)]
    before, after = weights(model), weights(carry_out(plan))
    assert not torch.equal(after["model.layers.1.memory.v_proj.weight"], before["model.layers.1.memory.v_proj.weight"])
    carry_out(finetune_babilong(options))  # the same command again is not another run


def test_the_price_of_finetuning_is_on_background(model):
    run, free = (
        finetune_babilong(BabilongOptions(model=model, **own)).phases["train"] for own in ({}, {"write_cost": 0})
    )
    assert (quiet_segments(run), quiet_segments(free)) == (8, 0)
    assert run.training_forward.keywords["cost"] == 100.0
    assert free.training_forward is None


@pytest.mark.parametrize("cost", [0.0, 100.0])
def test_roll_outs_walk_with_a_price_and_without(model, cost):
    run = finetune_babilong(BabilongOptions(model=model, roll_outs=True, write_cost=cost)).phases["train"]
    forward = run.training_forward.keywords["forward"] if cost else run.training_forward
    assert forward.func is walked
    assert forward.keywords["walk"].func is roll_out


def test_the_price_rises_over_all_stages(model):
    run = finetune_babilong(BabilongOptions(model=model, steps=50, curriculum=(1, 2, 4))).phases["train"]
    assert run.training_forward.keywords["rise"] == (60, 120)


def test_the_memory_has_its_own_rate_in_finetuning(model, chats):
    stories = BabilongOptions(model=model, learning_rate=1e-4, memory_learning_rate=7e-4)
    talks = SftOptions(model=model, data=chats, segments=3, learning_rate=1e-4, memory_learning_rate=7e-4)
    for plan in (finetune_babilong(stories), sft(talks)):
        run = plan.phases["train"]
        assert (run.learning_rate, run.memory_learning_rate_factor) == (1e-4, pytest.approx(7))


def test_a_price_that_falls_is_one_sentence(model):
    with pytest.raises(ValueError, match=r"write_cost_rise is 0\.8 0\.4"):
        finetune_babilong(BabilongOptions(model=model, write_cost_rise=(0.8, 0.4)))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"write_cost": -100.0}, "must be 0 or more, and write_cost is -100"),
        ({"write_cost": float("nan")}, "must be 0 or more, and write_cost is nan"),
        ({"facts": 0}, r"max_facts \(0\) and questions"),
        ({"density": -1.0}, r"fact_density is a share of the row, .* not -1\.0"),
        ({"tasks": ("qa1", "qa11")}, "^stories of qa11 cannot be simulated"),
        ({"tasks": ()}, "tasks names 0 tasks"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_amounts_that_cannot_be_are_found_before_the_training(model, own, said, dry_run):
    with pytest.raises(ValueError, match=said):
        finetune_babilong(BabilongOptions(model=model, dry_run=dry_run, **own))


def test_a_rate_of_zero_is_one_sentence(model, chats):
    with pytest.raises(ValueError, match=r"learning_rate must be above 0, got 0\.0"):
        sft(SftOptions(model=model, data=chats, segments=3, learning_rate=0.0))


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_memory_rate_that_cannot_be_has_the_name_of_its_option(model, chats, options, rate):
    """And it is told once, whatever it is divided by on the way."""
    said = rf"^memory_learning_rate must be 0 or more, got {rate}: 0 leaves the memory as it is$"
    with pytest.raises(ValueError, match=said):
        sft(SftOptions(model=model, data=chats, segments=3, memory_learning_rate=rate))
    with pytest.raises(ValueError, match=said):
        retrofit(replace(options, memory_learning_rate=rate))


def test_counts_that_cannot_be_have_the_name_of_their_option(model, options):
    with pytest.raises(ValueError, match=r"^memory_steps must be 0 or more, got -2: 0 leaves its phase out$"):
        retrofit(replace(options, memory_steps=-2))
    with pytest.raises(ValueError, match=r"^curriculum names 0 lengths: give at least one, in segments$"):
        finetune_babilong(BabilongOptions(model=model, curriculum=()))


def test_sft_trains(tmp_path, model, chats):
    options = SftOptions(
        out=tmp_path / "run", model=model, data=chats, segments=3, steps=2, rows=2, bf16=False, report_to=()
    )
    before, after = weights(model), weights(carry_out(sft(options)))
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    carry_out(sft(options))  # the same command again is not another run


def test_a_tokenizer_of_more_tokens_than_the_model_is_found_before_the_training(tmp_path, model, chats, tokenizer):
    folder, larger = Path(shutil.copytree(model, tmp_path / "model")), copy.deepcopy(tokenizer)
    larger.add_tokens(["Alma"])
    larger.save_pretrained(folder)
    with pytest.raises(
        ValueError, match=rf"ids up to {len(tokenizer)}, and the model has embeddings of {len(tokenizer)}"
    ):
        sft(SftOptions(out=tmp_path / "run", model=folder, data=chats, segments=3, report_to=()))


def test_models_stored_in_bfloat16_are_trained_in_float32(tmp_path, model, base):
    with_memory = partial(start_model, memory_slots=4, segment_length=16)
    for folder, start in ((model, load_model), (base, with_memory)):
        stored = tmp_path / folder.name
        AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(stored)
        assert {parameter.dtype for parameter in start(str(stored)).parameters()} == {torch.float32}
