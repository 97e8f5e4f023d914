"""The engine lock between real processes: agents and one-shots in any order, some of them killed."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import pytest

from core import fsio

T = TypeVar("T")
AGENT: Final = """
import sys, time
from pathlib import Path
from core.clock import SystemClock
from core.errors import Busy
from reconciler.engine.lock import EngineLock, Role
state, journal = Path(sys.argv[1]), Path(sys.argv[2])
heavy = sorted({"apscheduler", "pydantic", "sqlite3", "subprocess", "ruamel"} & sys.modules.keys())
print("heavy", *heavy, flush=True) if heavy else None
lock = EngineLock(state, state / "root", Role.AGENT, SystemClock())
try:
    lock.take(waiting=lambda holder: print("waits for", holder.process.pid, flush=True))
except Busy as busy:
    print("busy", busy, flush=True)
    sys.exit(7)
"""
ONE_SHOT: Final = """
import sys, time
from pathlib import Path
from core.clock import SystemClock
from reconciler.engine.doorbell import Doorbell
from reconciler.engine.lock import EngineLock, Role
state, journal = Path(sys.argv[1]), Path(sys.argv[2])
lock = EngineLock(state, state / "root", Role.APPLY, SystemClock())
def act_until_wanted():
    bell = Doorbell.bind(state)
    while not lock.wanted_by_agent():
        work(0.01)
        bell.wait(0.05)
    bell.close()
"""
# An engine that works holds a second flock, without waiting: two engines at once would be seen by it.
WORK: Final = """
import fcntl, os
def work(seconds):
    fd = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("TWO ENGINES", flush=True)
    time.sleep(seconds)
    os.close(fd)
"""
RUN_AGENT: Final = WORK + AGENT + 'print("took", flush=True)\nwhile True: work(0.02)\n'
RUN_ONE_SHOT: Final = (
    WORK
    + ONE_SHOT
    + """
while True:
    if lock.try_take():
        print("took", flush=True)
        act_until_wanted()
        print("hands over", flush=True)
        lock.release()
    time.sleep(0.02)
"""
)


@dataclass
class Process:
    """A process and the lines it said."""

    popen: "subprocess.Popen[bytes]"
    lines: list[str] = field(default_factory=list)
    rest: bytes = b""

    @property
    def pid(self) -> int:
        return self.popen.pid

    def until(self, said: str, seconds: float = 20.0) -> str:
        """The first line from now on that begins with `said`."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.listen(max(0.0, deadline - time.monotonic())):
                if line.startswith(said):
                    return line
            assert time.monotonic() < deadline, f"{self.popen.args} said {self.lines}, not {said!r}"

    def listen(self, seconds: float) -> list[str]:
        assert self.popen.stdout is not None
        if not select.select([self.popen.stdout], [], [], seconds)[0]:
            return []
        data = os.read(self.popen.stdout.fileno(), 65536)
        assert data, f"it ended, having said {self.lines}"
        *whole, self.rest = (self.rest + data).split(b"\n")
        new = [line.decode() for line in whole]
        self.lines += new
        return new

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


