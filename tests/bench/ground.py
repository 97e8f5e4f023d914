"""What measurements stand on: a node of its own, manifests, timed commands, a quiet disk, the machine's facts."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tests import leftovers
from tests.conftest import Node

PLACE: Final = "/var/tmp"  # a disk everywhere; /tmp may be memory, where overlayfs and fsync mean little
LIMIT_SECONDS: Final = 120.0
ROUND_SECONDS: Final = 30.0
DISK_BYTES: Final = 4 << 30
API: Final = "reconciler/v1"


class Broken(Exception):
    """A command that was to be timed failed: its time means nothing."""


def say(text: str) -> None:
    """Tells on stderr how far the run is; stdout is the table's."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(argv: Sequence[str | Path], *, timeout: float = LIMIT_SECONDS) -> str:
    """Runs a command, gives its stdout; raises `Broken` with its last words when its code is not 0."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise Broken(
            f"{' '.join(str(word) for word in argv)}: exit {done.returncode}: {(done.stderr or done.stdout)[-1500:]}"
        )
    return done.stdout


def timed(argv: Sequence[str | Path]) -> float:
    """Seconds that a command takes from start to end; raises `Broken`."""
    begin = time.perf_counter()
    run(argv)
    return time.perf_counter() - begin


def missing(*programs: str) -> str:
    """`X is not installed` of the first of `programs` that is not, else nothing."""
    return next((f"{name} is not installed" for name in programs if shutil.which(name) is None), "")


def quiet_disk() -> None:
    """Writes out what earlier runs left dirty, so that the next one does not pay for it."""
    os.sync()


Result = TypeVar("Result")


def alternate(rounds: int, turns: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Gives every tool its turn, round by round, so that what changes on the machine meanwhile meets all alike.

    A slow machine makes fewer rounds, at least one: none begins when half a minute a round is used up.
    """
    deadline = time.monotonic() + ROUND_SECONDS * rounds
    seen: dict[str, list[Result]] = {name: [] for name in turns}
    for number in range(rounds):
        if number and time.monotonic() > deadline:
            say("no time for more rounds")
            break
        for name, turn in turns.items():
            seen[name].append(turn())
            say(f"round {number + 1} of {rounds}: {name}: {seen[name][-1]}")
    return seen


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """An empty folder with a short path on a disk; what is mounted in it goes with it."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix=f"rb-{name}-", dir=PLACE)))
    try:
        yield place.folder
    finally:
        for mount in reversed(list(leftovers.mounts(place))):
            subprocess.run(["umount", "--lazy", mount.target], check=False, capture_output=True)
        shutil.rmtree(place.folder)


@contextmanager
def fresh_disk(at: Path) -> Iterator[Path]:
    """A new ext4 on a loop device, mounted at `at`; gone with all that is on it in the end.

    Not for the sake of tidiness: ext4 keeps away from inodes that were freed in the last minutes and passes each of
    them by one by one, so that making files where 10,000 were removed just now costs up to a millisecond a file. What
    ran before, the tools' own turns among it, would be measured.
    """
    at.mkdir()
    disk = at.with_suffix(".img")
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk])
    run(["mount", "-o", "loop", disk, at])
    try:
        yield at
    finally:
        run(["umount", "--recursive", at])
        at.rmdir()
        disk.unlink()


@contextmanager
def fresh_node(disk: Path) -> Iterator[Node]:
    """A node on `disk` with an empty store; whatever is left of it in the end is taken away by force.

    Where a measurement fails, what the node says of itself is told first.
    """
    node = Node(leftovers.Place(Path(tempfile.mkdtemp(prefix="node-", dir=disk))))
    try:
        yield node
    except (Broken, subprocess.TimeoutExpired):
        for words in (("status",), ("events",)):
            say("\n".join(node.cli(*words).stdout.splitlines()[-40:]))
        raise
    finally:
        node.stop()
        leftovers.clean(node.place)


def start_agent(node: Node) -> int:
    """Starts the node's agent and waits until it holds the engine's lock; gives its pid."""
    child = node.spawn("agent")
    deadline = time.monotonic() + LIMIT_SECONDS
    while not leftovers.read_bytes(f"{node.state}/engine.lock").count(f'"pid": {child.pid},'.encode()):
        if child.poll() is not None or time.monotonic() > deadline:
            raise Broken(f"the agent does not start: {(node.place.folder / 'agent.log').read_text()[-1500:]}")
        time.sleep(0.05)
    return child.pid


def apply(node: Node, manifests: Sequence[str], name: str = "all") -> Path:
    """Applies manifests from a file in the node's folder and waits until they are converged; gives the file."""
    path = write(node, manifests, name)
    run(node.arguments("apply", "-f", path))
    return path


