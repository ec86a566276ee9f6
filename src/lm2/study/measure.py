"""What a trained model remembers, and what its bank does: accuracy by length, mass on noise, slots used, drift.

Shape suffixes as in `lm2.memory`: R rows, S segments, N slots, D width, H memory heads.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm2.cache import LM2Cache, banks_of
from lm2.demo.evaluation import answer
from lm2.memory import LM2Memory
from lm2.modeling import LM2ForCausalLM
from lm2.study.config import BASE, Job
from lm2.study.tasks import NOISE_SEED, Questions, Task, load_task

USED = 0.1
"""Mass above which a slot counts as written."""
NOISE_SEGMENTS = 64
ROWS = 32


@torch.no_grad()
def measure(model: Any, job: Job) -> dict[str, Any]:
    """Accuracy at each length, and for LM2 the numbers of `bank_numbers`. A backbone is asked within one segment."""
    task = load_task(job.task)
    if job.variant == BASE:
        return {"accuracy_one_segment": _one_segment(model, task, job.samples)}
    lengths = [n for n in task.lengths if job.longest is None or n <= job.longest] or [task.lengths[0]]
    accuracy = {}
    for length in lengths:
        n = max(1, job.samples // 2) if length == task.lengths[-1] else job.samples
        asked = task.questions(length, n)
        right = int((answer(model, asked.ids, task.segment_length) == asked.answers).sum())
        accuracy[str(length)] = {"right": right, "n": n, "constant": asked.constant}
    bank = bank_numbers(model, task) if isinstance(model, LM2ForCausalLM) else None
    return {"accuracy": accuracy, "bank": bank}


def bank_numbers(model: LM2ForCausalLM, task: Task) -> dict[str, float]:
    """What the banks do in a story and then in noise.

    slots: slots per bank with mass above USED in some head and segment of the story; mass_mean, mass_999: mean and
    99.9 % quantile of the mass p in segments of noise; drift: 1 - cosine of the written rows before and after them.
    """
    rng = np.random.default_rng(NOISE_SEED)
    asked: Questions = task.questions(task.lengths[0], ROWS)
    T = task.segment_length
    story = asked.ids[:, : (asked.ids.shape[1] - 1) // T * T].to(model.device)
    cache = LM2Cache(model.config)
    with recorded_masses(model) as told:
        model(story, past_key_values=cache, logits_to_keep=1)
    before = cache.copy()
    with recorded_masses(model) as idle:
        model(task.noise(ROWS, NOISE_SEGMENTS, rng).to(model.device), past_key_values=cache, logits_to_keep=1)
    used = [(torch.stack(masses).amax((0, -1)) > USED) for masses in told]
    noise = torch.cat([torch.stack(masses).flatten() for masses in idle])
    return {
        "slots": sum(chosen.sum(-1).float().mean().item() for chosen in used) / len(used),
        "mass_mean": noise.mean().item(),
        "mass_999": noise.quantile(0.999).item(),
        "drift": _drift(before, cache, used),
    }


@contextmanager
def recorded_masses(model: LM2ForCausalLM) -> Generator[list[list[Tensor]]]:
    """Collect the mass p of each write, per memory: lists of (R, N, D)."""
    memories = [module for module in model.modules() if isinstance(module, LM2Memory)]
    found: list[list[Tensor]] = [[] for _ in memories]

    def watch(memory: LM2Memory, masses: list[Tensor]) -> None:
        offer = memory.offer

        def watched(alignment_RHTN: Tensor, rho_RTH: Tensor, u_RTD: Tensor) -> tuple[Tensor, Tensor]:
            mass_RND, offer_RND = offer(alignment_RHTN, rho_RTH, u_RTD)
            masses.append(mass_RND)
            return mass_RND, offer_RND

        memory.offer = watched

    for memory, masses in zip(memories, found, strict=True):
        watch(memory, masses)
    try:
        yield found
    finally:
        for memory in memories:
            del memory.offer


def _drift(before: LM2Cache, after: LM2Cache, used: list[Tensor]) -> float:
    olds, news = ([bank for bank in banks_of(cache) if bank is not None] for cache in (before, after))
    chosen = [
        (1 - F.cosine_similarity(old, new, dim=-1))[rows] for old, new, rows in zip(olds, news, used, strict=True)
    ]
    values = torch.cat(chosen)
    return values.mean().item() if len(values) else 0.0


def _one_segment(model: Any, task: Task, n: int) -> float:
    """Share of labelled tokens that a backbone gets right on held-out rows of one segment."""
    rows = [task.base_row(np.random.default_rng([NOISE_SEED, i]), opening=False) for i in range(n)]
    ids, labels = (torch.from_numpy(np.stack(part)).to(model.device) for part in zip(*rows, strict=True))
    predicted, target = model(ids).logits[:, :-1].argmax(-1), labels[:, 1:]
    known = target != -100
    return (predicted[known] == target[known]).float().mean().item()
