"""A block of work ends when its moment comes, and what waited for the same signal before goes on waiting."""

import signal
import time
from contextlib import suppress

import pytest

from lm2.deadline import TimeUp, until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no such signal here")


def test_work_ends_at_the_moment_and_is_whole_before_it():
    with pytest.raises(TimeUp), until(time.monotonic() + 0.05):
        time.sleep(60)
    done = []
    with until(time.monotonic() + 60):
        done.append("whole")
    assert done


def test_a_moment_that_is_past_lets_nothing_begin():
    with pytest.raises(TimeUp), until(time.monotonic()):
        pytest.fail("it began")


def test_the_handler_and_the_timer_of_before_are_there_again():
    handler, (left, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with until(time.monotonic() + 60):
        assert signal.getsignal(signal.SIGALRM) is not handler
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (left > 0)


def test_an_inner_block_ends_with_the_outer_one():
    done = []

    def work() -> None:
        with until(time.monotonic() + 60):
            time.sleep(2)
        done.append("beyond the outer moment")

    with pytest.raises(TimeUp), until(time.monotonic() + 0.05):
        work()
    assert not done


def test_an_outer_block_waits_on_for_what_is_left_of_its_time():
    with until(time.monotonic() + 60):
        with until(time.monotonic() + 30):
            time.sleep(0.05)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60 - 0.05
        with pytest.raises(TimeUp), until(time.monotonic() + 0.05):
            time.sleep(2)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60 - 0.1


def test_an_outer_moment_that_an_inner_block_has_heard_is_told_again():
    done = []

    def work() -> None:
        with suppress(TimeUp), until(time.monotonic() + 60):
            time.sleep(2)
        time.sleep(2)
        done.append("beyond the outer moment")

    with pytest.raises(TimeUp), until(time.monotonic() + 0.05):
        work()
    assert not done
