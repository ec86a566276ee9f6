"""Teaching a reproduction's LM2: what is asked of it beside the answers is true, and in the loss as documented."""

import json
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from lm2.analysis.trace import blocks_of
from lm2.data.babi import PLACES
from lm2.data.rows import IGNORED
from lm2.reproduce import material
from lm2.reproduce.sizes import SMOKE
from lm2.training.write_cost import fresh_rows, watched_gates
from tests.benchmarks.scripts import script, trains_on_once

hardening = script("harden_babilong")  # which the other imports
taught_rows = script("taught_rows")  # which it imports, too
teaching = script("teach_babilong")


@pytest.fixture(scope="module")
def rows(reproduction):
    plain = material.training_rows(reproduction, SMOKE)
    tokenizer = material.load_tokenizer(reproduction)
    return taught_rows.TaughtRows(tokenizer, plain.pool, plain.T, plain.stories)


def _made(rows, task: str, n: int):
    rows.tasks = (task,)
    return [rows.row("scattered", 4, random.Random(i)) for i in range(n)]


@pytest.fixture(scope="module")
def model(reproduction):
    return AutoModelForCausalLM.from_pretrained(reproduction.out / "lm2" / "model")


def _batch(rows, tasks: tuple[str, ...]) -> dict[str, torch.Tensor]:
    ids, labels = zip(*(row for task in tasks for row in _made(rows, task, 2)), strict=True)
    labels = torch.tensor(labels)
    return {"input_ids": torch.tensor(ids), "labels": labels, "num_items_in_batch": (labels[:, 1:] != IGNORED).sum()}


def _teaching(rows, steps: int = 10):
    places = tuple(rows.encode(f" {place}")[0] for place in PLACES)
    return teaching.Teaching(steps, places, rows.encode(".")[0])


def _by_hand(model, batch: dict[str, torch.Tensor], places: tuple[int, ...], stop: int) -> dict[str, float]:
    """The parts of the loss, label by label."""
    parts: dict[str, list[float]] = {"answers": [], "places": [], "others": [], "pay": [], "first": [], "last": []}
    memory = next(block.memory for block in blocks_of(model))  # it has one, the first and the last
    with watched_gates(model) as rhos, _watched_inputs(memory) as inputs:
        out = model(batch["input_ids"], use_cache=False, output_hidden_states=True)
    alignment_RHLN = _alignment(memory, *inputs)
    plain, *slots = taught_rows.unpacked(batch["labels"])
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), plain.tolist(), strict=True)):
        for at in range(1, len(ids)):
            for name, slot_BL in zip(("first", "last"), slots, strict=True):
                if (slot := int(slot_BL[row, at])) != IGNORED:
                    parts[name] += (-alignment_RHLN[row, :, at - 1, slot % memory.slots].log()).tolist()
            if labels[at] == IGNORED:
                continue
            label = torch.tensor(labels[at])
            kind = "answers" if labels[at] == ids[at] else "places" if labels[at] in places else "others"
            state = {"answers": -1, "places": -2, "others": -3}[kind]
            hidden = out.hidden_states[state][row, at - 1]
            logits = model.lm_head(hidden if kind == "answers" else model.model.norm(hidden))
            parts[kind].append(F.cross_entropy(logits, label).item())
            if kind != "answers" and ids[at] == stop:
                greatest = [rho.reshape(len(batch["input_ids"]), -1, rho.shape[-1])[row, at - 1].max() for rho in rhos]
                parts["pay"] += [max(0.0, teaching.OPEN - value.item()) for value in greatest]
    return {name: float(np.mean(values)) if values else 0.0 for name, values in parts.items()}


@contextmanager
def _watched_inputs(memory):
    inputs = []
    with memory.register_forward_pre_hook(lambda _, args: inputs.extend(args)):
        yield inputs


def _alignment(memory, x_RSTD, bank_RND, complete_RS, *_) -> torch.Tensor:
    """A of every token, (R, H, L, N), with the bank that its segment reads."""
    q_RSTD, rho_RSTH, u_RSTD = memory.project(x_RSTD)
    norm_RSND, _ = memory.scan(q_RSTD, rho_RSTH, u_RSTD, bank_RND, complete_RS, None, None, keep=True)
    return torch.cat([memory.align(q_RSTD[:, s], norm_RSND[:, s]) for s in range(x_RSTD.shape[1])], 2)


@pytest.mark.parametrize("tasks", [("qa2", "qa4", "qa5"), ("qa4",), ("qa1", "qa3")])
@pytest.mark.parametrize("step", [0, 3, 7])
def test_the_loss_is_the_sum_of_its_parts(rows, model, tasks, step):
    taught, batch = _teaching(rows), _batch(rows, tasks)
    parts = _by_hand(model, batch, taught.places, taught.stop)
    pay = teaching.PAY * max(0.0, 1 - step / (teaching.PAID_UNTIL * 10))
    asked = sum(parts[name] for name in ("places", "others", "first", "last"))
    expected = parts["answers"] + (1 - step / 10) * asked + pay * parts["pay"]
    assert taught(model, batch, step).loss.item() == pytest.approx(expected, rel=1e-4)


def test_passes_share_the_loss_by_their_labels(rows, model):
    taught, batch = _teaching(rows), _batch(rows, ("qa2",))
    whole = taught(model, batch, 0).loss
    half = taught(model, {**batch, "num_items_in_batch": 2 * batch["num_items_in_batch"]}, 0).loss
    assert half.item() == pytest.approx(whole.item() / 2, rel=1e-5)


def test_without_anything_to_know_it_is_the_plain_pass(rows, model):
    batch = _batch(rows, ("qa1",))
    batch["labels"], *_ = taught_rows.unpacked(batch["labels"])
    assert torch.equal(_teaching(rows)(model, batch, 0).loss, fresh_rows(model, batch, 0).loss)


def test_a_model_is_taught_once_and_measured(reproduction, few, monkeypatch):
    monkeypatch.setattr(hardening, "ROWS", 50)
    options = teaching.Options(**few, steps=3)
    teaching.main(options)
    models = json.loads(options.out.read_text())["models"]
    assert list(models) == ["before", "taught"]
    assert models["before"]["held_out_rows"]["loss"] != models["taught"]["held_out_rows"]["loss"]
    folders = [reproduction.out / "lm2", options.folder / "lm2"]
    trains_on_once(teaching, options, [folder / "model" / "model.safetensors" for folder in folders])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"share": 1.5}, r"--share is 1\.5: it must be above 0 and at most 1"),
        ({"steps": 1}, r"--steps is 1: at least 2"),
    ],
)
def test_options_out_of_range_are_named(reproduction, tmp_path, changed, says):
    with pytest.raises(ValueError, match=says):
        teaching.main(teaching.Options(run=reproduction.out, folder=tmp_path / "taught", **changed))


def test_there_must_be_a_model_to_teach(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no trained LM2: finish `lm2 reproduce"):
        teaching.main(teaching.Options(run=tmp_path, folder=tmp_path / "taught"))