class Place:
    """A state folder, and processes that want to be its engine."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.journal = folder / "journal"
        self.processes: list[Process] = []

    def agent(self) -> Process:
        return self._start(RUN_AGENT)

    def one_shot(self) -> Process:
        return self._start(RUN_ONE_SHOT)

    def _start(self, program: str) -> Process:
        argv = [sys.executable, "-c", program, str(self.state), str(self.journal)]
        process = Process(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]))
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.popen.kill()
        for process in self.processes:
            assert process.popen.stdout is not None
            said = "\n".join(process.lines) + (process.rest + process.popen.stdout.read()).decode()
            process.popen.stdout.close()
            process.popen.wait()
            assert "TWO ENGINES" not in said
            assert "heavy" not in said, "the lock is taken before heavy imports"

    def free(self) -> bool:
        if not self.state.is_dir():
            return True
        lock = fsio.Lock(self.state / "engine.lock")
        taken = lock.acquire(wait=False)
        lock.release()
        return taken


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.end()


def test_a_second_agent_ends_within_two_seconds_and_names_the_first(place: Place) -> None:
    first = place.agent()
    first.until("took")
    before = (place.state / "engine.lock").read_text()
    started = time.monotonic()
    second = place.agent()
    assert f"pid {first.pid} " in second.until("busy")
    assert second.popen.wait(5) == 7
    assert time.monotonic() - started < 2
    assert (place.state / "engine.lock").read_text() == before


def test_of_agents_started_at_once_exactly_one_is_the_engine(place: Place) -> None:
    agents = [place.agent() for _ in range(4)]
    ended = [agent for agent in agents if wait_for(partial(says, agent, "took", "busy")) == "busy"]
    assert len(ended) == 3
    assert all(agent.popen.wait(5) == 7 for agent in ended)


def test_an_agent_takes_over_from_an_apply_which_waits_and_takes_over_when_the_agent_is_killed(place: Place) -> None:
    one_shot = place.one_shot()
    one_shot.until("took")
    agent = place.agent()
    assert agent.until("waits for") == f"waits for {one_shot.pid}"
    one_shot.until("hands over")
    agent.until("took")
    assert one_shot.popen.poll() is None
    agent.kill()
    one_shot.until("took")


def test_an_apply_beside_an_agent_waits_until_that_is_killed(place: Place) -> None:
    agent = place.agent()
    agent.until("took")
    one_shot = place.one_shot()
    assert one_shot.listen(1.0) == []
    agent.kill()
    one_shot.until("took")


def test_of_an_apply_and_two_agents_one_agent_wins_and_the_other_is_told(place: Place) -> None:
    one_shot = place.one_shot()
    one_shot.until("took")
    stop(one_shot)
    first = place.agent()
    first.until("waits for")
    second = place.agent()
    assert f"pid {first.pid} " in second.until("busy")
    go_on(one_shot)
    first.until("took")


def test_an_agent_killed_while_it_waits_leaves_the_apply_the_lock(place: Place) -> None:
    one_shot = place.one_shot()
    one_shot.until("took")
    stop(one_shot)
    waiting = place.agent()
    waiting.until("waits for")
    waiting.kill()
    go_on(one_shot)
    other = place.one_shot()
    assert other.listen(0.5) == []
    one_shot.kill()
    other.until("took")


def test_an_apply_killed_in_the_middle_leaves_the_agent_the_lock(place: Place) -> None:
    one_shot = place.one_shot()
    one_shot.until("took")
    stop(one_shot)
    agent = place.agent()
    agent.until("waits for")
    one_shot.kill()
    agent.until("took")


def test_killed_at_random_there_is_never_more_than_one_engine_and_soon_always_one(place: Place) -> None:
    draw = random.Random(2)
    running = [place.one_shot(), place.one_shot(), place.agent()]
    for _ in range(12):
        time.sleep(draw.uniform(0.0, 0.4))
        victim = draw.choice(running)
        victim.kill()
        running.remove(victim)
        running.append(draw.choice((place.agent, place.one_shot))())
        running = [one for one in running if one.popen.poll() is None]
        while len(running) < 3:
            running.append(place.one_shot())
    if not any(one.popen.poll() is None for one in running):
        running.append(place.agent())
    assert wait_for(lambda: not place.free())
    for one in running:
        one.kill()
    assert wait_for(place.free)
    place.agent().until("took")


def stop(process: Process) -> None:
    process.popen.send_signal(signal.SIGSTOP)


def go_on(process: Process) -> None:
    process.popen.send_signal(signal.SIGCONT)


def says(process: Process, *words: str) -> str | None:
    with suppress(AssertionError):  # it ended; what it said counts
        process.listen(0.1)
    return next((word for line in process.lines for word in words if line.startswith(word)), None)


def wait_for(ask: Callable[[], T], seconds: float = 20.0) -> T:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer
