import threading
import time
from collections.abc import Iterator

import pytest

from core.clock import VirtualClock
from reconciler.engine.timetable import Timetable

HOUR = 3600.0


class SteppedClock(VirtualClock):
    """Wall time can be set while monotonic time goes on; it begins far ahead, so that no job is due for real."""

    def __init__(self) -> None:
        super().__init__(wall=time.time() + 100 * HOUR)

    def step(self, seconds: float) -> None:
        self._wall += seconds


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def table(clock: SteppedClock) -> Iterator[Timetable]:
    made = Timetable(clock, draw=lambda: 0.5)
    made.start()
    yield made
    made.stop()


def in_seconds(table: Timetable, clock: SteppedClock, name: str = "sync") -> float:
    return round(table.next_runs()[name] - clock.wall(), 3)


def test_a_job_first_runs_after_its_interval_and_some_jitter(table: Timetable, clock: SteppedClock) -> None:
    table.every("sync", HOUR, 60.0, lambda: None)
    assert in_seconds(table, clock) == HOUR + 30


def test_a_job_made_before_the_start_counts_too(clock: SteppedClock) -> None:
    table = Timetable(clock, draw=lambda: 0.0)
    table.every("sync", HOUR, 0.0, lambda: None)
    table.start()
    assert in_seconds(table, clock) == HOUR
    table.stop()


@pytest.mark.parametrize("step", [-7 * HOUR, -3.0, 3.0, 50 * HOUR])
def test_a_step_of_the_wall_clock_leaves_the_time_to_the_next_run_as_it_was(
    table: Timetable, clock: SteppedClock, step: float
) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    clock.advance(600)
    table.compare_clocks()
    clock.step(step)
    table.compare_clocks()
    assert in_seconds(table, clock) == HOUR - 600


def test_clocks_that_go_together_or_part_by_little_move_nothing(table: Timetable, clock: SteppedClock) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    before = table.next_runs()
    clock.advance(1000)
    clock.step(1.9)
    table.compare_clocks()
    assert table.next_runs() == before


def test_small_steps_add_up(table: Timetable, clock: SteppedClock) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    for _ in range(2):
        clock.step(-1.5)
        table.compare_clocks()
    assert in_seconds(table, clock) == HOUR


def test_a_job_overdue_by_monotonic_time_is_due_now_after_a_step(table: Timetable, clock: SteppedClock) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    clock.advance(2 * HOUR)
    clock.step(-5 * HOUR)
    table.compare_clocks()
    assert in_seconds(table, clock) == 0


def test_a_cancelled_job_is_gone_and_cancelling_what_is_not_there_is_harmless(
    table: Timetable, clock: SteppedClock
) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    table.cancel("sync")
    table.cancel("sync")
    clock.step(-HOUR)
    table.compare_clocks()
    assert table.next_runs() == {}


def test_a_job_of_the_same_name_replaces_the_old_one(table: Timetable, clock: SteppedClock) -> None:
    table.every("sync", HOUR, 0.0, lambda: None)
    table.every("sync", 2 * HOUR, 0.0, lambda: None)
    assert table.next_runs().keys() == {"sync"}
    assert in_seconds(table, clock) == 2 * HOUR


def test_many_runs_missed_are_made_up_by_one() -> None:
    clock = VirtualClock(wall=time.time() - 100 * HOUR)  # a hundred runs late, for the machine's real clock
    table = Timetable(clock, draw=lambda: 0.0)
    runs: list[str] = []
    ran = threading.Event()
    table.every("sync", HOUR, 0.0, lambda: (runs.append("sync"), ran.set())[1])
    table.start()
    assert ran.wait(10)
    table.stop()
    assert runs == ["sync"]


def test_a_table_that_never_started_stops() -> None:
    Timetable(VirtualClock()).stop()
