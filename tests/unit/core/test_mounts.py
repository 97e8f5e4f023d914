"""Mounts are values: attached all or none, detached whole."""

from pathlib import Path

import pytest

from core import mounts, proc
from core.mounts import MountSpec

pytestmark = pytest.mark.root


def options(target: Path) -> str:
    (seen,) = proc.mounts(str(target))
    return seen.options


def test_a_bind_mount_takes_its_flags(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mounts.attach([MountSpec("bind", str(source), ("bind", "ro", "nodev"))], target)
    seen = options(target).split(",")
    assert mounts.detach(target)
    assert {"ro", "nodev"} <= set(seen)


def test_what_cannot_be_mounted_leaves_nothing_mounted(tmp_path: Path) -> None:
    good, bad = MountSpec("tmpfs", "tmpfs"), MountSpec("bind", str(tmp_path / "nothing"), ("bind",))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OSError, match="No such file"):
        mounts.attach([good, bad], target)
    assert proc.mounts(str(tmp_path)) == []


def test_detaching_what_is_not_mounted_says_so(tmp_path: Path) -> None:
    assert not mounts.detach(tmp_path)
    assert not mounts.detach(tmp_path / "nothing")


def test_all_mounts_on_a_folder_and_below_it_are_detached(tmp_path: Path) -> None:
    mounts.attach([MountSpec("tmpfs", "one"), MountSpec("tmpfs", "two")], tmp_path)
    (tmp_path / "in side").mkdir()
    mounts.attach([MountSpec("tmpfs", "three")], tmp_path / "in side")
    assert mounts.detach_below(tmp_path) == 3
    assert proc.mounts(str(tmp_path)) == []


def test_a_busy_mount_is_detached_all_the_same(tmp_path: Path) -> None:
    mounts.attach([MountSpec("tmpfs", "tmpfs")], tmp_path)
    with (tmp_path / "f").open("w"):
        assert mounts.detach(tmp_path)
    assert proc.mounts(str(tmp_path)) == []


def test_paths_in_options_are_read_from_the_prefix(tmp_path: Path) -> None:
    for name in ("a", "b", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/f").touch()
    try:
        mounts.attach([MountSpec("overlay", "overlay", ("ro", "lowerdir=a:b"), str(tmp_path))], tmp_path / "target")
    except OSError as error:
        pytest.skip(f"overlayfs cannot be mounted here: {error}")
    assert (tmp_path / "target/f").exists()
    mounts.detach(tmp_path / "target")
