"""Progress with the time left: a bar in a terminal, elsewhere (a file, the log of a queue) a line a minute."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 60.0
"""Seconds between the lines where there is no terminal."""


class TimeLeft(Progress):
    """A bar with what is done, the time since the start and the time left, or lines with the same.

    Args:
        console: where it is shown; the error stream when not given.
        options: those of rich's Progress.
    """

    def __init__(self, console: Console | None = None, **options: Any):
        # rich would look for the stream anew each time, and find the one that hides a library's own output
        console = Console(file=sys.stderr) if console is None else console
        disable = options.pop("disable", False)
        self._in_lines = not (disable or console.is_terminal or console.is_jupyter)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, disable=disable or self._in_lines, **options)
        self._next_line = self.get_time() + LINE_EVERY

    def update(self, task_id: TaskID, **fields: Any) -> None:
        """As rich's, and say so where a line is due."""
        super().update(task_id, **fields)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's, and say so where a line is due."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if self._in_lines and (now := self.get_time()) >= self._next_line:
            self._next_line = now + LINE_EVERY
            self.console.print(line(self._tasks[task_id]), soft_wrap=True, markup=False, highlight=False)


def line(task: Task) -> str:
    """What a bar would show of a task."""
    done = f"{task.completed:,.0f} done" if task.total is None else f"{task.percentage:.0f} %"
    times = f"{_clock(task.elapsed)}, {_clock(task.time_remaining)} left"
    return f"{task.description}: {done}, {times}"


def _clock(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))


def quiet() -> None:
    """Keep transformers' progress bars and notices out of what a command prints."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def counted(what: str, total: float | None, **options: Any) -> Generator[Callable[[float], None]]:
    """Progress of one thing on the error stream; gives what counts so many more of it."""
    with TimeLeft(**options) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)
