"""Lanes: consecutive pieces train as the whole text does, texts begin anew row by row, and resuming restores banks."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lm2 import LM2Cache
from lm2.training import BatchRequest, LM2Trainer, RunConfig, Stage, train
from lm2.training.lanes import Lanes
from tests.training.test_trainer import SHAPE, T, a_run, lm2, log_of, plain, seeded

ROWS, STEPS = 4, 6
TEXTS = torch.randint(SHAPE["vocab_size"], (ROWS, STEPS * 2 * T), generator=torch.Generator().manual_seed(5))


def pieces(request: BatchRequest) -> dict[str, torch.Tensor]:
    """Two segments of each row's text; row i begins a new text at step i."""
    columns = slice(request.step * 2 * T, (request.step + 1) * 2 * T)
    ids = TEXTS[list(request.rows), columns]
    fresh = torch.tensor([row == request.step for row in request.rows])
    return {"input_ids": ids, "labels": ids, "fresh": fresh}


def a_lane_run(folder, **fields) -> RunConfig:
    run = a_run(folder, lm2, stages=(Stage(steps=STEPS, segments=(2,), rows=ROWS),), lanes=True, **fields)
    return replace(run, make_batch=pieces)


def test_pieces_are_read_as_the_texts_they_make(tmp_path):
    run = a_lane_run(tmp_path, learning_rate=0.0)
    trained = train(run)
    found, model = log_of(run, "loss"), seeded(lm2).train()
    for step, (loss,) in enumerate(found):
        total, count = 0.0, 0
        for row in range(ROWS):
            start = row if step >= row else 0  # where this row's present text begins
            before, ids = TEXTS[row, start * 2 * T : step * 2 * T], TEXTS[row, step * 2 * T : (step + 1) * 2 * T]
            cache = LM2Cache(model.config)
            if len(before):
                model(before[None], past_key_values=cache)
            total += model(ids[None], labels=ids[None], past_key_values=cache).loss.item() * (len(ids) - 1)
            count += len(ids) - 1
        assert loss == pytest.approx(total / count, rel=1e-5), step
    cache = trained._lanes.caches[0]
    assert cache.tokens_R.tolist() == [(STEPS - row) * 2 * T for row in range(ROWS)]
    assert not any(x.requires_grad for state in cache.states for x in state if x is not None)


def test_accumulation_changes_nothing(tmp_path):
    one, two = a_lane_run(tmp_path / "one"), a_lane_run(tmp_path / "two", accumulation=2)
    train(one)
    train(two)
    found, expected = (torch.tensor(log_of(run, "loss", "grad_norm")) for run in (two, one))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_resume_restores_the_banks(tmp_path):
    whole, halved = a_lane_run(tmp_path / "whole"), a_lane_run(tmp_path / "halved")
    train(whole)

    def stopping(request):
        if request.step == 4:
            raise KeyboardInterrupt
        return pieces(request)

    interrupted = LM2Trainer(replace(halved, make_batch=stopping), seeded(lm2))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    record = halved.output_dir / "checkpoint-3" / "lm2_run.json"
    record.write_text((whole.output_dir / "checkpoint-3" / "lm2_run.json").read_text())  # without the interruption
    train(halved, resume=True)
    assert log_of(halved, "step", "loss", "grad_norm") == log_of(whole, "step", "loss", "grad_norm")
    for name in ("model.safetensors", "lanes-0.safetensors"):
        ends = [load_file(run.output_dir / "checkpoint-6" / name) for run in (whole, halved)]
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0]), name


def test_a_skipped_step_leaves_the_banks_as_they_were():
    """But for a row whose text began with it, which begins anew: in step 1 that is row 1, the second of pass 0."""
    model = seeded(lm2).train()
    lanes = Lanes(model.config, passes=2)

    def do(step: int) -> list[LM2Cache]:
        for row in (0, 2):
            lanes.forward(model, pieces(BatchRequest(0, step, range(row, row + 2), 2)), step)
        return list(lanes.caches)

    kept = do(0)
    assert do(1)[0].states is not kept[0].states
    lanes.undo()
    assert lanes.caches[0].tokens_R.tolist() == [2 * T, 0]
    assert lanes.caches[1].tokens_R.tolist() == [2 * T, 2 * T]
    for block, memory in enumerate(layer.memory for layer in model.model.layers):
        first, second = (lanes.caches[i].states[block].bank for i in range(2))
        assert torch.equal(first[0], kept[0].states[block].bank[0])
        assert torch.equal(first[1], memory.initial_bank(1, "cpu")[0])
        assert torch.equal(second, kept[1].states[block].bank)


def test_saved_lanes_come_back(tmp_path):
    lanes = Lanes(seeded(lm2).config, passes=2)
    lanes.save(tmp_path / "empty.safetensors")
    lanes.load(tmp_path / "empty.safetensors", "cpu")
    assert [cache.rows for cache in lanes.caches] == [0, 0]
    with pytest.raises(ValueError, match="lanes of 2 passes, and the run has 3"):
        Lanes(lanes.config, passes=3).load(tmp_path / "empty.safetensors", "cpu")
    with pytest.raises(ValueError, match=r"none\.safetensors is missing"):
        lanes.load(tmp_path / "none.safetensors", "cpu")


def test_loaded_lanes_know_how_much_they_have_seen(tmp_path):
    model = seeded(lm2).train()
    lanes, again = Lanes(model.config, passes=1), Lanes(model.config, passes=1)
    lanes.forward(model, pieces(BatchRequest(0, 0, range(2), 2)), 0)
    lanes.save(tmp_path / "lanes.safetensors")
    again.load(tmp_path / "lanes.safetensors", "cpu")
    assert again.caches[0].seen == lanes.caches[0].seen == 2 * T


def test_errors_name_the_values(tmp_path):
    with pytest.raises(ValueError, match=r"same rows, got \[4, 8\]"):
        a_run(tmp_path, lanes=True)
    with pytest.raises(ValueError, match=r"lanes have a forward of their own, got json\.dumps"):
        a_lane_run(tmp_path, training_forward=json.dumps)
    with pytest.raises(ValueError, match="needs an LM2 model, whose banks go on, got LlamaForCausalLM"):
        LM2Trainer(a_lane_run(tmp_path), plain())
    with pytest.raises(ValueError, match="step 0 has attention_mask, input_ids"):
        Lanes(seeded(lm2).config, 1).forward(None, {"input_ids": 1, "attention_mask": 1}, 0)
