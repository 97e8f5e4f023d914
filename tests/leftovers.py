"""The universal checker: what a node leaves behind on the machine when it should have left nothing.

Everything that belongs to a node can be told by one of two marks: its folder (root and state lie in it), or its
instance, the first 8 hex digits of sha256 of the real path of its root.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """A node's folder with `root` and `state` in it."""

    folder: Path

    @property
    def root(self) -> Path:
        """What outlives a reboot."""
        return self.folder / "root"

    @property
    def state(self) -> Path:
        """What a reboot may take."""
        return self.folder / "state"

    @property
    def instance(self) -> str:
        """The mark on every name that is global on the machine."""
        return hashlib.sha256(os.path.realpath(self.root).encode()).hexdigest()[:8]

    def holds(self, path: str) -> bool:
        """Whether an absolute path is the node's folder or lies in it."""
        folder = os.path.realpath(self.folder)
        return path == folder or path.startswith(folder + "/")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo."""

    source: str
    target: str
    kind: str


def read_bytes(path: str) -> bytes:
    """A small file of /proc or /sys; empty where it has just gone."""
    with suppress(OSError), open(path, "rb") as source:
        return source.read()
    return b""


def read_link(path: str) -> str:
    """Where a link of /proc leads; empty where it has just gone."""
    with suppress(OSError):
        return os.readlink(path)
    return ""


def processes(place: Place) -> Iterator[int]:
    """Pids, other than ours, that run in a cgroup of the instance or name its folder (arguments, root, cwd)."""
    folder, cgroup = os.fsencode(os.path.realpath(place.folder)), f"/reconciler-{place.instance}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) == os.getpid():
            continue
        links = (read_link(f"/proc/{name}/{link}") for link in ("root", "cwd"))
        if (
            cgroup in read_bytes(f"/proc/{name}/cgroup")
            or folder in read_bytes(f"/proc/{name}/cmdline")
            or any(place.holds(link) for link in links)
        ):
            yield int(name)


def all_mounts() -> list[Mount]:
    """The mounts of our namespace, in the order they were made."""
    found = []
    for line in read_bytes("/proc/self/mountinfo").decode(errors="surrogateescape").splitlines():
        before, after = line.split(" - ", 1)
        fields = before.split(" ")
        target = fields[4].encode(errors="surrogateescape").decode("unicode_escape")
        found.append(Mount(source=after.split(" ")[1], target=target, kind=after.split(" ")[0]))
    return found


def mounts(place: Place) -> Iterator[Mount]:
    """Mounts in the node's folder, pinned namespaces among them; not root itself, which a test may have put there."""
    root = os.path.realpath(place.root)
    return (mount for mount in all_mounts() if place.holds(mount.target) and mount.target != root)


def cgroups(place: Place) -> Iterator[Path]:
    """The instance's cgroups in every hierarchy, at its top and below the cgroup that we run in ourselves."""
    below = {line.split(":", 2)[2].lstrip("/") for line in read_bytes("/proc/self/cgroup").decode().splitlines()}
    for mount in all_mounts():
        if mount.kind in ("cgroup", "cgroup2"):
            for start in {"", *below}:
                yield from (Path(mount.target) / start).glob(f"reconciler-{place.instance}*")


def loops(place: Place) -> Iterator[str]:
    """Loop devices whose file lies in the node's folder."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if place.holds(read_bytes(str(backing)).decode(errors="surrogateescape").strip()):
            yield f"/dev/{backing.parts[3]}"


def links(place: Place) -> Iterator[str]:
    """Network interfaces that carry the instance in their name."""
    return (name for name in os.listdir("/sys/class/net") if place.instance in name)


def bundles(place: Place) -> Iterator[Path]:
    """What is left in the state folder of bundles and of the folders of pinned namespaces."""
    for room in ("bundles", "netns"):
        with suppress(FileNotFoundError):
            yield from sorted((place.state / room).iterdir())


def find(place: Place) -> list[str]:
    """Everything that is left over, one sentence each, worst first."""

    def command(pid: int) -> str:
        return read_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:200]

    kinds: list[tuple[str, Iterator[object]]] = [
        ("process", (f"{pid} {command(pid)!r}" for pid in processes(place))),
        ("mount", (f"{mount.target} ({mount.kind} {mount.source})" for mount in mounts(place))),
        ("cgroup", cgroups(place)),
        ("loop device", loops(place)),
        ("network interface", links(place)),
        ("bundle or namespace", bundles(place)),
    ]
    return [f"{kind}: {thing}" for kind, things in kinds for thing in things]


def settle(place: Place, seconds: float) -> list[str]:
    """What is left over once things that are just ending have had so many seconds to do so."""
    deadline = time.monotonic() + seconds
    while (found := find(place)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def clean(place: Place) -> None:
    """Takes everything away by force, so that the next test finds a clean machine."""
    for pid in processes(place):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for group in cgroups(place):
        for folder, _, _ in os.walk(group):
            for pid in read_bytes(f"{folder}/cgroup.procs").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    for mount in reversed(list(mounts(place))):
        subprocess.run(["umount", "--lazy", mount.target], check=False, capture_output=True)
    for device in loops(place):
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
    for name in links(place):
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    retried(lambda: [_remove_cgroup(group) for group in cgroups(place)])
    shutil.rmtree(place.folder, ignore_errors=True)


def retried(action: Callable[[], object]) -> None:
    """Tries for two seconds; killed processes take a moment to leave their cgroup."""
    for _ in range(40):
        try:
            action()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _remove_cgroup(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)
