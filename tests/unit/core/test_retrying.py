"""Short retries of one connection."""

import pytest

from core.clock import VirtualClock
from core.errors import Denied, TimedOut, Unavailable
from core.retrying import WORTH, connecting


class Link:
    """Fails `failures` times; each try takes `step` bytes more."""

    def __init__(self, failures: int, step: int = 0, error: Exception | None = None) -> None:
        self.failures = failures
        self.step = step
        self.error = error or Unavailable("reset")
        self.here = 0
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        self.here += self.step
        if self.tries <= self.failures:
            raise self.error
        return "done"

    def progress(self) -> int:
        return self.here


def test_three_tries_and_no_more_without_progress() -> None:
    link, clock = Link(10), VirtualClock()
    since = clock.monotonic()
    with pytest.raises(Unavailable):
        connecting(clock, link)
    assert link.tries == 3
    assert clock.monotonic() - since < 10


def test_a_try_that_brought_something_counts_as_a_first_one() -> None:
    link = Link(40, step=WORTH)
    assert connecting(VirtualClock(), link, progress=link.progress) == "done"
    assert link.tries == 41


def test_a_byte_a_connection_is_no_progress() -> None:
    link = Link(40, step=1)
    with pytest.raises(Unavailable):
        connecting(VirtualClock(), link, progress=link.progress)
    assert link.tries == 3


def test_who_wants_us_to_wait_is_not_asked_again() -> None:
    error = Unavailable("503")
    error.seconds = 20.0
    link = Link(1, error=error)
    with pytest.raises(Unavailable):
        connecting(VirtualClock(), link)
    assert link.tries == 1


def test_a_refusal_is_not_tried_again_and_a_time_out_is() -> None:
    refused, late = Link(1, error=Denied("no")), Link(1, error=TimedOut("late"))
    with pytest.raises(Denied):
        connecting(VirtualClock(), refused)
    assert connecting(VirtualClock(), late) == "done"
    assert (refused.tries, late.tries) == (1, 2)
