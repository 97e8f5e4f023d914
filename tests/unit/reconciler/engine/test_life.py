"""When an engine is believed alive."""

import threading
from collections.abc import Callable, Iterator

import pytest

from core.clock import VirtualClock
from reconciler.engine.backoff import Backoff
from reconciler.engine.life import STUCK_SECONDS, ailment
from reconciler.engine.queue import WorkQueue
from reconciler.engine.workers import Workers
from reconciler.model.identity import Key, Kind

NODE = Key(Kind.NODE, "here")


class Rig:
    """Two lanes of workers on a clock that the test moves; `work` is what the quick lane does."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.queue = WorkQueue(self.clock)
        self.gate = threading.Event()
        self.gate.set()
        self.seen = threading.Semaphore(0)
        backoff = Backoff(self.clock, lambda: 0.5)
        self.lanes = [
            Workers(queue, self._work, lambda key, error: None, backoff, self.clock, count=2)
            for queue in (self.queue, WorkQueue(self.clock))
        ]

    def _work(self, key: Key) -> None:
        self.seen.release()
        assert key == NODE or self.gate.wait(20)

    def look(self) -> None:
        """Have the node looked at to the end."""
        before = self.lanes[0].finished
        self.clock.advance(0.001)
        self.queue.add(NODE)
        assert self.become(lambda: self.lanes[0].finished > before)

    def become(self, true: Callable[[], bool]) -> bool:
        """Whether something becomes so within 10 s of real time."""
        pause = threading.Event()
        return any(true() or pause.wait(0.005) for _ in range(2000))

    def ailment(self) -> str:
        return ailment(self.lanes, self.clock.monotonic())


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    for lane in made.lanes:
        lane.start()
    yield made
    made.gate.set()
    for lane in made.lanes:
        assert lane.stop(10) == ()


def test_an_engine_that_looks_at_things_is_alive(rig: Rig) -> None:
    for _ in range(5):
        rig.clock.advance(STUCK_SECONDS - 1)
        rig.look()
        assert rig.ailment() == ""


def test_an_engine_to_which_nothing_comes_any_more_hangs(rig: Rig) -> None:
    rig.look()
    rig.clock.advance(STUCK_SECONDS + 1)
    assert rig.ailment() == f"no object was looked at for {STUCK_SECONDS + 1:.0f} s"


def test_an_engine_whose_workers_all_hang_is_told_of_and_one_that_comes_back_is_alive_again(rig: Rig) -> None:
    rig.gate.clear()
    for name in "abc":
        rig.queue.add(Key(Kind.VOLUME, name))
    assert all(rig.seen.acquire(timeout=10) for _ in range(2))
    rig.clock.advance(STUCK_SECONDS + 1)
    assert rig.ailment() != ""
    rig.gate.set()
    assert rig.become(lambda: rig.ailment() == "")


def test_one_long_step_is_no_ailment_while_others_are_looked_at(rig: Rig) -> None:
    rig.gate.clear()
    rig.queue.add(Key(Kind.VOLUME, "long"))
    assert rig.seen.acquire(timeout=10)
    rig.clock.advance(STUCK_SECONDS - 1)
    rig.look()
    rig.clock.advance(STUCK_SECONDS - 1)
    assert rig.ailment() == ""


def test_workers_that_have_ended_are_an_ailment() -> None:
    assert Rig().ailment() == "a worker has ended"
