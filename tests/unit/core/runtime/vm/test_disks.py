"""Disks of machines: roots that are shared, layers that are not, and what is left of neither."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.errors import Failed
from core.process import Launcher
from core.runtime.vm import disks
from core.runtime.vm.disks import Disks

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
    wanting = [threading.Thread(target=lambda: found.append(kept.root("x", "sha256:1", tree))) for _ in range(4)]
    for one in wanting:
        one.start()
    for one in wanting:
        one.join()
    assert len(set(found)) == 1
    assert len(CountingLauncher.started) == 1
    assert found[0].read_bytes()[1024:1028] == bytes.fromhex("e2e1f5e0")  # EROFS's magic number
    assert kept.root("y", "sha256:2", tree) != found[0]


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
    old, used = kept.root("x", "one", tree), kept.root("x", "two", tree)
    os.utime(old, (1, 1))
    os.utime(used, (2, 2))
    kept.root("x", "two", tree)
    monkeypatch.setattr(disks, "MOST_BYTES", 2 * old.stat().st_size)
    newest = kept.root("x", "three", tree)
    assert [one.exists() for one in (old, used, newest)] == [False, True, True]


def test_a_root_that_cannot_be_made_leaves_nothing(tmp_path: Path, tree: Path) -> None:
    kept = Disks(tmp_path / "disks", Launcher())
    shutil.rmtree(tree)
    with pytest.raises(Failed):
        kept.root("x", "one", tree)
    assert [one.name for one in (tmp_path / "disks" / "roots").iterdir() if one.name != ".lock"] == []
