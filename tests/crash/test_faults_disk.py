"""Faults 7, 8 and 9: a disk that is full, out of inodes, read-only, or fails to sync, on the real command line."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import proc
from core.errors import AgentError
from reconciler.decide.summary import condition
from reconciler.model.identity import Key, Kind
from tests.conftest import Node
from tests.crash import tracer
from tests.crash.checker import staging, start_time
from tests.crash.ground import Ground, ground
from tests.crash.refusals import refuse_all
from tests.crash.rounds import power_off
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
        """Nothing can be written inside the block, but to files that are open already.

        A file system with files open for writing cannot be made read-only, nor can its mount: so it is covered by a
        read-only mount of itself.
        """
        subprocess.run(["mount", "--bind", self.path, self.path], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", self.path], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", self.path], check=True)


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


@pytest.mark.soak
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


def process(made: Ground, name: str) -> tuple[int, int]:
    """Pid and start time of a container's first process, which must be alive."""
    obj = made.store.get(Key(Kind.CONTAINER, name))
    assert obj is not None
    began = start_time(int(obj.status["pid"]))
    assert began is not None, f"{name} does not run: {dict(obj.status)}"
    return int(obj.status["pid"]), began


@pytest.mark.soak
def test_fault_09_a_root_that_becomes_read_only_is_told_and_got_over_alone(
    small: tuple[Ground, Disk], figure: Figure
) -> None:
    made, disk = small
    made.start_agent()
    made.want({"c0": "1"})
    made.apply()
    before = process(made, "c0")
    with disk.read_only():
        eventually_told(made, "ReadOnly")
        made.want({"c0": "1", "c4": "2"}, ("web",))
        refused = made.node.cli(*made.apply_words)
        assert refused.returncode == 1
        assert "no space" in refused.stderr, refused.stderr
        assert "read" in refused.stderr, refused.stderr
        assert made.agent is not None
        assert made.agent.poll() is None, "the agent ended"
        assert process(made, "c0") == before
    eventually_told(made, "")
    made.apply()
    figure("until all was well after a read-only root came back", made.converged(FREE_AFTERWARDS), "s")
    assert process(made, "c0") == before
    made.delete_all()


@pytest.fixture
def failing(node: Node, registry: Registry, tmp_path: Path) -> Iterator[tuple[Ground, Path]]:
    """A node whose root is an ext4 in a file that becomes read-only at a fault; and the file that makes one."""
    image = tmp_path / "disk.img"
    with image.open("wb") as out:
        out.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    node.root.mkdir(mode=0o700)
    mount(image, node.root)
    try:
        with ground(node, registry.host) as made:
            yield made, image
    finally:
        node.stop()
        subprocess.run(["umount", "--lazy", node.root], check=True)


def mount(image: Path, root: Path) -> None:
    """Mount the file; a fault makes it read-only."""
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, root], check=True)


def break_disk(root: Path) -> None:
    """What a bad disk does: the kernel makes the file system read-only, also for files that are open."""
    device = next(one.source for one in proc.mounts() if one.target == str(root))
    Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("tried\n")


def test_fault_09_a_disk_that_fails_stops_no_workload_and_a_reboot_brings_all_back(
    failing: tuple[Ground, Path],
) -> None:
    made, image = failing
    made.start_agent()
    made.want({"c0": "1", "c4": "1"})
    made.apply()
    made.converged()
    before = process(made, "c0"), process(made, "c4")
    break_disk(made.node.root)
    made.want({"c0": "2"})
    refused = made.node.cli(*made.apply_words)
    assert refused.returncode == 1
    assert "error: no space: " in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
    said = made.node.cli("doctor").stdout
    assert "cannot be written: read-only file system" in said, said
    assert made.agent is not None
    assert made.agent.poll() is None, "the agent ended"
    assert (process(made, "c0"), process(made, "c4")) == before
    made.kill_agent()
    made.close()
    power_off(made.place)
    subprocess.run(["umount", made.node.root], check=True)
    checked = subprocess.run(["fsck.ext4", "-f", "-y", image], capture_output=True, text=True)
    assert checked.returncode in (0, 1), checked.stdout
    mount(image, made.node.root)
    made.want({"c0": "1", "c4": "1"})
    made.start_agent()
    made.converged()
    made.delete_all()


def test_fault_08_a_write_or_sync_that_is_refused_is_got_over_or_told_and_the_next_apply_converges(
    node: Node, registry: Registry, figure: Figure
) -> None:
    if not tracer.supported():
        pytest.skip("the numbers of this machine's calls are not known")
    with ground(node, registry.host) as made:
        done = refuse_all(made, sample=8, seconds=25)
    figure("writes and syncs refused, one an apply", done.where.total())
    assert done.where.total() >= 3
