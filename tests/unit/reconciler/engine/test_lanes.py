"""Lanes: a slow image holds up no container."""

from core.clock import VirtualClock
from reconciler.engine.lanes import Lanes
from reconciler.engine.queue import WorkQueue
from reconciler.model.identity import Key, Kind

IMAGE = Key(Kind.IMAGE, "web")
CONTAINER = Key(Kind.CONTAINER, "web")


def _lanes() -> Lanes:
    clock = VirtualClock()
    return Lanes(WorkQueue(clock), WorkQueue(clock), (Kind.IMAGE,), clock)


def test_each_key_waits_in_the_lane_of_its_kind() -> None:
    lanes = _lanes()
    lanes.add(IMAGE)
    lanes.add(CONTAINER)
    assert lanes.quick.take(0) == CONTAINER
    assert lanes.quick.take(0) is None
    assert lanes.slow.take(0) == IMAGE


def test_a_delay_is_kept_in_the_lane_too() -> None:
    lanes = _lanes()
    lanes.add_after(IMAGE, 5.0)
    assert lanes.slow.next_due() == 5.0
    assert lanes.quick.next_due() is None


def test_it_is_idle_only_when_both_lanes_are() -> None:
    lanes = _lanes()
    assert lanes.idle()
    lanes.add(IMAGE)
    assert not lanes.idle()
    assert not lanes.wait_idle(0.0)
    key = lanes.slow.take(0)
    assert not lanes.idle()
    assert key is not None
    lanes.slow.done(key)
    assert lanes.wait_idle(0.0)
