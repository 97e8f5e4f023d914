"""Files appear whole, folders go whole, and what somebody holds is left alone."""

import os
import stat
from pathlib import Path

import pytest

from core import fsio, mounts
from core.errors import OverLimit
from core.mounts import MountSpec


def test_a_written_file_has_its_content_and_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    fsio.write_atomic(tmp_path / "f", b"old")
    fsio.write_atomic(tmp_path / "f", b"new", mode=0o640)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        fsio.write_atomic(tmp_path / "f", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_bounded_read_takes_its_limit_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert fsio.read_bounded(tmp_path / "f", 5) == b"12345"
    with pytest.raises(OverLimit):
        fsio.read_bounded(tmp_path / "f", 4)


def test_a_lock_is_held_by_one_or_shared_by_many(tmp_path: Path) -> None:
    first, second = fsio.Lock(tmp_path / "lock"), fsio.Lock(tmp_path / "lock")
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    first.release()
    assert first.acquire(shared=True, wait=False)
    assert second.acquire(shared=True, wait=False)
    assert (first.held, second.held) == (True, True)


def test_a_staging_folder_is_swept_only_when_nobody_holds_it(tmp_path: Path) -> None:
    with fsio.staging(tmp_path, "x") as work:
        (work / "f").touch()
        assert fsio.sweep_staging(tmp_path) == []
        os.rename(work, tmp_path / "published")
    (tmp_path / f"{fsio.STAGING}dead/deep").mkdir(parents=True)
    (tmp_path / f"{fsio.STAGING}file").touch()
    assert len(fsio.sweep_staging(tmp_path)) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["published"]


def test_a_staging_folder_that_is_not_published_goes_with_its_block(tmp_path: Path) -> None:
    with fsio.staging(tmp_path) as work:
        (work / "f").touch()
    assert list(tmp_path.iterdir()) == []


def test_several_may_hold_a_folder_and_the_last_to_let_go_frees_it(tmp_path: Path) -> None:
    folder = tmp_path / f"{fsio.STAGING}x"
    folder.mkdir()
    first, second = fsio.hold(folder), fsio.hold(folder)
    assert first is not None
    assert second is not None
    os.close(first)
    assert not fsio.sweep(folder)
    os.close(second)
    assert not fsio.sweep(folder, unless=lambda: True)
    assert fsio.sweep(folder)
    assert not fsio.sweep(folder)
    assert fsio.hold(folder) is None


def test_removing_a_tree_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/f").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    fsio.remove_tree(tmp_path / "gone")
    fsio.remove_tree(tmp_path / "gone")
    assert (tmp_path / "kept/f").exists()
    assert not (tmp_path / "gone").exists()


def test_removing_a_tree_deeper_than_paths_and_descriptors_reach(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    at = os.dup(top)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=at)
        below = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    os.close(top)
    fsio.remove_tree(tmp_path / "deeper")
    assert list(tmp_path.iterdir()) == []


def test_clearing_a_folder_keeps_what_is_asked_for_and_the_folders_above_it(tmp_path: Path) -> None:
    for name in ("a/keep", "a/drop", "b/drop"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inode = (tmp_path / "a").stat().st_ino
    fd = os.open(tmp_path, os.O_RDONLY)
    fsio.clear_folder(fd, lambda folder, name: (folder, name) == (inode, b"keep"))
    os.close(fd)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/keep"]


@pytest.mark.root
def test_removing_a_tree_never_enters_a_mount(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/f").touch()
    (tmp_path / "gone/inside").mkdir(parents=True)
    mounts.attach([MountSpec("bind", str(tmp_path / "precious"), ("bind",))], tmp_path / "gone/inside")
    try:
        with pytest.raises(OSError, match="cross-device"):
            fsio.remove_tree(tmp_path / "gone")
    finally:
        mounts.detach(tmp_path / "gone/inside")
    assert (tmp_path / "precious/f").exists()
    fsio.remove_tree(tmp_path / "gone")


def test_a_path_too_long_for_a_socket_goes_through_its_folder(tmp_path: Path) -> None:
    long = tmp_path / ("n" * 90)
    long.mkdir()
    with fsio.socket_address(long / "s") as address:
        assert len(address) < 100
