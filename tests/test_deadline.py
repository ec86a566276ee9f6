"""A block of work ends when its moment comes, and what waited for the same signal before goes on waiting."""

import signal
import time

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