def write(node: Node, manifests: Sequence[str], name: str) -> Path:
    """Writes manifests as one file in the node's folder."""
    path = node.place.folder / f"{name}.yaml"
    path.write_text("---\n".join(manifests))
    return path


def objects(node: Node, kind: str) -> list[dict[str, Any]]:
    """The node's objects of a kind, as `get -o json` prints them."""
    items: list[dict[str, Any]] = json.loads(run(node.arguments("get", kind, "-o", "json")))["items"]
    return items


def expect_running(node: Node, count: int) -> None:
    """Raises `Broken` unless so many containers run, by their status and by their processes."""
    pids = [item["status"].get("pid") for item in objects(node, "container") if item["status"]["state"] == "Running"]
    alive = [pid for pid in pids if b"sleep" in leftovers.read_bytes(f"/proc/{pid}/cmdline")]
    if len(alive) != count:
        raise Broken(f"{count} containers were to run, {len(pids)} say that they do, {len(alive)} processes are there")


def image(name: str, ref: str) -> str:
    """A manifest of an Image."""
    return f"apiVersion: {API}\nkind: Image\nmetadata: {{name: {name}}}\nspec: {{ref: '{ref}'}}\n"


def container(name: str) -> str:
    """A manifest of a Container of Image `busybox` that sleeps, without a network."""
    return (
        f"apiVersion: {API}\nkind: Container\nmetadata: {{name: {name}}}\n"
        "spec:\n  image: busybox\n  network: {mode: none}\n  command: [sleep, infinity]\n  stop: {signal: KILL}\n"
    )


def volume(name: str) -> str:
    """A manifest of a Volume that goes with its object."""
    return f"apiVersion: {API}\nkind: Volume\nmetadata: {{name: {name}}}\nspec: {{retain: false}}\n"


def secret(name: str) -> str:
    """A manifest of a Secret."""
    return f"apiVersion: {API}\nkind: Secret\nmetadata: {{name: {name}}}\nspec: {{stringData: {{key: value}}}}\n"


def named(make: Any, prefix: str, count: int) -> list[str]:
    """`count` manifests that `make` makes of the names PREFIX-0, PREFIX-1, …"""
    return [make(f"{prefix}-{number}") for number in range(count)]


def machine_facts() -> dict[str, str]:
    """What a reader must know to judge the figures."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = subprocess.run(["stat", "-f", "-c", "%T", PLACE], capture_output=True, text=True).stdout.strip()
    return {
        "processor": f"{os.cpu_count()} × {cpu.partition(':')[2].strip() or platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "disk": f"{disk}; all stores on a new ext4 on a loop device",
        **{name: version for name in PEERS if (version := version_of(name))},
        "load before the run": f"{os.getloadavg()[0]:.1f} processes",
        "python": platform.python_version(),
        "reconciler": version_of("git"),
    }


PEERS: Final = ("containerd", "podman", "runc", "conmon")


def version_of(program: str) -> str:
    """The version a program says it has; for git the revision of this checkout. Nothing where it is missing."""
    command = ["git", "describe", "--always", "--dirty"] if program == "git" else [program, "--version"]
    if shutil.which(program) is None:
        return ""
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return lines[0] if lines else ""
