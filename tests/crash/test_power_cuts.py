"""Faults 5 and 6: the power goes while images come and go and objects are written; the disk is as it was then."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from reconciler.store import sqlite
from tests import leftovers
from tests.conftest import Node
from tests.crash import power
from tests.e2e.workloads import Stage, document
from tests.figures import Figure
from tests.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.slow]

TOP: Final = Path(__file__).resolve().parents[2]
FILES: Final = 200
SECONDS_A_CUT: Final = 6.0


@dataclass
class Seen:
    """What was looked at in all copies together."""

    cuts: int = 0
    acknowledged: int = 0
    snapshots: int = 0


@contextmanager
def at_work(node: Node, manifest: Path, acks: Path) -> Iterator[None]:
    """Inside the block images come and go, are collected, and objects are written, all on the node's disk."""
    words = " ".join(node.arguments())
    keys = " ".join(f"image/{name}" for name in ("many", "box"))
    loop = f"while :; do {words} apply -f {manifest}; sleep 1; {words} delete {keys}; {words} gc; done"
    store = str(node.root / "store.db")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": TOP}
    children = [
        subprocess.Popen([sys.executable, "-m", "tests.crash.power", store, str(acks)], **quiet),
        subprocess.Popen(["sh", "-c", loop], **quiet),
    ]
    try:
        yield
        assert [child.poll() for child in children] == [None, None], "both were at work to the end"
    finally:
        for child in children:
            child.kill()
            child.wait()
        for pid in leftovers.processes(node.place):
            subprocess.run(["kill", "-KILL", str(pid)], check=False, capture_output=True)


def cuts(node: Node, folder: Path, manifest: Path, count: int) -> Iterator[power.Cut]:
    """So many copies of the node's disk, each of another moment."""
    image, acks = folder / "disk.img", folder / "acks"
    power.make(image)
    node.root.mkdir(mode=0o700)
    draw = random.Random(count)
    with power.mounted(image, node.root) as device:
        node.root.chmod(0o700)
        deadline, made = time.monotonic() + 20 + SECONDS_A_CUT * count, list[power.Cut]()
        with at_work(node, manifest, acks):
            while len(made) < count:
                assert time.monotonic() < deadline, f"only {len(made)} copies were of one moment"
                time.sleep(draw.uniform(0.05, 0.6))
                if found := power.cut(node.place, (image, device), acks, folder / f"{len(made)}.img"):
                    made.append(found)
    leftovers.clean(node.place)
    yield from made


def look_at(one: power.Cut, folder: Path, manifest: Path, seen: Seen, *, whole: bool) -> None:
    """Start from that disk: all that was acknowledged is there, and what is committed is right; if `whole`, go on."""
    node = Node(leftovers.Place(folder))
    node.root.mkdir(parents=True)
    with power.mounted(one.image, node.root):
        if not (node.root / "store.db").exists():
            assert one.acknowledged == 0
            return
        store = sqlite.open_store(node.root / "store.db", create=False)
        assert store is not None
        store.check()
        there = {obj.name for obj in store.list() if obj.name.startswith("v")}
        store.close()
        assert {f"v{number}" for number in range(1, one.acknowledged + 1)} <= there
        checked = node.cli("content", "check", "--snapshots")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        counted = re.search(r"(\d+) snapshot", checked.stdout)
        seen.cuts += 1
        seen.acknowledged += one.acknowledged
        seen.snapshots += int(counted[1]) if counted else 0
        if whole:
            done = node.cli("apply", "--timeout", "30s", "-f", manifest)
            assert done.returncode == 0, done.stdout + done.stderr
    leftovers.clean(node.place)


def run(node: Node, registry: Registry, folder: Path, count: int) -> Seen:
    """Make copies, and look at each."""
    st = Stage(node, registry, folder)
    content = random.Random(5).randbytes
    files = {f"data/{number}": (0, 0o644, content(4096 + number)) for number in range(FILES)}
    many = st.odd_image("many", {}, {"data/": (0, 0o755, b""), **files})
    images = [document("Image", "many", {"ref": many}), document("Image", "box", {"ref": st.image()})]
    manifest, seen = st.write(*images), Seen()
    for number, one in enumerate(cuts(node, folder, manifest, count)):
        look_at(one, folder / f"after-{number}", manifest, seen, whole=number % 5 == 0)
        one.image.unlink()
    return seen


def test_fault_05_after_a_power_cut_what_was_acknowledged_is_there_and_what_is_committed_is_whole(
    node: Node, registry: Registry, tmp_path: Path, figure: Figure
) -> None:
    seen = run(node, registry, tmp_path, 10)
    figure("disks of power cuts looked at", seen.cuts)
    figure("acknowledged writes on them, none lost", seen.acknowledged)
    figure("unpacked images on them, none with a wrong file", seen.snapshots)
    assert min(seen.acknowledged, seen.snapshots) > 0


@pytest.mark.soak
def test_fault_05_two_hundred_power_cuts_lose_nothing(
    node: Node, registry: Registry, tmp_path: Path, figure: Figure
) -> None:
    seen = run(node, registry, tmp_path, 200)
    figure("disks of power cuts looked at, in the long run", seen.cuts)
    figure("acknowledged writes on them, none lost, in the long run", seen.acknowledged)
    figure("unpacked images on them, none with a wrong file, in the long run", seen.snapshots)
    assert seen.cuts > 190
