"""Faults 13, 21, 24, 25 and 26: clocks that jump, mounts that go or stay, two agents, little of everything, a pause."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from core import mounts, proc
from reconciler.model.identity import Key, Kind
from tests.conftest import Node
from tests.crash.checker import Ids, start_time
from tests.crash.ground import Ground, ground
from tests.figures import Figure
from tests.leftovers import read_bytes, read_link
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

RUNNING = {"c0": "1", "c4": "1"}


@pytest.fixture
def made(node: Node, registry: Registry) -> Iterator[Ground]:
    """A node on which two containers run under an agent."""
    with ground(node, registry.host) as fresh:
        fresh.want(RUNNING)
        fresh.start_agent()
        fresh.apply()
        fresh.converged()
        yield fresh
        fresh.delete_all()


def processes(made: Ground) -> dict[str, tuple[int, int | None]]:
    """Pid and start time of each container's first process."""
    found = {}
    for name in made.containers:
        obj = made.store.get(Key(Kind.CONTAINER, name))
        assert obj is not None
        found[name] = int(obj.status["pid"]), start_time(int(obj.status["pid"]))
    return found


def root_of(made: Ground, name: str) -> Path:
    """Where a container's root is mounted."""
    return made.node.state / "bundles" / Ids.of(made.store.list()).tasks[name] / "rootfs"


@pytest.mark.parametrize("jump", ["+10y", "-10y", "-1h", "@1971-01-01 00:00:00"])
def test_fault_13_an_agent_under_another_clock_restarts_and_expires_nothing(made: Ground, jump: str) -> None:
    before = processes(made)
    blobs = sorted((made.node.root / "content/blobs/sha256").iterdir())
    made.stop_agent()
    arguments = made.node.arguments("agent")
    with (made.place.folder / "agent.log").open("ab") as log:
        agent = subprocess.Popen(["faketime", "-f", jump, *arguments], stdout=log, stderr=subprocess.STDOUT)
    made.node.running.append(agent)
    made.agent = agent
    pid = eventually_engine(made)
    time.sleep(3)
    assert processes(made) == before
    assert sorted((made.node.root / "content/blobs/sha256").iterdir()) == blobs
    os.kill(pid, signal.SIGTERM)
    agent.wait(30)
    made.node.running.remove(agent)
    made.agent = None
    made.start_agent()
    made.converged()
    assert processes(made) == before


def eventually_engine(made: Ground) -> int:
    """The pid that holds the engine's lock."""
    deadline = time.monotonic() + 30
    while (pid := proc.flock_holder(str(made.node.root))) is None:
        assert time.monotonic() < deadline, "no agent takes the lock"
        time.sleep(0.02)
    return pid


def test_fault_21_a_root_that_an_admin_unmounted_or_keeps_busy_leaves_no_mount_behind(made: Ground) -> None:
    before = processes(made)
    subprocess.run(["umount", "--lazy", root_of(made, "c0")], check=True)
    os.kill(before["c0"][0], signal.SIGKILL)  # what is started anew gets a root of its own
    made.converged()
    assert processes(made)["c4"] == before["c4"]
    busy = open(root_of(made, "c4") / "bin/busybox", "rb")  # noqa: SIM115 - held open beyond the block
    try:
        leaked = made.node.state / "attempts" / ".staging-look-leaked"
        leaked.mkdir(parents=True)
        mounts.attach([mounts.MountSpec("tmpfs", "leaked")], leaked)
        made.kill_agent()
        made.start_agent()
        made.converged()
        assert not leaked.exists()
        made.want({"c0": "1"})
        made.apply()
        made.converged()
    finally:
        busy.close()


def test_fault_24_a_second_agent_ends_at_once_whatever_state_it_was_given(made: Ground, figure: Figure) -> None:
    before, version = processes(made), made.store.version()
    worst = 0.0
    for state in (made.node.state, made.place.folder / "other-state"):
        began = time.monotonic()
        words = ["--root", str(made.node.root), "--state", str(state), "agent"]
        done = subprocess.run([made.node.arguments()[0], *words], capture_output=True, text=True, timeout=30)
        worst = max(worst, time.monotonic() - began)
        assert done.returncode == 1, done.stderr
        assert f"pid {made.agent.pid if made.agent else 0}" in done.stderr
    assert (processes(made), made.store.version()) == (before, version)
    figure("until a second agent gave up", worst, "s")


