"""Asks models about BABILong samples, cell by cell, and keeps every answer as soon as it is there.

Answers lie in `OUT/answers/MODEL/records.RANK.jsonl`. What decides an answer (model, samples, prompt) is in the first
line of each file, and what does not (tasks, lengths, number of samples, scoring rule) is not: a run can be extended,
and scored again, without asking anything twice; but what was exchanged with another sample than it would be now.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from lm2.evaluation.babilong import Sample, SampleSource
from lm2.evaluation.config import BabilongConfig
from lm2.evaluation.controls import QUESTION, Asker, Query, conditions, partner
from lm2.evaluation.models import ModelSpec, Runner, TooLong, load_runner, parse_specs, segment_length_of
from lm2.evaluation.prompts import prompt_parts
from lm2.evaluation.records import Records, mine, wait_for_all
from lm2.evaluation.tokens import n_tokens
from lm2.processes import is_first
from lm2.progress import TimeLeft

LEAST_TOKENS = 150
"""What a sample without background is taken to cost, in tokens: for the progress bar only."""
Cell = tuple[str, str]
"""Task and length."""


class Job(NamedTuple):
    """One question to one model."""

    cell: Cell
    sample: Sample
    condition: str
    other: Sample | None

    @property
    def key(self) -> tuple[str, str, int, str]:
        return (*self.cell, self.sample.index, self.condition)

    @property
    def exchanged(self) -> int | None:
        """The sample whose memory it is asked with, if that is not its own."""
        return self.other.index if self.condition == "exchanged" and self.other is not None else None

    @property
    def cost(self) -> int:
        text = 0 if self.condition == QUESTION else max(LEAST_TOKENS, n_tokens(self.cell[1]))
        return text + LEAST_TOKENS


class Asked(NamedTuple):
    """A model that has answered: its name, its description, and the records of the cells that were asked for."""

    name: str
    description: dict[str, Any]
    records: list[dict[str, Any]]


def evaluate(config: BabilongConfig, source: SampleSource) -> list[Asked]:
    """Ask every model everything that has no answer yet; of several processes each asks its share.

    Returns:
        What was asked for of all processes, once they have finished.

    Raises:
        ValueError: a model or the samples cannot be had, a cell has no memory to exchange, or answers of other settings
            are in the folder.
    """
    specs = parse_specs(config.models, limits=True)
    console = Console(quiet=not is_first())
    cells = dict(config.cells(source))
    _check_exchange(config, specs, cells)
    asked = []
    for spec in specs:
        runner = load_runner(spec, config.runner_options())
        records = Records(answers_folder(config.out, spec.name), settings_of(config, source, runner))
        whole = jobs(conditions(runner, config.controls), cells, spec.samples)
        ask(runner, my_jobs(whole), records, config, console)
        asked.append((spec.name, runner.description, records, [(job.key, job.exchanged) for job in whole]))
        del runner  # the next model needs its place
    wait_for_all()
    return [Asked(name, facts, _wanted(records, keys)) for name, facts, records, keys in asked]


def _check_exchange(config: BabilongConfig, specs: Sequence[ModelSpec], cells: dict[Cell, list[Sample]]) -> None:
    """Raises ValueError if a memory is to be exchanged in a cell of one sample: found before a model is loaded."""
    alone = [cell for cell, samples in cells.items() if len(samples) == 1]
    if alone and "exchanged" in config.controls and any(segment_length_of(spec.source) for spec in specs):
        raise ValueError(
            f"the control exchanged needs at least 2 samples in a cell, and {' '.join(alone[0])} has 1: ask 2 or more, "
            "or leave it out with --controls reset frozen"
        )


def _wanted(records: Records, keys: list[tuple[tuple[str, str, int, str], int | None]]) -> list[dict[str, Any]]:
    """The records of these keys and exchanged samples, by whichever process they were written."""
    written = {(tuple(record["key"]), record.get("other")): record for record in records.read()}
    return [written[key] for key in keys]


def answers_folder(out: Path, name: str) -> Path:
    """Where the answers of a model lie."""
    return out / "answers" / re.sub(r"[^\w.+@-]", "_", name)


def settings_of(config: BabilongConfig, source: SampleSource, runner: Runner) -> dict[str, Any]:
    """What the answers depend on, one value a name, so that a difference can be told."""
    parts = {"samples": source.description, "prompt": config.prompt_settings(), "model": runner.description}
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def jobs(asked: Sequence[str], cells: dict[Cell, list[Sample]], limit: int | None = None) -> list[Job]:
    """All questions under the conditions `asked`, sample by sample; of each cell the first `limit` samples."""
    found = []
    for cell, samples in cells.items():
        stories = [sample.story for sample in samples]
        for number, sample in enumerate(samples[:limit]):
            whose = partner(number, stories)
            other = None if whose is None else samples[whose]
            found += [Job(cell, sample, condition, other) for condition in asked]
    return found


def my_jobs(whole: Sequence[Job]) -> list[Job]:
    """This process's share. Neighbours (2i and 2i + 1) stay together, since most are exchanged with the same other.

    Pairs are dealt out over all cells, the longest texts first, and of these the first pair of every cell: few samples
    in each, or a few more than before, leave nobody without work.
    """
    pairs = dict.fromkeys(_pair(job) for job in whole)
    own = set(mine(sorted(pairs, key=lambda pair: (-n_tokens(pair[0][1]), pair[1]))))
    return [job for job in whole if _pair(job) in own]


def _pair(job: Job) -> tuple[Cell, int]:
    return job.cell, job.sample.index // 2


def ask(runner: Runner, todo: list[Job], records: Records, config: BabilongConfig, console: Console) -> None:
    """Ask the questions that have no answer yet.

    Raises:
        ValueError: an answer on file was given to another sample.
    """
    bar = TimeLeft(console, speed_estimate_period=600)
    left = [job for job in todo if not _is_done(job, records)]
    began = time.perf_counter()
    with bar:
        line = bar.add_task(runner.name, total=sum(job.cost for job in left))
        for group, asker in _with_askers(runner, left, config):
            bar.update(line, description=f"{runner.name}, {' '.join(group[0].cell)}")
            reading = _prepare(asker, group)
            for job in group:
                records.add(job.key, answer(job, asker, reading))
                bar.advance(line, job.cost)
        bar.update(line, description=runner.name)
    console.print(
        f"{runner.name}: {len(left):,} answers in {time.perf_counter() - began:.0f} s, "
        f"{len(todo) - len(left):,} were there",
        highlight=False,
    )


def _with_askers(runner: Runner, todo: list[Job], config: BabilongConfig) -> Iterator[tuple[list[Job], Asker]]:
    """The questions in groups whose texts are read side by side, each group with what asks its task."""
    for task, of_task in groupby(todo, key=lambda job: job.cell[0]):
        before, after = prompt_parts(task, config.instruction, config.examples, config.post_prompt)
        asker = Asker(runner, before, after, config.max_new_tokens)
        for _, of_cell in groupby(of_task, key=lambda job: job.cell):
            by_sample = [list(jobs) for _, jobs in groupby(of_cell, key=lambda job: job.sample.index)]
            for start in range(0, len(by_sample), config.batch_size):
                yield list(chain.from_iterable(by_sample[start : start + config.batch_size])), asker


def _prepare(asker: Asker, group: Sequence[Job]) -> float:
    """Read the texts of a group; the seconds that this took for each of its questions."""
    began = time.perf_counter()
    asker.prepare(Query(job.sample, job.condition, job.other) for job in group)
    return (time.perf_counter() - began) / len(group)


def _is_done(job: Job, records: Records) -> bool:
    record = records.done.get(job.key)
    if record is None or record.get("other") != job.exchanged:
        return False
    if record["sample"] != (now := digest(job.sample)):
        raise ValueError(
            f"{records.folder} has an answer to another sample {job.sample.index} of {' '.join(job.cell)} "
            f"(digest {record['sample']} then, {now} now): the data have changed, so choose another --out folder"
        )
    return True


def answer(job: Job, asker: Asker, reading: float) -> dict[str, Any]:
    """What is kept of a question: the output, or why there is none, and what scoring needs of the sample.

    Args:
        reading: seconds of reading that are its share.
    """
    sample, began = job.sample, time.perf_counter()
    try:
        found = {"output": asker.answer(sample, job.condition, job.other)}
    except TooLong as reason:
        found = {"output": None, "too_long": str(reason)}
    return {
        **found,
        "question": sample.question,
        "target": sample.target,
        "distance": distance(sample),
        "sample": digest(sample),
        "story": sample.story,
        **({} if job.exchanged is None else {"other": job.exchanged}),
        "seconds": round(reading + time.perf_counter() - began, 3),
    }


def distance(sample: Sample) -> int | None:
    """Tokens from the end of the farthest fact that the answer needs to the end of the text."""
    return max((f.distance for f in sample.facts if f.supporting and f.distance is not None), default=None)


def digest(sample: Sample) -> str:
    """A short hash of what makes a sample: question, answer, facts and where they stand (of unknown ones, the text)."""
    facts = [(fact.text, fact.supporting, fact.distance) for fact in sample.facts]
    what = [sample.task, sample.length, sample.index, sample.question, sample.target, facts]
    whole = hashlib.sha256(json.dumps(what).encode())
    if not facts:
        for piece in sample.text():
            whole.update(piece.encode())
    return whole.hexdigest()[:16]
