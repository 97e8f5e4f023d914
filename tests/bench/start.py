"""Fifty containers from manifest to Running, the image already here."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.ground import (
    Broken,
    alternate,
    apply,
    container,
    expect_running,
    fresh_node,
    image,
    missing,
    named,
    quiet_disk,
    run,
    start_agent,
    timed,
    write,
)
from tests.bench.peers import WORKERS, Floor, containerd
from tests.bench.report import Row
from tests.conftest import Node

ROUNDS: Final = 5
COUNT: Final = 50
WHAT: Final = f"{COUNT} containers from manifest to Running"
WITH_AGENT: Final = f"{WHAT}, agent up"
OURS: Final = (
    f"`reconciler apply` of {COUNT} Containers (busybox `sleep`, network none, default seccomp), image here, as a "
    "whole process. "
)
FLOOR: Final = f"conmon + runc alone, {WORKERS} workers"
HOW: Final = {
    "ctr run -d, one by one": f"{COUNT} × `ctr run -d` (no seccomp profile, which is its default), image here.",
    FLOOR: f"`conmon` and `runc start` of {COUNT} bundles made beforehand (config of `runc spec`, no seccomp profile).",
}
GOALS: Final = {"ctr run -d, one by one": 0.35, FLOOR: 2.0}


def measure(folder: Path, ref: str, layout: Path) -> list[Row]:
    """Rows against the loop of `ctr run` and against the floor, without an agent and with one."""
    loop, floor = HOW
    reasons = {loop: missing("ctr", "containerd"), floor: missing("conmon", "runc", "umoci")}
    with ExitStack() as stack:
        turns: dict[str, Callable[[], float]] = {
            WHAT: _ours(stack.enter_context(fresh_node(folder)), ref, agent=False),
            WITH_AGENT: _ours(stack.enter_context(fresh_node(folder)), ref, agent=True),
        }
        if not reasons[loop]:
            peer = stack.enter_context(containerd(folder / "loop"))
            peer.pull(ref)
            turns[loop] = lambda: _checked(lambda: peer.start_many(ref, COUNT), peer.running, peer.remove_all)
        if not reasons[floor]:
            (folder / "floor").mkdir()
            least = Floor(folder / "floor", layout, COUNT)
            turns[floor] = lambda: _checked(least.start_many, least.running, least.remove_all)
        seen = {name: tuple(times) for name, times in alternate(ROUNDS, turns).items()}
    return [_row(what, peer, seen, reasons[peer]) for what in (WHAT, WITH_AGENT) for peer in HOW]


def _row(what: str, peer: str, seen: dict[str, tuple[float, ...]], reason: str) -> Row:
    goal = GOALS[peer] if what == WHAT else None
    if reason:
        return Row(what, peer=peer, goal=goal, skipped=reason)
    return Row(what, "s", seen[what], peer, seen[peer], goal=goal, how=OURS + HOW[peer])


def _ours(node: Node, ref: str, *, agent: bool) -> Callable[[], float]:
    """A turn of ours on a node that holds the image; it ends with nothing but the image there."""
    apply(node, [image("busybox", ref)], "image")
    path = write(node, named(container, "c", COUNT), "containers")
    if agent:
        start_agent(node)

    def turn() -> float:
        quiet_disk()
        took = timed(node.arguments("apply", "-f", path))
        expect_running(node, COUNT)
        run(node.arguments("delete", "-f", path))
        return took

    return turn


def _checked(start: Callable[[], float], running: Callable[[], int], remove: Callable[[], None]) -> float:
    quiet_disk()
    took = start()
    if (count := running()) != COUNT:
        raise Broken(f"{COUNT} containers were to run, {count} do")
    remove()
    return took
