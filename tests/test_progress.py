"""Progress: lines where there is no terminal, a bar where there is one."""

import contextlib
import io

import pytest
from rich.console import Console

from lm2.progress import LINE_EVERY, TimeLeft, counted


class Clock:
    """A time that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def shown(clock: Clock, **options) -> tuple[TimeLeft, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=options.pop("terminal", False))
    return TimeLeft(console, get_time=clock, speed_estimate_period=1e6, **options), file


def test_without_a_terminal_a_line_a_minute_says_what_is_done_and_left(clock):
    progress, file = shown(clock)
    with progress:
        task = progress.add_task("reading [a book]", total=400)
        for _ in range(10):
            clock.now += LINE_EVERY / 4
            progress.advance(task, 10)
    assert file.getvalue().splitlines() == [
        "reading [a book]: 10 %, 0:01:00, 0:09:00 left",
        "reading [a book]: 20 %, 0:02:00, 0:08:00 left",
    ]


def test_a_line_says_what_the_task_is_at_now(clock):
    progress, file = shown(clock)
    task = progress.add_task("starting", total=None)
    clock.now += LINE_EVERY
    progress.update(task, completed=12_345, description="step 7")
    assert file.getvalue() == "step 7: 12,345 done, 0:01:00, -:--:-- left\n"


def test_a_long_line_is_not_broken(clock):
    progress, file = shown(clock)
    task = progress.add_task("word " * 40, total=10)
    clock.now += LINE_EVERY
    progress.advance(task)
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_has_a_bar_and_no_lines(clock):
    progress, file = shown(clock, terminal=True)
    with progress:
        task = progress.add_task("reading", total=4)
        clock.now += LINE_EVERY
        progress.advance(task)
    assert "━" in file.getvalue()
    assert "25 %, " not in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_disabled_shows_nothing(clock, terminal):
    progress, file = shown(clock, terminal=terminal, disable=True)
    with progress:
        task = progress.add_task("reading", total=4)
        clock.now += LINE_EVERY
        progress.advance(task)
    assert file.getvalue() == ""


def test_what_hides_the_output_of_a_library_does_not_hide_the_progress(clock, capsys):
    """MMLU's and RULER's questions are asked while the harness's own output is hidden."""
    with counted("asking", 8, get_time=clock) as advance, contextlib.redirect_stderr(io.StringIO()):
        clock.now += LINE_EVERY
        advance(2)
    assert capsys.readouterr().err.startswith("asking: 25 %, 0:01:00")


def test_counted_counts_on_the_error_stream(clock, capsys):
    with counted("asking", 8, get_time=clock) as advance:
        clock.now += LINE_EVERY
        advance(6)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("asking: 75 %, 0:01:00")
