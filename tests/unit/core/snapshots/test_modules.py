"""A WASM module becomes a snapshot of one file, whole or not at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from core.digest import Digest
from core.errors import Invalid
from core.layers import Compression
from core.process import Launcher
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.modules import ModuleUnpack
from core.snapshots.ports import SnapshotKind
from core.snapshots.unpack import LayerUnpacker
from tests.conformance.snapshotter_ground import DRIVERS

MODULE = b"\0asm\x01\0\0\0"
NAME = str(Digest.of(b"a name"))


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderSnapshotter]:
    made: FolderSnapshotter = DRIVERS[request.param](tmp_path / "snapshots")
    yield made
    made.close()


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(MODULE)
    return path


def begin(driver: FolderSnapshotter) -> ModuleUnpack:
    return LayerUnpacker(driver, Launcher()).module(Digest.parse(NAME), "/main.wasm")


def test_the_file_is_there_and_the_snapshot_committed(driver: FolderSnapshotter, blob: Path) -> None:
    unpack = begin(driver)
    assert unpack.missing() == (0,)
    unpack.ready(0, blob, Compression.NONE)
    assert unpack.finish() == NAME
    assert (driver.folder(NAME) / "main.wasm").read_bytes() == MODULE
    assert [info.kind for info in driver.walk()] == [SnapshotKind.COMMITTED]


def test_one_that_is_there_is_not_made_again(driver: FolderSnapshotter, blob: Path) -> None:
    first = begin(driver)
    first.ready(0, blob, Compression.NONE)
    first.finish()
    second = begin(driver)
    assert second.missing() == ()
    assert second.finish() == NAME


def test_a_second_waits_for_the_first_and_takes_its_work(driver: FolderSnapshotter, blob: Path) -> None:
    first = begin(driver)
    first.ready(0, blob, Compression.NONE)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(begin, driver)
        assert not wait([second], timeout=0.1).done
        first.finish()
        assert second.result(10).missing() == ()
        second.result().finish()
    assert [info.key for info in driver.walk()] == [NAME]


def test_what_a_kill_leaves_is_swept(driver: FolderSnapshotter, blob: Path) -> None:
    killed = begin(driver)
    killed.ready(0, blob, Compression.NONE)
    assert killed._staged is not None
    killed._staged.release()  # as the end of our process does
    assert list(driver.walk()) == []
    assert driver.sweep() != []
    assert not any(path.name.startswith(".staging") for path in driver.root.iterdir())
    killed._lock.release()


def test_what_is_no_module_leaves_nothing(driver: FolderSnapshotter, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"#!/bin/sh\n")
    unpack = begin(driver)
    with pytest.raises(Invalid):
        unpack.ready(0, other, Compression.NONE)
    unpack.abort()
    assert list(driver.walk()) == []


def test_a_begun_one_can_be_given_up(driver: FolderSnapshotter, blob: Path) -> None:
    unpack = begin(driver)
    unpack.ready(0, blob, Compression.NONE)
    unpack.abort()
    unpack.abort()
    assert list(driver.walk()) == []
