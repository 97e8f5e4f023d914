"""What a container wrote into its root, kept as a layer and laid on a fresh root: the same tree, or a clear refusal."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core import mounts
from core.digest import Digest
from core.errors import AgentError, Corrupt, Invalid, Unsupported
from core.layers import Budgets
from core.process import Launcher
from core.snapshots.changes import Layer, keep, written
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.laying import prepare_with
from core.snapshots.ports import SnapshotExists, SnapshotMissing
from tests.conformance.snapshotter_ground import (
    DRIVERS,
    SYM,
    Entry,
    folder,
    layer,
    mounted,
    tree,
    unpack,
)

BASE = layer(
    folder("etc"),
    Entry("etc/passwd", data=b"root:x:0:0\n"),
    Entry("etc/motd", data=b"hello\n"),
    folder("var"),
    folder("var/cache"),
    Entry("var/cache/one", data=b"1"),
    Entry("var/cache/two", data=b"2"),
    folder("var/quiet"),
    Entry("var/quiet/file", data=b"untouched"),
    Entry("bin", SYM, link="usr/bin"),
)


@pytest.fixture(params=sorted(DRIVERS))
def driver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FolderSnapshotter]:
    made = DRIVERS[request.param](tmp_path / "snapshots")
    yield made
    made.close()


def kept(driver: FolderSnapshotter, key: str) -> Layer:
    """What snapshot `key` holds beyond its parent."""
    path = driver.root.parent / f"{key}.tar"
    return keep(written(driver.root, key, copied=driver.in_order), path)


@contextmanager
def laid(driver: FolderSnapshotter, chain: str, found: Layer) -> Iterator[Path]:
    """A fresh root with the layer on it, mounted."""
    target = driver.root.parent / "laid"
    target.mkdir()
    mounts.attach(prepare_with(driver, Launcher(), "again", chain, found), target)
    try:
        yield target
    finally:
        mounts.detach(target)
        driver.remove("again")


def change_much(root: Path) -> None:
    """Everything that a container may do to its root."""
    (root / "etc/motd").write_text("changed\n")
    (root / "etc/passwd").unlink()
    (root / "new").mkdir(mode=0o1777)
    (root / "new").chmod(0o1777)
    (root / "new/file").write_bytes(os.urandom(70_000))
    (root / "new/file").chmod(0o4755)
    os.chown(root / "new/file", 1000, 1001)
    os.utime(root / "new/file", ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321))
    os.link(root / "new/file", root / "new/same")
    os.symlink("/etc/motd", root / "new/link")
    os.mkfifo(root / "new/fifo", 0o600)
    os.mknod(root / "new/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(root / "new", "user.mark", b"\xff\x00raw")
    (root / "new" / os.fsdecode(b"not-\xffutf8")).write_text("x")
    (root / ("long-" * 30)).write_text("x")
    for name in ("one", "two"):
        (root / "var/cache" / name).unlink()
    (root / "var/cache").rmdir()
    (root / "var/cache").mkdir()
    (root / "var/cache/three").write_text("3")
    (root / "bin").unlink()
    (root / "bin").mkdir()
    (root / "bin/tool").write_text("#!\n")
    root.chmod(0o751)


def test_a_root_with_its_layer_is_what_the_container_left(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        change_much(root)
        before = tree(root)
        found = kept(driver, "web")
    with laid(driver, chain, found) as root:
        assert tree(root) == before


def test_only_what_was_changed_is_kept(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        (root / "etc/motd").write_text("other\n")
        found = kept(driver, "web")
    assert b"untouched" not in found.path.read_bytes()
    assert b"var/quiet" not in found.path.read_bytes()
    assert found.size == found.path.stat().st_size
    assert found.digest == Digest.of(found.path.read_bytes())
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600


def test_bytes_that_changed_behind_the_same_size_and_time_are_kept(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        seen = (root / "etc/motd").stat()
        (root / "etc/motd").write_text("HELLO\n")
        os.utime(root / "etc/motd", ns=(seen.st_atime_ns, seen.st_mtime_ns))
        found = kept(driver, "web")
    with laid(driver, chain, found) as root:
        assert (root / "etc/motd").read_text() == "HELLO\n"


def test_a_root_that_nobody_changed_comes_to_an_empty_layer(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        before = tree(root)
        found = kept(driver, "web")
    assert found.size <= 10240
    with laid(driver, chain, found) as root:
        assert tree(root) == before


def test_a_name_that_a_layer_would_take_for_a_whiteout_is_refused(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        (root / "etc/.wh.passwd").write_text("x")
        with pytest.raises(Unsupported, match=r"\.wh\.passwd"):
            kept(driver, "web")


def test_a_snapshot_that_is_not_there_has_no_changes(driver: FolderSnapshotter) -> None:
    with pytest.raises(SnapshotMissing):
        written(driver.root, "nobody", copied=driver.in_order)


def truncated(found: Layer) -> Layer:
    os.truncate(found.path, found.size - 1500)
    return found


def other_bytes(found: Layer) -> Layer:
    data = found.path.read_bytes()
    found.path.write_bytes(data.replace(b"changed", b"CHANGED"))
    return found


def other_digest(found: Layer) -> Layer:
    return replace(found, digest=Digest.of(b"something else"))


@pytest.mark.parametrize("spoil", [truncated, other_bytes, other_digest])
def test_a_layer_that_is_not_what_was_promised_leaves_nothing(
    driver: FolderSnapshotter, spoil: Callable[[Layer], Layer]
) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        change_much(root)
        found = kept(driver, "web")
    before = sorted(entry.name for entry in driver.root.iterdir())
    with pytest.raises((Corrupt, Invalid)):
        prepare_with(driver, Launcher(), "again", chain, spoil(found))
    assert sorted(entry.name for entry in driver.root.iterdir()) == before
    assert not driver.ledger.has("again")


def test_a_layer_over_its_budget_leaves_nothing(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain) as root:
        change_much(root)
        found = kept(driver, "web")
    with pytest.raises(AgentError, match="more than"):
        prepare_with(driver, Launcher(), "again", chain, found, Budgets(layer_bytes=10_000))
    assert not driver.ledger.has("again")


def test_a_snapshot_that_is_there_is_not_made_again(driver: FolderSnapshotter) -> None:
    chain = unpack(driver, [BASE])
    with mounted(driver, "web", chain):
        found = kept(driver, "web")
        with pytest.raises(SnapshotExists):
            prepare_with(driver, Launcher(), "web", chain, found)


def test_a_layer_that_would_lead_out_is_kept_inside(driver: FolderSnapshotter, tmp_path: Path) -> None:
    chain = unpack(driver, [BASE])
    hostile = layer(
        Entry("way", SYM, link=str(tmp_path)), Entry("way/out", data=b"x"), Entry("../../../../tmp/out", data=b"x")
    )
    path = tmp_path / "hostile.tar"
    path.write_bytes(hostile)
    try:
        with laid(driver, chain, Layer(path, Digest.of(hostile), len(hostile))):
            pass
    except AgentError:
        assert not driver.ledger.has("again")
    assert not (tmp_path / "out").exists()
