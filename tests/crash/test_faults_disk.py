"""Faults 7, 8 and 9: a disk that is full, out of inodes, read-only, or fails to sync, on the real command line."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import AgentError
from reconciler.decide.summary import condition
from reconciler.model.identity import Kind
from tests.conftest import Node
from tests.crash.checker import staging
from tests.crash.ground import Ground, ground
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

SIZE = 64 << 20
FREE_AFTERWARDS = 60.0


@dataclass
class Disk:
    """The small file system that the node's root is."""

    path: Path

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        seen = os.statvfs(self.path)
        return seen.f_bavail * seen.f_frsize

    @contextmanager
    def filled(self, left: int) -> Iterator[None]:
        """Only `left` bytes are free inside the block."""
        ballast = self.path / "ballast"
        with open(ballast, "wb") as out, suppress(OSError):  # the last block may be refused
            while (more := self.free - left) > 0:
                out.write(bytes(min(more, 1 << 20)))
                out.flush()
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def without_inodes(self) -> Iterator[None]:
        """No file can be made inside the block."""
        folder = self.path / "ballast"
        folder.mkdir()
        with suppress(OSError):  # that is the point
            for number in range(100_000):
                (folder / str(number)).touch()
        try:
            yield
        finally:
            subprocess.run(["rm", "-rf", folder], check=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written inside the block."""
        _remount(self.path, "ro")
        try:
            yield
        finally:
            _remount(self.path, "rw")


def _remount(path: Path, how: str) -> None:
    # A file system with files open for writing does not become read-only; its mount does.
    subprocess.run(["mount", "-o", f"remount,bind,{how}", path], check=True)


@pytest.fixture
def small(node: Node, registry: Registry) -> Iterator[tuple[Ground, Disk]]:
    """A node whose root is a file system of 64 MiB with 4000 inodes."""
    node.root.mkdir(mode=0o700)
    options = f"size={SIZE},nr_inodes=4000,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", node.root], check=True)
    try:
        with ground(node, registry.host) as made:
            yield made, Disk(node.root)
    finally:
        node.stop()
        subprocess.run(["umount", "--lazy", node.root], check=True)


def told(made: Ground) -> str:
    """What the node's status says of its disk, the reason; empty: nothing."""
    with suppress(AgentError):
        for obj in made.store.list(Kind.NODE):
            found = condition(obj.status, "DiskPressure")
            return str(found["reason"]) if found is not None else ""
    return ""


def eventually_told(made: Ground, *reasons: str, seconds: float = 45) -> float:
    """Wait until the node says one of these of its disk; the seconds it took."""
    began = time.monotonic()
    while told(made) not in reasons:
        assert time.monotonic() - began < seconds, f"not told of: {reasons}; said is {told(made)!r}"
        time.sleep(0.1)
    return time.monotonic() - began


def nothing_half_made(made: Ground, seconds: float = 20) -> None:
    """What a failed step began is gone again; a whole blob may still wait to be synced."""
    deadline = time.monotonic() + seconds
    while found := [one for one in staging(made.place) if not one.startswith("mark of a blob")]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def apply_somehow(made: Ground) -> str:
    """An apply that may be refused, with a word a person understands; what it said of errors."""
    words = [word for word in made.apply_words if word not in ("--timeout", "60s")]
    done = made.node.cli(*words, "--no-wait", timeout=60)
    assert done.returncode in (0, 1), done.stderr
    assert done.returncode == 0 or "no space" in done.stderr, done.stderr
    return done.stderr


LEFT = (0, 200 << 10, 900 << 10, 3 << 20)
"""Bytes that are free: enough for nothing, for a commit, for a blob, for a snapshot."""


def test_fault_08_a_full_disk_is_told_leaves_nothing_half_made_and_is_got_over_alone(
    small: tuple[Ground, Disk], figure: Figure
) -> None:
    made, disk = small
    made.start_agent()
    made.want({})
    made.apply()
    worst = 0.0
    for left in LEFT:
        made.want({"c0": str(left), "c4": str(left)}, ("web",))
        with disk.filled(left):
            apply_somehow(made)
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:  # it has its tries
                assert made.agent is not None
                assert made.agent.poll() is None, "the agent ended"
                time.sleep(0.2)
            nothing_half_made(made)
        apply_somehow(made)
        worst = max(worst, made.converged(FREE_AFTERWARDS))
        made.want({})
        made.apply()
        made.want({"c0": "x"})
    figure("until all was well after space came back", worst, "s")
    made.want({"c0": "1"})
    made.delete_all()


def test_fault_08_disk_pressure_is_a_condition_of_the_node_while_it_lasts(small: tuple[Ground, Disk]) -> None:
    made, disk = small
    made.start_agent()
    made.want({"c0": "1"})
    made.apply()
    with disk.filled(2 << 20):
        eventually_told(made, "OutOfSpace")
    eventually_told(made, "")
    made.converged()
    with disk.without_inodes():
        eventually_told(made, "OutOfInodes")
        made.want({"c0": "2"}, ("web",))
        apply_somehow(made)
        time.sleep(1)
        nothing_half_made(made)
    apply_somehow(made)
    made.converged(FREE_AFTERWARDS)
    made.delete_all()
