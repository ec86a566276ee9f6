"""Watching: the losses are the model's own, a dead memory is seen, and a run writes numbers and histograms."""

import json
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lm2 import LM2Cache, LM2Config, LM2ForCausalLM
from lm2.training import LM2Trainer, train
from lm2.training.flops import forward_flops
from lm2.training.watching import Watched, _slots_used, watch
from tests.training.test_trainer import SHAPE, T, a_run, lm2, log_of, plain, rmt, seeded


def rows(segments: int = 4) -> dict[str, torch.Tensor]:
    ids = torch.randint(SHAPE["vocab_size"], (3, segments * T), generator=torch.Generator().manual_seed(7))
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize("model", [lm2, rmt])
def test_the_losses_are_the_models(model):
    built, batch = seeded(model).eval(), rows()
    watched = watch(built, batch)
    counts = torch.tensor([T, T, T, T - 1])  # the last position has nothing to predict
    whole = (torch.tensor(watched.carried) * counts).sum() / counts.sum()
    torch.testing.assert_close(whole, built(**batch).loss.detach())
    assert watched.carried[0] == pytest.approx(watched.reset[0])
    assert watched.carried[2] != pytest.approx(watched.reset[2], abs=1e-6)


def test_a_memory_that_does_nothing_is_seen():
    built = seeded(lm2).eval()
    for layer in built.model.layers:
        torch.nn.init.zeros_(layer.memory.v_proj.weight)
    watched = watch(built, rows())
    assert watched.scalars()["gain"] == pytest.approx(0, abs=1e-6)
    for layer in built.model.layers:
        torch.nn.init.constant_(layer.memory.write_gate.weight, 0.0)
        torch.nn.init.constant_(layer.memory.write_gate.bias, -9.0)
    closed = watch(built, rows()).scalars()
    assert closed["write_gate"] == closed["mass"] == closed["slots_used"] == closed["write_norm"] == 0
    assert 0 < watched.scalars()["mass"] < 1
    assert 1 <= watched.scalars()["slots_used"] <= 3


def test_the_gain_is_what_the_memory_saves_after_the_first_segment():
    found = Watched([5.0, 2.0, 1.0], [5.0, 3.0, 4.0], {}).scalars()
    assert found == {"carried": 1.5, "reset": 3.5, "gain": 2.0, "loss_first": 5.0, "loss_last": 1.0}


def test_slots_that_get_as_much_are_all_used_and_one_that_gets_all_is_one():
    mass_RND = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.5, 0.9], [0.5, 0.0]])[None]
    assert _slots_used(mass_RND[..., :1]).item() == pytest.approx(4)
    assert _slots_used(mass_RND[..., 1:]).item() == pytest.approx(1)
    assert _slots_used(mass_RND).item() == pytest.approx(2.5)


def test_what_is_told_of_gates_and_writes_is_what_the_model_does():
    """With gates that are open as far as their bias says, and a single segment: its write is what the bank changes."""
    built, batch, biases = seeded(lm2).eval(), rows(1), {"write": 0.1, "output": -0.5, "input": 1.5, "forget": 0.7}
    for layer in built.model.layers:
        for name, bias in biases.items():
            gate = getattr(layer.memory, f"{name}_gate")
            torch.nn.init.zeros_(gate.weight)
            torch.nn.init.constant_(gate.bias, bias)
    open_ = {f"{name}_gate": torch.tensor(bias).sigmoid().item() for name, bias in biases.items()}
    open_["write_gate"] = 1.2 * open_["write_gate"] - 0.1
    cache = LM2Cache(built.config)
    with torch.no_grad():
        built(batch["input_ids"], past_key_values=cache)
    records = watch(built, batch).banks.values()
    for record, state, layer in zip(records, cache.states, built.model.layers, strict=True):
        start, found = layer.memory.initial_bank(3, "cpu"), record.means()
        assert {name: found[name] for name in open_} == pytest.approx(open_, rel=1e-5)
        assert found["write_norm"] == pytest.approx(((state.bank - start).norm() / start.norm()).item(), rel=1e-4)


def test_histograms_count_every_value():
    watched = watch(seeded(lm2).eval(), rows())
    assert len(watched.banks) == 2
    for bank in watched.banks.values():
        assert bank.segments == 4
        assert bank.histograms["write_gate"].sum() == 4 * 3 * T * 2  # segments, rows, tokens, heads
        assert bank.histograms["mass"].sum() == 4 * 3 * 3 * SHAPE["hidden_size"]  # segments, rows, slots


def test_a_run_is_watched_without_a_trace(tmp_path):
    fields = {"report_to": ("tensorboard",), "held_out": rows, "watch_every": 4, "device_flops": 1e9}
    without, watched = a_run(tmp_path / "without", lm2), a_run(tmp_path / "watched", lm2, **fields)
    train(without)
    train(watched)
    assert log_of(watched, "loss", "grad_norm") == log_of(without, "loss", "grad_norm")
    lines = [json.loads(line) for line in (watched.output_dir / "log.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "watch_gain" in line]
    assert [line["step"] for line in looks] == [4, 6]
    assert {"watch_carried", "watch_reset", "watch_loss_first", "watch_slots_used", "watch_write_norm"} <= set(looks[0])
    records = [json.loads(line) for line in (watched.output_dir / "watch.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [4, 6]
    assert [len(record["carried"]) for record in records] == [4, 4]
    assert list(watched.output_dir.rglob("events.out.tfevents*"))
    trained = [line for line in lines if "mfu" in line]
    assert len(trained) == 6
    for line in trained:
        segments = line["segments"]
        per_token = 3 * forward_flops(seeded(lm2), segments) / (segments * T)
        assert line["mfu"] == pytest.approx(per_token * line["tokens_per_second"] / 1e9, rel=0.1)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="needs a model with segments, got LlamaForCausalLM"):
        LM2Trainer(a_run(tmp_path, held_out=rows, watch_every=3), plain())
    with pytest.raises(ValueError, match="held_out and watch_every go together, got None and 3"):
        a_run(tmp_path, watch_every=3)
    with pytest.raises(ValueError, match="report_to names 'paper', and the trackers are tensorboard, trackio, wandb"):
        LM2Trainer(a_run(tmp_path, report_to=("paper",)), plain())
    assert LM2Trainer(a_run(tmp_path, report_to=("none",)), plain()).args.report_to == []


@pytest.mark.parametrize("fields", [{}, {"memory_layers": [1], "look_back": 2, "memory_key_value_heads": 1}])
@pytest.mark.parametrize("segments", [1, 3])
def test_operations_are_those_that_torch_counts(fields, segments):
    config = LM2Config(**SHAPE, segment_length=T, memory_slots=5, memory_heads=2, memory_topk=5, **fields)
    config._attn_implementation = "eager"  # as with top-k, products are counted one by one
    model = LM2ForCausalLM(config).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.ones(1, segments * T, dtype=torch.long), use_cache=False)
    assert counter.get_total_flops() == forward_flops(model, segments)


def test_partial_functions_are_held_out_rows_too(tmp_path):
    run = a_run(tmp_path, lm2, held_out=partial(rows, 2), watch_every=6)
    train(run)
    assert len(json.loads((tmp_path / "watch.jsonl").read_text())["reset"]) == 2
