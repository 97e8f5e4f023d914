import contextlib
import os
import queue
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core import proc
from core.proc import ProcessId
from reconciler.engine.exits import Exits
from reconciler.model.identity import Key, Kind

BOOT = proc.boot_id()


def key(name: str) -> Key:
    return Key(Kind.CONTAINER, name)


A, B = key("a"), key("b")


class Watched:
    """An `Exits` and what it told, in order, with the time it came."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[Key, float]] = queue.SimpleQueue()
        self.exits = Exits(lambda one: self.told.put((one, time.monotonic())), BOOT)
        self.exits.start()

    def next(self) -> tuple[Key, float]:
        return self.told.get(timeout=10)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.exits.stop()


class Child:
    """A process that does nothing until it is killed."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(["sleep", "1000"])
        identity = ProcessId.of(self.popen.pid, BOOT)
        assert identity is not None
        self.id = identity

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    yield made
    made.kill()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_end_of_a_process_is_told_within_20_ms(watched: Watched) -> None:
    late = []
    for n in range(10):
        child = Child()
        watched.exits.watch(child.id, key(f"c{n}"))
        killed = time.monotonic()
        os.kill(child.popen.pid, signal.SIGKILL)
        told, at = watched.next()
        child.popen.wait()
        assert told == key(f"c{n}")
        late.append(at - killed)
    print(f"killed process to callback: median {sorted(late)[5] * 1000:.2f} ms, worst {max(late) * 1000:.2f} ms")
    assert min(late) < 0.020  # others on this machine may delay some, never all


def test_a_process_that_is_gone_already_is_told_at_once(watched: Watched, child: Child) -> None:
    child.kill()
    watched.exits.watch(child.id, A)
    assert watched.told.get_nowait()[0] == A


def test_a_process_not_yet_reaped_is_told_too(watched: Watched) -> None:
    child = Child()
    child.popen.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.popen.pid, os.WEXITED | os.WNOWAIT)
    watched.exits.watch(child.id, A)
    assert watched.next()[0] == A
    child.popen.wait()


def test_a_stranger_with_the_same_number_is_not_taken_for_the_process(watched: Watched, child: Child) -> None:
    watched.exits.watch(replace(child.id, start=child.id.start - 1), A)
    watched.exits.watch(replace(child.id, boot="another boot"), B)
    assert [watched.told.get_nowait()[0] for _ in range(2)] == [A, B]
    assert watched.exits.watched() == frozenset()


def test_watching_twice_tells_once(watched: Watched, child: Child) -> None:
    before = open_descriptors()
    for _ in range(3):
        watched.exits.watch(child.id, A)
    assert open_descriptors() == before + 1
    watched.exits.watch(child.id, B)
    child.kill()
    assert {watched.next()[0], watched.next()[0]} == {A, B}
    assert watched.told.empty()
    assert watched.exits.watched() == frozenset()


def test_a_forgotten_key_is_not_told_and_can_be_watched_again(watched: Watched, child: Child) -> None:
    watched.exits.watch(child.id, A)
    watched.exits.watch(child.id, B)
    watched.exits.forget(A)
    assert watched.exits.watched() == {(child.id, B)}
    child.kill()
    assert watched.next()[0] == B
    watched.exits.watch(child.id, A)
    assert watched.next()[0] == A


def test_descriptors_are_given_back(child: Child) -> None:
    before = open_descriptors()
    made = Watched()
    for round_ in range(50):
        made.exits.watch(child.id, key(f"k{round_}"))
        made.exits.forget(key(f"k{round_}"))
    other = Child()
    made.exits.watch(other.id, B)
    other.kill()
    assert made.next()[0] == B
    made.exits.watch(child.id, A)
    made.exits.stop()
    assert open_descriptors() == before


def test_a_thousand_processes_are_watched_and_all_told(watched: Watched, child: Child) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        keys = {key(f"k{n}") for n in range(1000)}
        begun = time.process_time()
        for one in keys:
            watched.exits.watch(child.id, one)
        child.kill()
        assert {watched.next()[0] for _ in keys} == keys
        assert time.process_time() - begun < 2.0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill_descriptors() -> list[int]:
    taken = []
    with contextlib.suppress(OSError):  # EMFILE: that is all of them
        while True:
            taken.append(os.dup(0))
    return taken


def test_running_out_of_descriptors_is_an_error_and_not_the_end_of_the_process(watched: Watched, child: Child) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    taken = fill_descriptors()
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="Too many open files"):
                watched.exits.watch(child.id, A)
        os.close(taken.pop())  # enough for the pidfd, not for /proc besides
        for _ in range(3):
            with pytest.raises(OSError, match="Too many open files"):
                watched.exits.watch(child.id, A)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert watched.told.empty()
    watched.exits.watch(child.id, A)
    assert watched.exits.watched() == {(child.id, A)}


def test_one_that_never_started_stops() -> None:
    Exits(lambda one: None, BOOT).stop()
