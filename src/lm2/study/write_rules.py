"""The bake-off: starts runs in processes of their own, a few at a time, and writes the tables.

A run with a result is not started again, except one that crashed, which is tried once more. Failures are results.
"""

import json
import time

from rich.console import Console

from lm2.held import held
from lm2.processes import Processes
from lm2.progress import TimeLeft
from lm2.study.config import BASE, Job, StudyConfig, plan
from lm2.study.job import read_result, write_result
from lm2.study.report import write_table
from lm2.training.folder import steps_done

JOB_MODULE = "lm2.study.job"
POLL_SECONDS = 0.5
CRASHED = "crashed"


def run(config: StudyConfig) -> None:
    """Do every run that has no result yet, then write the tables.

    Raises:
        ValueError: another process works in the folder.
    """
    with held(config.out):
        _run(config)


def _run(config: StudyConfig) -> None:
    jobs = plan(config)
    waiting = [job for job in jobs if (result := read_result(job)) is None or result["status"] == CRASHED]
    for job in waiting:
        job.result.unlink(missing_ok=True)
    print(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished before; {config.jobs} at a time")
    with Progress(waiting) as progress:
        _run_all(waiting, config.jobs, progress)
    write_table(config, jobs)
    print(f"tables: {config.table}")


class Progress:
    """A bar over the steps of all runs with the time left, read from their logs; a line for each finished run."""

    def __init__(self, jobs: list[Job]):
        self.bar = TimeLeft(Console(), transient=True)
        self.line = self.bar.add_task("training", total=sum(_steps(job) for job in jobs))
        self.seen: dict[Job, int] = {}

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def look(self, job: Job) -> None:
        """Count the steps that a running job has logged."""
        self._count(job, min(steps_done(job.folder / "training"), _steps(job)))

    def finish(self, job: Job) -> None:
        """Count all of a job's steps and say how it ended."""
        self._count(job, _steps(job))
        result = read_result(job) or {}
        text = f"{job.name}: {result['status']} after {result['seconds']:.0f} s {result.get('message', '')}"
        self.bar.console.print(text.rstrip(), soft_wrap=True, markup=False, highlight=False)

    def _count(self, job: Job, step: int) -> None:
        self.bar.advance(self.line, step - self.seen.get(job, 0))
        self.seen[job] = step


def _run_all(waiting: list[Job], at_once: int, progress: Progress) -> None:
    """Start what is ready, wait, and note how it ended."""
    waiting, jobs = list(waiting), {job.name: job for job in waiting}
    with Processes() as processes:
        while waiting or processes.running:
            while len(processes.running) < at_once and (job := _next_ready(waiting)) is not None:
                waiting.remove(job)
                _start(job, processes, progress)
            time.sleep(POLL_SECONDS)
            for name in processes.running:
                progress.look(jobs[name])
            _note_ended(jobs, processes, progress)


def _next_ready(waiting: list[Job]) -> Job | None:
    """The first run whose needs have results, good or bad."""
    return next((job for job in waiting if all(job.other(need).result.exists() for need in job.needs)), None)


def _failed_need(job: Job) -> str | None:
    """A run that this one needs and that did not finish."""
    for need in job.needs:
        result = read_result(job.other(need))
        if result is not None and result["status"] != "finished":
            return need
    return None


def _start(job: Job, processes: Processes, progress: Progress) -> None:
    """Start a run whose needs have results, unless one of them has failed."""
    if (failed := _failed_need(job)) is not None:
        _note_crash(job, f"it needs {failed}, which has failed", 0.0)
        progress.finish(job)
        return
    values = json.dumps({**job.values(), "out": str(job.out)})
    processes.start(job.name, JOB_MODULE, [values], job.folder)


def _note_ended(jobs: dict[str, Job], processes: Processes, progress: Progress) -> None:
    """Say how a run has ended, if one has; one without a result of its own has crashed."""
    before, words = set(processes.running), "it ended without a result"
    try:
        processes.ended()
    except (ValueError, RuntimeError) as error:
        words = str(error)
    for name in before - processes.running.keys():
        if not jobs[name].result.exists():
            _note_crash(jobs[name], words, time.perf_counter() - processes.began[name])
        progress.finish(jobs[name])


def _note_crash(job: Job, message: str, seconds: float) -> None:
    write_result(job, {"job": job.settings(), "status": CRASHED, "message": message, "seconds": seconds})


def _steps(job: Job) -> int:
    return job.base_steps if job.variant == BASE else job.steps
