"""A full look at 1,000 objects that are all converged, through the real engine, in a process of its own.

Run as `python -m tests.bench.resync ROOT STATE ROUNDS` it is the engine of that node for a moment, and prints for each
round the processor seconds and the seconds that a resync takes until the engine is idle again.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.clock import SystemClock
from reconciler.assembly import Options, build_life
from reconciler.engine.life import Life
from reconciler.engine.lock import EngineLock, Role
from reconciler.engine.scope import Scope
from reconciler.places import Paths
from reconciler.wiring import open_store
from tests import leftovers
from tests.bench.ground import (
    Broken,
    apply,
    container,
    expect_running,
    fresh_node,
    image,
    named,
    run,
    say,
    secret,
    volume,
)
from tests.bench.report import TOP, Row
from tests.conftest import Node

ROUNDS: Final = 5
CONTAINERS: Final = 100
OBJECTS: Final = 1000
IDLE_SECONDS: Final = 60.0


def measure(folder: Path, ref: str) -> list[Row]:
    """Rows of processor time and of time of a resync."""
    say(f"resync of {OBJECTS} objects")
    with fresh_node(folder) as node:
        apply(node, [image("busybox", ref), *named(container, "c", CONTAINERS)], "containers")
        expect_running(node, CONTAINERS)
        there = _count(node)
        half = (OBJECTS - there) // 2
        rest = [*named(volume, "v", half), *named(secret, "s", OBJECTS - there - half)]
        apply(node, rest, "rest")
        if (count := _count(node)) != OBJECTS:
            raise Broken(f"{count} objects where {OBJECTS} were meant to be")
        words: list[str | Path] = [
            "env",
            "-C",
            TOP,
            sys.executable,
            "-m",
            "tests.bench.resync",
            node.root,
            node.state,
            str(ROUNDS),
        ]
        seen: list[list[float]] = json.loads(run(words))
        for name in ("containers", "rest"):
            run(node.arguments("delete", "-f", node.place.folder / f"{name}.yaml"))
        if left := leftovers.settle(node.place, 2.0):
            say("left over after delete:\n  " + "\n  ".join(left))
    how = (
        f"the real engine in a process of its own: relist, look at each, until idle. {CONTAINERS} running Containers "
        f"and the {there - CONTAINERS} objects made for them, {OBJECTS - there} Volumes and Secrets."
    )
    cpu, wall = (tuple(one[column] for one in seen) for column in (0, 1))
    what = f"full resync of {OBJECTS:,} converged objects"
    return [Row(f"{what}: processor time", "s", cpu, goal=0.5, how=how), Row(f"{what}: time", "s", wall)]


def _count(node: Node) -> int:
    store = open_store(Paths(node.root, node.state), create=False)
    assert store is not None
    try:
        return len(store.list())
    finally:
        store.close()


def main(words: Sequence[str]) -> int:
    """Be the engine, resync, print."""
    paths, rounds, clock = Paths(Path(words[0]), Path(words[1])), int(words[2]), SystemClock()
    store = open_store(paths, create=False)
    assert store is not None
    lock = EngineLock(paths.state, paths.root, Role.APPLY, clock)
    if not lock.try_take():
        raise SystemExit(f"the node has an engine: {lock.holder()}")
    life = build_life(paths, store, clock, Options(Scope(store, None), False, None, lambda: False, False))
    life.start()
    settle(life)
    print(json.dumps([resync(life) for _ in range(rounds)]))
    life.stop()
    lock.release()
    store.close()
    return 0


def settle(life: Life) -> None:
    """Waits until the engine is idle."""
    if not life.engine.queue.wait_idle(IDLE_SECONDS):
        raise Broken("the engine does not come to rest")


def resync(life: Life) -> tuple[float, float]:
    """Seconds of processor time, and seconds, of one resync."""
    time.sleep(0.5)  # what the round before has buffered is written by now
    cpu, begin = time.process_time(), time.perf_counter()
    life.resync()
    settle(life)
    return time.process_time() - cpu, time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
