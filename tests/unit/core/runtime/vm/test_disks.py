"""Disks of machines: roots that are shared, layers that are not, and what is left of neither."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.errors import Failed
from core.process import Launcher
from core.runtime.vm import disks
from core.runtime.vm.disks import Disks, root_name

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="needs erofs-utils")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root."""
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/name").write_text("box\n")
    return tmp_path / "tree"


class CountingLauncher(Launcher):
    """Counts what it starts."""

    started: ClassVar[list[str]] = []

    def start(self, argv: Sequence[str], **more: Any) -> Any:
        self.started.append(argv[0])
        return super().start(argv, **more)


def test_a_root_is_made_once_for_all_that_want_it_at_once(tmp_path: Path, tree: Path) -> None:
    CountingLauncher.started.clear()
    kept = Disks(tmp_path / "disks", CountingLauncher())
    found: list[Path] = []
    ids = "wxyz"

    def want(id: str) -> None:
        found.append(kept.root(id, "sha256:1", tree))

    wanting = [threading.Thread(target=want, args=(id,)) for id in ids]
    for one in wanting:
        one.start()
    for one in wanting:
        one.join()
    assert {path.name for path in found} == {f"{id}.erofs" for id in ids}
    assert len({path.stat().st_ino for path in found}) == 1
    assert len(CountingLauncher.started) == 1
    assert found[0].read_bytes()[1024:1028] == bytes.fromhex("e2e1f5e0")  # EROFS's magic number
    assert kept.root("v", "sha256:2", tree).stat().st_ino != found[0].stat().st_ino


def test_a_root_of_no_known_image_is_its_tasks_own(tmp_path: Path, tree: Path) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    assert kept.root("x", "", tree) != kept.root("y", "", tree)
    assert set(kept.left()) == {"x", "y"}
    for id in ("x", "y"):
        kept.forget(id)
    assert list(kept.left()) == []


def test_a_layer_is_fresh_sparse_and_gone_with_its_task(tmp_path: Path) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    layer = kept.layer("x")
    seen = layer.stat()
    assert seen.st_size == disks.LAYER_BYTES
    assert seen.st_blocks * 512 < 32 << 20
    with open(layer, "rb") as opened:
        os.lseek(opened.fileno(), 1080, os.SEEK_SET)
        assert os.read(opened.fileno(), 2) == b"\x53\xef"  # ext4's
    os.truncate(layer, 1)
    assert kept.layer("x").stat().st_size == disks.LAYER_BYTES
    kept.forget("x")
    assert list(kept.left()) == []


def test_the_longest_unused_root_goes_first(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    paths = [tmp_path / "disks/roots" / root_name(image) for image in ("one", "two", "three")]
    own = kept.root("first", "one", tree)
    kept.root("x", "two", tree)
    os.utime(paths[0], (1, 1))
    os.utime(paths[1], (2, 2))
    kept.root("x", "two", tree)
    monkeypatch.setattr(disks, "MOST_BYTES", 2 * own.stat().st_size)
    kept.root("x", "three", tree)
    assert [one.exists() for one in paths] == [False, True, True]
    assert own.exists(), "a task keeps its root"


def test_what_no_task_uses_and_no_image_needs_is_collected(tmp_path: Path, tree: Path) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    size = kept.root("x", "used", tree).stat().st_size
    for image in ("needed", "left"):
        kept.root("y", image, tree)
    kept.forget("y")
    left = (root_name("left").removesuffix(".erofs"), size)
    assert list(kept.collect({"needed"}, dry=True)) == [left]
    assert list(kept.collect({"needed"}, dry=False)) == [left]
    assert {one.name for one in (tmp_path / "disks/roots").glob("*.erofs")} == {root_name("used"), root_name("needed")}
    kept.forget("x")
    assert len(list(kept.collect((), dry=False))) == 2
    assert list(kept.collect((), dry=False)) == []


def test_a_task_that_is_prepared_while_roots_are_collected_has_its_root(tmp_path: Path, tree: Path) -> None:
    kept, over = Disks(tmp_path / "disks", Launcher()), threading.Event()
    collected: list[tuple[str, int]] = []

    def collect() -> None:
        while not over.is_set():
            collected.extend(kept.collect((), dry=False))

    collecting = threading.Thread(target=collect)
    collecting.start()
    try:
        deadline = time.monotonic() + 30
        while len(collected) < 3:
            assert time.monotonic() < deadline, "nothing was ever collected"
            assert kept.root("x", "one", tree).read_bytes()[1024:1028] == bytes.fromhex("e2e1f5e0")
            kept.forget("x")
    finally:
        over.set()
        collecting.join()


def test_a_root_that_cannot_be_made_leaves_nothing(tmp_path: Path, tree: Path) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    shutil.rmtree(tree)
    with pytest.raises(Failed):
        kept.root("x", "one", tree)
    assert [one.name for one in (tmp_path / "disks" / "roots").iterdir() if one.name != ".lock"] == []
