"""A node where all is as it should be: commands with nothing to do, the agent at rest, and a death now and then."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from core import proc
from reconciler.model.identity import Key, Kind
from reconciler.places import Paths
from reconciler.store.port import ObjectStore
from reconciler.wiring import open_store
from tests import leftovers
from tests.bench.ground import (
    LIMIT_SECONDS,
    Broken,
    apply,
    container,
    expect_running,
    fresh_node,
    image,
    named,
    objects,
    run,
    say,
    secret,
    start_agent,
    timed,
    volume,
)
from tests.bench.report import Row
from tests.conftest import Node

ROUNDS: Final = 11
CONTAINERS: Final = 50
DEATHS: Final = 20
IDLE_SECONDS: Final = 60.0
CALM_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.001
MEGA: Final = 1e6


def measure(folder: Path, ref: str) -> list[Row]:
    """Rows of commands without and with an agent, of the agent at rest, and of deaths."""
    manifests = [image("busybox", ref), *named(container, "c", CONTAINERS)]
    manifests += [*named(volume, "v", 25), *named(secret, "s", 24)]
    with fresh_node(folder) as node:
        path = apply(node, manifests)
        expect_running(node, CONTAINERS)
        rows = list(_commands(node, path))
        agent = start_agent(node)
        run(node.arguments("apply", "-f", path))
        rows.insert(1, _command("no-op apply of 100 objects, agent up", node.arguments("apply", "-f", path), 0.4))
        time.sleep(CALM_SECONDS)
        rows += [*_at_rest(node, agent), *_deaths(node)]
        node.stop()
        run(node.arguments("delete", "-f", path))
        if left := leftovers.settle(node.place, 2.0):
            say("left over after delete:\n  " + "\n  ".join(left))
    return rows


def _command(what: str, argv: list[str], goal: float | None = None, how: str = "") -> Row:
    say(what)
    return Row(what, "s", tuple(timed(argv) for _ in range(ROUNDS)), goal=goal, how=how)


def _commands(node: Node, path: Path) -> Iterator[Row]:
    how = f"as a whole process; the 100 are {CONTAINERS} running Containers, an Image, 25 Volumes, 24 Secrets."
    yield _command("no-op apply of 100 objects", node.arguments("apply", "-f", path), 0.4, how)
    yield _command("get all", node.arguments("get", "all"), 0.2, "of the same objects and what was made for them.")
    yield _command("version", node.arguments("version"))
    yield _command("--help", node.arguments("--help"))
    yield _command("python -c pass", [sys.executable, "-c", "pass"], None, "the interpreter alone, for scale.")


def _at_rest(node: Node, agent: int) -> Iterator[Row]:
    """The agent's memory and processor time, and what the monitors take."""
    say(f"agent at rest, {IDLE_SECONDS:.0f} s")
    before = cpu_seconds(agent)
    memory: list[float] = []
    begin = time.monotonic()
    while time.monotonic() - begin < IDLE_SECONDS:
        time.sleep(IDLE_SECONDS / 4)
        memory.append(proc.pss_bytes(agent) / MEGA)
    spent = 100 * (cpu_seconds(agent) - before) / (time.monotonic() - begin)
    monitors = tuple(proc.pss_bytes(pid) / MEGA for pid in monitor_pids(node))
    if len(monitors) != CONTAINERS:
        raise Broken(f"{len(monitors)} monitors for {CONTAINERS} containers")
    how = f"smaps_rollup, four looks within {IDLE_SECONDS:.0f} s, {CONTAINERS} containers running."
    yield Row("agent at rest: PSS", "MB", tuple(memory), goal=45, bound=60, how=how)
    yield Row("agent at rest: RSS", "MB", (rss_bytes(agent) / MEGA,), how="for scale: shared pages counted in full.")
    how = f"user and system time of the agent and its children over {IDLE_SECONDS:.0f} s (two resyncs or so)."
    yield Row("agent at rest: share of a core", "%", (spent,), goal=0.5, how=how)
    yield Row("monitor of a container: PSS", "MB", monitors, goal=1.5, how=f"conmon, one for each of {CONTAINERS}.")


def monitor_pids(node: Node) -> list[int]:
    """The pids of the node's monitors."""
    return [int(path.read_text()) for path in (node.state / "bundles").glob("*/monitor.pid")]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has waited for (proc(5), in ticks of 10 ms)."""
    fields = leftovers.read_bytes(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident set size of a process."""
    return int(leftovers.read_bytes(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _deaths(node: Node) -> Iterator[Row]:
    """Kills one container after the other, each for the first time, so that no back-off is due."""
    say(f"{DEATHS} deaths")
    store = open_store(Paths(node.root, node.state), create=False)
    assert store is not None
    pids = {item["metadata"]["name"]: item["status"]["pid"] for item in objects(node, "container")[:DEATHS]}
    seen = [_death(node, store, name, pid) for name, pid in pids.items()]
    store.close()
    recorded, decided, running = zip(*seen, strict=True)
    how = (
        f"SIGKILL to the first process of {DEATHS} containers in turn, till the next attempt's number is in the store."
    )
    yield Row("killed process to exit on record", "ms", recorded)
    yield Row("killed process to restart decision", "ms", decided, goal=100, how=how)
    yield Row("killed process to running again", "ms", running, how="till the new first process has become `sleep`.")
    say(f"deaths: median {median(decided):.0f} ms to the decision")


def _death(node: Node, store: ObjectStore, name: str, pid: int) -> tuple[float, float, float]:
    """Milliseconds from a kill to the exit on record, to the next attempt on record, to its process."""
    key = Key(Kind.CONTAINER, name)
    recorded = decided = 0.0
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while (now := time.monotonic()) < begin + LIMIT_SECONDS:
        if not decided:
            obj = store.get(key)
            record = {} if obj is None else obj.record
            recorded = recorded or (now if record.get("ended") else 0.0)
            decided = now if record.get("attempt") == 2 else 0.0
        elif runs(node, name, 2):
            time.sleep(0.3)  # let it be all calm again
            return 1000 * (recorded - begin), 1000 * (decided - begin), 1000 * (now - begin)
        time.sleep(LOOK_SECONDS)
    raise Broken(f"{name} was killed and does not run again")


def runs(node: Node, name: str, attempt: int) -> bool:
    """Whether the first process of that attempt has become what the manifest asks for."""
    for path in (node.state / "bundles").glob(f"{name}-*-{attempt}/pid"):
        return leftovers.read_bytes(f"/proc/{path.read_text()}/cmdline").startswith(b"sleep\0")
    return False
