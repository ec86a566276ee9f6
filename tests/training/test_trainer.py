"""The trainer: same rows however they are split, resume as if never stopped, and the model kinds treated alike."""

import json
import math
import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from lm2 import LM2Config, LM2ForCausalLM
from lm2.baselines import RMTConfig, RMTForCausalLM
from lm2.data.packed import PackedRows
from lm2.held import LOCK_FILE
from lm2.training import BatchRequest, LM2Trainer, RunConfig, Stage, train
from lm2.training.folder import begin_with
from tests.data.stores import documents_of, make_store

T = 4
SHAPE = {
    "vocab_size": 17,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def plain() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def rmt() -> RMTForCausalLM:
    return RMTForCausalLM(RMTConfig(backbone_config=LlamaConfig(**SHAPE), segment_length=T, memory_tokens=2))


def lm2() -> LM2ForCausalLM:
    return LM2ForCausalLM(LM2Config(**SHAPE, segment_length=T, memory_slots=3, memory_heads=2))


def uneven_rows(request: BatchRequest) -> dict[str, torch.Tensor]:
    """Random rows of which each is labelled at its own number of places."""
    made = []
    for index in request.rows:
        draw = torch.Generator().manual_seed(hash((request.seed, request.step, index)))
        ids = torch.randint(SHAPE["vocab_size"], (request.segments * T,), generator=draw)
        made.append((ids, ids.masked_fill(torch.rand(len(ids), generator=draw) < 0.2 * (index % 4), -100)))
    ids, labels = zip(*made, strict=True)
    return {"input_ids": torch.stack(ids), "labels": torch.stack(labels)}


def a_run(folder: Path, model=plain, **fields) -> RunConfig:
    defaults = {
        "stages": (Stage(steps=2, segments=(1,), rows=4), Stage(steps=4, segments=(1, 2, 3), rows=8)),
        "learning_rate": 1e-2,
        "warmup_steps": 1,
        "log_every": 1,
        "save_every": 3,
        "report_to": (),
    }
    return RunConfig(model=model, output_dir=folder, **{"make_batch": uneven_rows, **defaults, **fields})


def log_of(run: RunConfig, *names: str) -> list[tuple]:
    lines = [json.loads(line) for line in (run.output_dir / "log.jsonl").read_text().splitlines()]
    return [tuple(line[name] for name in names) for line in lines if "loss" in line]


def stop_at(step: int, model, batch, now):
    if now == step:
        raise KeyboardInterrupt
    return model(**batch, use_cache=False)


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [(rmt, "adamw"), (lm2, "muon"), *(pytest.param(m, "adamw", marks=pytest.mark.slow) for m in (plain, lm2))],
)
def test_resume_is_as_if_never_stopped(tmp_path, model, optimizer):
    whole, halved = (a_run(tmp_path / name, model, optimizer=optimizer) for name in ("whole", "halved"))
    train(whole)
    interrupted = LM2Trainer(replace(halved, training_forward=partial(stop_at, 5)), seeded(model))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    assert [step for (step,) in log_of(halved, "step")] == [1, 2, 3, 4, 5]
    run_file = halved.output_dir / "checkpoint-3" / "lm2_run.json"
    run_file.write_text((whole.output_dir / "checkpoint-3" / "lm2_run.json").read_text())  # without the interruption
    train(halved, resume=True)
    columns = ("step", "loss", "grad_norm", "learning_rate", "segments")
    assert log_of(halved, *columns) == log_of(whole, *columns)
    assert len(log_of(whole, "step")) == 6
    weights = [load_file(run.output_dir / "checkpoint-6" / "model.safetensors") for run in (whole, halved)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_ends_at_a_moment_goes_on_as_if_never_stopped(tmp_path):
    """The moment is past from the start, so each call does the steps of one line of the log; a step is two passes."""
    whole, pieces = (a_run(tmp_path / name, lm2, log_every=2, accumulation=2) for name in ("whole", "pieces"))
    train(whole)
    reached = [train(pieces, resume=True, stop_at=time.monotonic()).state.global_step for _ in range(3)]
    assert reached == [2, 4, 6]
    assert log_of(pieces, "step", "loss", "grad_norm") == log_of(whole, "step", "loss", "grad_norm")
    weights = [load_file(run.output_dir / "checkpoint-6" / "model.safetensors") for run in (whole, pieces)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_runs_of_the_same_settings_go_on_with_what_another_began(tmp_path):
    """The first stops after a step that is no line of the log; the second was cut off as it copied."""
    whole, begun, other = (a_run(tmp_path / name, lm2, log_every=2) for name in ("whole", "begun", "other"))
    train(whole)
    with pytest.raises(ValueError, match="begun has no checkpoint to begin with"):
        begin_with(begun.output_dir, other.output_dir)
    assert train(begun, stop_after=1).state.global_step == 1
    (other.output_dir / ".checkpoint.partial").mkdir(parents=True)
    (other.output_dir / ".checkpoint.partial" / "model.safetensors").write_text("half")
    for _ in range(2):
        begin_with(begun.output_dir, other.output_dir)
    assert [path.name for path in other.output_dir.glob("checkpoint-*")] == ["checkpoint-1"]
    train(other, resume=True)
    begin_with(begun.output_dir, other.output_dir)
    weights = [load_file(run.output_dir / "checkpoint-6" / "model.safetensors") for run in (whole, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [step for (step,) in log_of(other, "step")] == [1, 2, 3, 4, 6]  # 3: a checkpoint
    assert log_of(other, "step", "grad_norm")[1:] == log_of(whole, "step", "grad_norm")
    assert [step for (step,) in log_of(begun, "step")] == [1]


def seeded(model):
    torch.manual_seed(0)
    return model()


@pytest.mark.parametrize("model", [plain, rmt, lm2])
def test_accumulation_changes_nothing(tmp_path, model):
    one = a_run(tmp_path / "one", model)
    four = a_run(tmp_path / "four", model, accumulation=4)
    train(one)
    train(four)
    found, expected = (torch.tensor(log_of(run, "loss", "grad_norm")) for run in (four, one))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", [{"data_workers": 2}, {"activation_checkpointing": True}])
def test_speed_and_space_settings_change_no_loss(tmp_path, fields):
    usual, other = a_run(tmp_path / "usual", rmt), a_run(tmp_path / "other", rmt, **fields)
    train(usual)
    train(other)
    found, expected = (torch.tensor(log_of(run, "loss", "grad_norm")) for run in (other, usual))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_loss_is_per_label_and_the_learning_rate_follows_the_schedule(tmp_path):
    run = a_run(tmp_path, schedule="linear", learning_rate=0.0)
    train(run)
    model = seeded(plain)
    for step, (loss, segments) in enumerate(log_of(run, "loss", "segments")):
        assert segments == run.segments_at(step)
        rows = range(run.stage_at(step).rows)
        batch = uneven_rows(BatchRequest(run.seed, step, rows, segments))
        assert loss == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    warm = a_run(tmp_path / "warm", schedule="linear", learning_rate=0.6)
    train(warm)
    rates = [rate for (rate,) in log_of(warm, "learning_rate")]
    assert rates == pytest.approx([0.0, 0.6, 0.48, 0.36, 0.24, 0.12])


def test_the_log_has_the_pad_share_of_packed_rows(tmp_path):
    """Of all rows of the step, whatever the passes."""
    stages = (Stage(steps=4, segments=(1, 3), rows=4),)
    store = make_store(tmp_path / "store", {"a": documents_of([2, 9, 3, 5, 7, 11] * 4)})
    packed = PackedRows(folder=store.folder, stages=stages, segment_length=T)
    run = replace(a_run(tmp_path / "run", wide, stages=stages, accumulation=2), make_batch=packed)
    train(run)
    for step, share in log_of(run, "step", "pad_share"):
        segments = run.segments_at(step - 1)
        batch = packed(BatchRequest(run.seed, step - 1, range(4), segments))
        pads = (batch["input_ids"] == store.pad_id).sum().item()
        assert share == pytest.approx(pads / (4 * segments * T), abs=1e-4)
        assert share > 0


def wide() -> LM2ForCausalLM:
    return LM2ForCausalLM(LM2Config(**{**SHAPE, "vocab_size": 61}, segment_length=T, memory_slots=3, memory_heads=2))


def test_a_checkpoint_ends_a_line_of_the_log(tmp_path):
    """Or else the first line after it would be about other steps in a run that resumes there."""
    run = a_run(tmp_path, lm2, log_every=4, save_every=3, learning_rate=0.0)
    train(run)
    each = a_run(tmp_path / "each", lm2, learning_rate=0.0)
    train(each)
    losses = [loss for (loss,) in log_of(each, "loss")]
    found = log_of(run, "step", "loss")
    assert [step for step, _ in found] == [3, 4, 6]
    assert [loss for _, loss in found] == pytest.approx([sum(losses[:3]) / 3, losses[3], sum(losses[4:]) / 2], rel=1e-6)
    norms = ("step", "grad_norm_memory")
    assert set(log_of(run, *norms)) <= set(log_of(each, *norms))


def test_checkpoints_are_whole_readable_and_few(tmp_path):
    run = a_run(tmp_path, save_every=1, keep_checkpoints=2)
    train(run)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["checkpoint-5", "checkpoint-6"]
    assert not list(tmp_path.rglob("*.bin"))
    saved = json.loads((tmp_path / "checkpoint-6" / "lm2_run.json").read_text())
    assert saved["run"]["learning_rate"] == 1e-2
    assert saved["run"]["model"].endswith("plain")
    assert saved == json.loads((tmp_path / "lm2_run.json").read_text())
    assert LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint-6").config.use_cache


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    run = a_run(tmp_path)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LM2Trainer, "_save_rng_state", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, "lm2_run.json", "log.jsonl"]


def test_a_finished_run_resumes_to_itself(tmp_path):
    run = a_run(tmp_path)
    first = train(run)
    again = train(run, resume=True)
    assert again.state.global_step == 6
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


def test_evaluation_leaves_no_trace(tmp_path):
    def look(model, step):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"noise": torch.rand(3).sum() + random.random(), "at": step}

    def noisy(model, batch, step):
        assert model.training
        output = model(**batch, use_cache=False)
        output.loss = output.loss * (1 + 0.1 * torch.rand(()) + 0.1 * random.random())
        return output

    without = a_run(tmp_path / "without", training_forward=noisy)
    watched = a_run(tmp_path / "watched", training_forward=noisy, evaluation=look, evaluation_every=4)
    assert train(without).model.training == train(watched).model.training
    assert log_of(watched, "loss") == log_of(without, "loss")
    lines = [json.loads(line) for line in (watched.output_dir / "log.jsonl").read_text().splitlines()]
    assert [line["eval_at"] for line in lines if "eval_at" in line] == [4, 6]


def test_the_time_of_an_evaluation_is_no_time_of_training(tmp_path, monkeypatch):
    """Each evaluation takes an hour."""
    clock, hours = time.perf_counter, [0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 3600 * hours[0])

    def long_look(model, step):
        hours[0] += 1
        return {"x": 1.0}

    run = a_run(tmp_path, evaluation=long_look, evaluation_every=1)
    train(run)
    assert hours == [6]
    assert all(speed > 1 for (speed,) in log_of(run, "tokens_per_second"))


def test_the_seed_is_that_of_the_weights_and_of_what_training_draws(tmp_path):
    def trained(name: str, seed: int) -> tuple[torch.Tensor, list[float]]:
        drawn = []

        def forward(model, batch, step):
            drawn.append(torch.rand(()).item())
            return model(**batch, use_cache=False)

        stages, unchanged = (Stage(steps=2, rows=4),), {"learning_rate": 0.0, "training_forward": forward}
        return train(a_run(tmp_path / name, seed=seed, stages=stages, **unchanged)).model.lm_head.weight, drawn

    (one, drawn), (_, again), (_, other) = trained("one", 1), trained("again", 1), trained("other", 2)
    torch.manual_seed(1)
    assert torch.equal(one, plain().lm_head.weight)
    assert drawn == again != other


def test_bf16_trains(tmp_path):
    run = a_run(tmp_path, rmt, bf16=True)
    train(run)
    assert all(torch.tensor(log_of(run, "loss", "grad_norm")).isfinite().flatten())
    assert load_file(tmp_path / "checkpoint-6" / "model.safetensors")["memory.weight"].dtype == torch.float32


def test_errors_name_the_values(tmp_path):
    with pytest.raises(ValueError, match=r"rows must divide into 3 passes, got 4: use a multiple of 3"):
        train(a_run(tmp_path, accumulation=3))
    with pytest.raises(ValueError, match="fsdp=True was asked for, but there is 1 process"):
        train(a_run(tmp_path, fsdp=True))
    train(a_run(tmp_path))
    with pytest.raises(ValueError, match="already holds checkpoint-6"):
        train(a_run(tmp_path))
    with pytest.raises(ValueError, match=r"learning_rate: 0\.01 then, 0\.5 now"):
        train(a_run(tmp_path, learning_rate=0.5), resume=True)
    (tmp_path / "checkpoint-6" / "lm2_run.json").unlink()
    with pytest.raises(ValueError, match=r"has no lm2_run\.json"):
        train(a_run(tmp_path), resume=True)


def rates_of(folder: Path, schedule: str, warmup_steps: int) -> list[float]:
    """The learning rates of 20 steps, as shares of the peak."""
    run = a_run(folder, stages=(Stage(steps=20, rows=4),), warmup_steps=warmup_steps, schedule=schedule)
    trainer = LM2Trainer(run, plain())
    trainer.create_optimizer_and_scheduler(run.steps)
    rates = []
    for _ in range(run.steps):
        rates.append(trainer.optimizer.param_groups[0]["lr"] / run.learning_rate)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return rates


FALLS = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share: 1 - share,
    "constant": lambda share: 1.0,
}


@pytest.mark.parametrize("schedule", FALLS)
def test_every_schedule_rises_over_the_warm_up_and_then_falls_in_its_way(tmp_path, schedule):
    rates = rates_of(tmp_path, schedule, warmup_steps=4)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75] + [FALLS[schedule](i / 16) for i in range(16)])


def test_the_trapezoid_stays_at_the_peak_and_falls_over_the_last_30_percent(tmp_path):
    rates = rates_of(tmp_path, "trapezoid", warmup_steps=4)
    assert rates[:4] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert rates[4:15] == pytest.approx([1] * 11)
    assert rates[14:] == pytest.approx([1 - i / 6 for i in range(6)])


def test_the_trapezoid_of_a_long_warm_up_falls_in_what_is_left(tmp_path):
    assert rates_of(tmp_path, "trapezoid", warmup_steps=18) == pytest.approx([i / 18 for i in range(18)] + [1, 0.5])


def test_progress_says_step_loss_and_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lm2.progress.LINE_EVERY", 0.0)
    train(a_run(tmp_path, log_every=1))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training, step")]
    logged = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in logged if "loss" in line]
    assert [line.partition(":")[0] for line in lines] == [
        "training, step 1 of 6",
        *(f"training, step {step} of 6, loss {loss:.4f}" for step, loss in zip(range(2, 7), losses, strict=False)),
    ]
    assert lines[2].partition(": ")[2].startswith("50 %, 0:00:")