def test_fault_25_an_agent_with_few_descriptors_and_little_memory_does_its_work(made: Ground) -> None:
    made.stop_agent()
    limits = ["prlimit", "--nofile=64", f"--as={3 << 29}", "--"]
    with (made.place.folder / "agent.log").open("ab") as log:
        agent = subprocess.Popen([*limits, *made.node.arguments("agent")], stdout=log, stderr=subprocess.STDOUT)
    made.node.running.append(agent)
    made.agent = agent
    eventually_engine(made)
    made.want(dict.fromkeys(("c0", "c1", "c4", "c5", "c6"), "2"))
    made.apply()
    made.converged()
    assert agent.poll() is None


def usage(pid: int) -> tuple[int, int, int]:
    """Open files, threads and resident KiB of a process.

    Databases do not count: each thread keeps a connection once it needed one, up to nine files, and no more.
    """
    status = dict(line.split(":", 1) for line in read_bytes(f"/proc/{pid}/status").decode().splitlines())
    links = [read_link(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    databases = [link for link in links if link.endswith((".db", ".db-wal", ".db-shm"))]
    assert len(databases) <= 9 * int(status["Threads"])
    return len(links) - len(databases), int(status["Threads"]), int(status["VmRSS"].split()[0])


def cycles(made: Ground, count: int, figure: Figure) -> None:
    """Make and delete a container `count` times; the agent must be no larger for it."""
    assert made.agent is not None
    before = (0, 0, 0)
    for number in range(count + WARM):
        if number == WARM:
            before = settled_usage(made.agent.pid)
        made.want({**RUNNING, "c7": str(number)})
        made.apply()
        made.want(RUNNING)
        made.apply()
    made.converged()
    after = settled_usage(made.agent.pid)
    figure(f"descriptors more after {count} cycles", after[0] - before[0])
    figure(f"memory more after {count} cycles", (after[2] - before[2]) / 1024, "MiB")
    assert after[0] <= before[0], (before, after)
    assert after[1] <= before[1], (before, after)
    assert after[2] - before[2] <= 5 << 10, (before, after)


WARM = 5


def settled_usage(pid: int) -> tuple[int, int, int]:
    """`usage`, once it has been the same for a second: connections and helpers come and go."""
    seen, since = usage(pid), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        now = usage(pid)
        if now[:2] != seen[:2]:
            seen, since = now, time.monotonic()
    return seen


def test_fault_25_making_and_deleting_leaks_nothing(made: Ground, figure: Figure) -> None:
    cycles(made, 8, figure)


def test_fault_26_an_agent_that_was_stopped_for_a_while_starts_nothing_twice(made: Ground, figure: Figure) -> None:
    assert made.agent is not None
    before = processes(made)
    made.want({**RUNNING, "c5": "1"})
    words = [word for word in made.apply_words if word not in ("--timeout", "60s")]
    made.agent.send_signal(signal.SIGSTOP)
    try:
        assert made.node.cli(*words, "--no-wait").returncode == 0
        os.kill(before["c0"][0], signal.SIGKILL)
        time.sleep(8)
        spent = cpu(made.agent.pid)
    finally:
        made.agent.send_signal(signal.SIGCONT)
    made.converged()
    after = processes(made)
    assert after["c0"] != before["c0"]
    assert after["c4"] == before["c4"]
    figure("processor time after a pause", cpu(made.agent.pid) - spent, "s")
    assert cpu(made.agent.pid) - spent < 10, "a herd of work came after the pause"


def cpu(pid: int) -> float:
    """Seconds of processor that a process has had."""
    fields: list[str] = []
    with suppress(IndexError):
        fields = read_bytes(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
