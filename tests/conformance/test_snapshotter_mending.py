"""A snapshot ledger that was deleted, damaged or set back: folders say what they are, what is mounted stays."""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core import mounts
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.mending import NOTE, damaged, mounted
from core.snapshots.ports import SnapshotInfo, SnapshotKind
from tests.conformance.snapshotter_ground import DRIVERS

Make = Callable[[], FolderSnapshotter]


class Yard:
    """A driver's folder, opened anew as engines come and go."""

    def __init__(self, make: Callable[[Path], FolderSnapshotter], root: Path) -> None:
        self._make, self.root = make, root
        self.driver = make(root)
        self._open = True

    def close(self) -> None:
        """What the engine does last."""
        if self._open:
            self.driver.close()
        self._open = False

    def again(self) -> FolderSnapshotter:
        """What the next engine has."""
        self.close()
        self.driver, self._open = self._make(self.root), True
        return self.driver

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / "ledger.db"


@pytest.fixture(params=sorted(DRIVERS))
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Yard]:
    made = Yard(DRIVERS[request.param], tmp_path / "snapshots")
    made.driver.prepare("work", None)
    (made.driver.folder("work") / "file").write_text("below")
    made.driver.commit("base", "work")
    made.driver.prepare("web-1", "base")
    yield made
    made.close()


def lines(driver: FolderSnapshotter) -> dict[str, SnapshotInfo]:
    return {info.key: info for info in driver.walk()}


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _scramble(path: Path) -> None:
    path.write_bytes(random.Random(5).randbytes(path.stat().st_size))


def _one_letter(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE snapshots SET key = 'bass' WHERE key = 'base'")


@pytest.mark.parametrize("damage", [_delete, _empty, _halve, _scramble, _one_letter])
def test_a_lost_or_damaged_ledger_is_known_again_from_the_folders(yard: Yard, damage: Callable[[Path], None]) -> None:
    before = lines(yard.driver)
    yard.close()
    damage(yard.ledger)
    driver = yard.again()
    assert lines(driver) == before
    assert driver.lost.startswith(f"the ledger of {yard.root.name} was ")
    assert driver.lost.endswith("snapshots are known again from their folders")
    assert bool(list(damaged(yard.root))) == (damage is not _delete)
    driver.sweep()
    assert (driver.folder("base") / "file").read_text() == "below"
    driver.prepare("web-2", "base")
    assert len({line.id for line in driver.ledger.lines()}) == 3 + len(before) - 2
    assert yard.again().lost == ""


def test_lines_that_were_lost_are_given_back_to_what_is_mounted_and_nothing_of_it_is_swept(
    yard: Yard, tmp_path: Path
) -> None:
    specs = yard.driver.mounts("web-1")
    target = tmp_path / "target"
    target.mkdir()
    mounts.attach(specs, target)
    try:
        numbers = {line.id for line in yard.driver.ledger.lines()}
        assert mounted(yard.root) & numbers
        yard.close()
        with closing(sqlite3.connect(yard.ledger, isolation_level=None)) as connection:
            connection.execute("DELETE FROM snapshots WHERE key = 'web-1'")  # as when the log was deleted
            connection.execute("UPDATE numbers SET next = 1")
        driver = yard.again()
        assert set(lines(driver)) == {"base", "web-1"}
        assert "had lost its newest lines; 1 mounted snapshots are back" in driver.lost
        driver.sweep()
        (target / "file").write_text("changed")
        assert (target / "file").read_text() == "changed"
        driver.prepare("web-2", "base")
    finally:
        mounts.detach(target)


def test_what_is_mounted_is_not_swept_even_when_nothing_says_what_it_is(yard: Yard, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    folder = yard.driver.folder("web-1").parent
    mounts.attach(yard.driver.mounts("web-1"), target)
    try:
        (folder / NOTE).unlink()
        yard.driver.ledger.remove("web-1")
        yard.driver.sweep()
        assert folder.is_dir()
    finally:
        mounts.detach(target)
    yard.driver.sweep()
    assert not folder.exists()


def test_a_folder_that_does_not_say_what_it_is_says_so_again_after_the_next_start(yard: Yard) -> None:
    notes = sorted(yard.root.glob(f"*/{NOTE}"))
    assert len(notes) == 2
    before = [note.read_bytes() for note in notes]
    notes[0].unlink()
    notes[1].write_bytes(b"{}")
    driver = yard.again()
    assert [note.read_bytes() for note in notes] == before
    assert {info.kind for info in driver.walk()} == {SnapshotKind.COMMITTED, SnapshotKind.ACTIVE}


def test_a_ledger_of_an_earlier_version_gets_its_sums_and_notes(yard: Yard) -> None:
    before = lines(yard.driver)
    yard.close()
    with closing(sqlite3.connect(yard.ledger, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE snapshots DROP COLUMN sum")
    for note in yard.root.glob(f"*/{NOTE}"):
        note.unlink()
    driver = yard.again()
    assert (lines(driver), driver.lost) == (before, "")
    yard.close()
    _one_letter(yard.ledger)
    assert lines(yard.again()) == before
