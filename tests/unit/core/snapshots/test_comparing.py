"""Two trees compared: every way in which a name may differ is told, and what does not count is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.snapshots.comparing import differences


def _make(top: Path) -> Path:
    (top / "deep/er").mkdir(parents=True)
    (top / "file").write_bytes(b"a" * 600_000)
    (top / "deep/other").write_text("other")
    (top / "deep/er/link").symlink_to("../other")
    os.mkfifo(top / "pipe")
    return top


def _replaced(top: Path) -> None:
    (top / "file").unlink()
    (top / "file").symlink_to("deep/other")


def _leads_elsewhere(top: Path) -> None:
    (top / "deep/er/link").unlink()
    (top / "deep/er/link").symlink_to("../file")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "/file has other bytes": lambda top: (top / "file").write_bytes(b"a" * 599_999 + b"b"),
    "/file has 1 bytes, not 600000": lambda top: (top / "file").write_bytes(b"a"),
    "/file is of another type": _replaced,
    "/deep/other is missing": lambda top: (top / "deep/other").unlink(),
    "/deep/er is missing": lambda top: shutil.rmtree(top / "deep/er"),
    "/deep/er/new was added": lambda top: (top / "deep/er/new").mkdir(),
    "/deep/er/link leads elsewhere": _leads_elsewhere,
    "/deep has mode 0700, not 0755": lambda top: (top / "deep").chmod(0o700),
    "/file has other attributes": lambda top: os.setxattr(top / "file", "user.x", b"1"),
    "/ has mode 0700, not 0755": lambda top: top.chmod(0o700),
}


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    before = os.umask(0o022)
    try:
        return _make(tmp_path / "found"), _make(tmp_path / "wanted")
    finally:
        os.umask(before)


def test_equal_trees_differ_in_nothing_and_every_byte_is_read(trees: tuple[Path, Path]) -> None:
    os.utime(trees[0] / "file", (1, 1))
    read: list[int] = []
    assert list(differences(*trees, read.append)) == []
    assert sum(read) == 600_005


@pytest.mark.parametrize("told", DAMAGES)
def test_each_difference_is_told(trees: tuple[Path, Path], told: str) -> None:
    DAMAGES[told](trees[0])
    assert list(differences(*trees, lambda count: None)) == [told]


def test_a_file_of_many_names_is_read_once_and_told_once(trees: tuple[Path, Path]) -> None:
    for top in trees:
        for number in range(5):
            (top / f"name{number}").hardlink_to(top / "file")
    (trees[0] / "file").write_bytes(b"a" * 599_999 + b"b")
    read: list[int] = []
    assert list(differences(*trees, read.append)) == ["/file has other bytes"]
    assert sum(read) == 600_005


@pytest.mark.root
def test_owners_and_devices_are_compared_and_what_overlayfs_notes_is_not(trees: tuple[Path, Path]) -> None:
    os.chown(trees[0] / "file", 5, 6)
    os.setxattr(trees[0] / "deep", "trusted.overlay.impure", b"y")
    os.setxattr(trees[1] / "deep/er", "trusted.overlay.opaque", b"y")
    os.mknod(trees[0] / "hidden", 0o20644, os.makedev(0, 0))
    os.mknod(trees[1] / "hidden", 0o20644, os.makedev(1, 3))
    assert set(differences(*trees, lambda count: None)) == {
        "/file belongs to 5:6, not to 0:0",
        "/deep/er has other attributes",
        "/hidden is another device",
    }


def test_a_name_that_cannot_be_shown_is_shown_all_the_same(trees: tuple[Path, Path]) -> None:
    (Path(os.fsdecode(os.fsencode(trees[0]) + b"/\xff"))).touch()
    assert list(differences(*trees, lambda count: None)) == ["/\\xff was added"]
