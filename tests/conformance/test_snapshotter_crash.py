"""Unpacking, killed at some moment: all of the image is there afterwards, or nothing but what a sweep removes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.snapshots.driver import FolderSnapshotter
from tests.conformance.snapshotter_ground import DRIVERS


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderSnapshotter]:
    made: FolderSnapshotter = DRIVERS[request.param](tmp_path / "snapshots")
    yield made
    made.close()


def left(driver: FolderSnapshotter) -> list[str]:
    return sorted(entry.name for entry in driver.root.iterdir() if entry.is_dir() and entry.name != "locks")


KILLED = """
import sys
from pathlib import Path
from core.layers import Compression
from core.digest import Digest
from core.layers import Budgets
from core.process import Launcher
from core.snapshots.unpack import LayerUnpacker
from tests.conformance.snapshotter_ground import DRIVERS, Entry, layer
place = Path(sys.argv[2])
driver = DRIVERS[sys.argv[1]](place / "snapshots")
layers = [layer(*(Entry(f"{n}-{m}", data=b"x" * 3000) for m in range(300))) for n in range(5)]
sizes = [len(one) for one in layers]
sink = LayerUnpacker(driver, Launcher()).begin([Digest.of(one) for one in layers], sizes, Budgets())
print("begun", flush=True)
for index in sink.missing():
    (place / f"b{index}").write_bytes(layers[index])
    sink.ready(index, place / f"b{index}", Compression.NONE)
sink.finish()
print("done", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_a_kill_at_any_moment_leaves_what_a_sweep_removes(
    driver: FolderSnapshotter, tmp_path: Path, delay: float
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, driver.name, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"begun\n"
    time.sleep(delay)
    child.kill()
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 10
    while any(name.startswith(".staging-") for name in left(driver)) and time.monotonic() < deadline:
        driver.sweep()
        time.sleep(0.02)
    lines = driver.ledger.lines()
    assert left(driver) == sorted(str(line.id) for line in lines)
    assert len(lines) in (0, 5)
