import os
import subprocess
from pathlib import Path

import pytest

from core.errors import AgentError
from reconciler.engine.removal import filled, remove_folders
from reconciler.places import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "root", tmp_path / "state")
    for path in (made.content / "sha256" / "ab", made.volumes / "data", made.volumes / "bare", made.state / "runc"):
        path.mkdir(parents=True)
    for file in (
        made.store_file,
        made.root / "store.db-wal",
        made.root / "store.db.damaged-1",
        made.volumes / "data/f",
    ):
        file.write_text("x")
    (made.state / "engine.lock").touch()
    made.state.chmod(0o755)
    return made


def test_nothing_of_ours_is_left(paths: Paths) -> None:
    assert remove_folders(paths, ()) == []
    assert not paths.root.exists()
    assert not paths.state.exists()
    assert remove_folders(paths, ()) == []


def test_what_is_to_be_kept_and_what_is_not_ours_is_left_and_told(paths: Paths) -> None:
    (paths.root / "holiday.jpg").write_text("mine")
    (paths.state / "other").mkdir()
    left = [paths.root / "holiday.jpg", paths.volumes, paths.state / "other"]
    assert remove_folders(paths, ("volumes",)) == left
    assert sorted(os.listdir(paths.root)) == ["holiday.jpg", "volumes"]
    assert (paths.volumes / "data/f").read_text() == "x"


def test_a_state_folder_that_nobody_else_may_enter_goes_whole(paths: Paths) -> None:
    paths.state.chmod(0o700)
    (paths.state / "new").mkdir()
    assert remove_folders(paths, ()) == []
    assert not paths.state.exists()


def test_volumes_that_hold_something_are_named(paths: Paths) -> None:
    assert filled(paths.volumes) == ["data"]
    assert filled(paths.root / "nowhere") == []


def test_a_link_is_removed_and_not_followed(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/file").write_text("x")
    (paths.volumes / "link").symlink_to(tmp_path / "far")
    remove_folders(paths, ())
    assert (tmp_path / "far/file").read_text() == "x"


@pytest.mark.root
def test_what_somebody_mounted_there_is_not_entered(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/precious").write_text("x")
    subprocess.run(["mount", "--bind", tmp_path / "disk", paths.volumes / "bare"], check=True)
    try:
        with pytest.raises(AgentError, match="bare"):
            remove_folders(paths, ())
        assert (tmp_path / "disk/precious").read_text() == "x"
    finally:
        subprocess.run(["umount", paths.volumes / "bare"], check=True)
    assert remove_folders(paths, ()) == []
