"""The ledger of snapshots: numbers once, lines whole, faults told as ours."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Corrupt
from core.snapshots.ledger import Ledger
from core.snapshots.ports import SnapshotExists, SnapshotInfo, SnapshotInUse, SnapshotKind, SnapshotMissing


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.db")
    yield made
    made.close()


def committed(key: str, parent: str | None = None) -> SnapshotInfo:
    return SnapshotInfo(key, parent, SnapshotKind.COMMITTED, 1.0)


def test_numbers_are_given_once_even_after_their_lines_are_gone(ledger: Ledger, tmp_path: Path) -> None:
    (first,) = ledger.reserve(1)
    ledger.add_committed([(first, committed("a"))])
    ledger.remove("a")
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert list(again.reserve(2)) == [first + 1, first + 2]
    again.close()


def test_a_chain_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    ledger.add_committed([(1, committed("a"))])
    with pytest.raises(SnapshotExists):
        ledger.add_committed([(2, committed("b", "a")), (3, committed("a", "b"))])
    assert [line.info.key for line in ledger.lines()] == ["a"]
    ledger.add_committed([(2, committed("b", "a")), (3, committed("c", "b"))])
    assert ledger.lineage(3) == [2, 1]
    assert ledger.find(["a", "c", "x"]) == {"a": 1, "c": 3}


def test_a_parent_must_be_committed(ledger: Ledger) -> None:
    ledger.add(1, SnapshotInfo("work", None, SnapshotKind.ACTIVE, 1.0))
    for parent in ("work", "nothing"):
        with pytest.raises(SnapshotMissing):
            ledger.add(2, SnapshotInfo("top", parent, SnapshotKind.VIEW, 1.0))
    ledger.commit("base", "work", 2.0)
    ledger.add(2, SnapshotInfo("top", "base", SnapshotKind.VIEW, 1.0))
    with pytest.raises(SnapshotInUse):
        ledger.remove("base")
    assert ledger.get("base").info == SnapshotInfo("base", None, SnapshotKind.COMMITTED, 2.0)


def test_dropping_takes_all_that_rests_on_it(ledger: Ledger) -> None:
    ledger.add_committed([(1, committed("a")), (2, committed("b", "a")), (3, committed("c", "b"))])
    ledger.add(4, SnapshotInfo("w", "a", SnapshotKind.ACTIVE, 1.0))
    assert sorted(ledger.drop(2)) == ["b", "c"]
    assert [line.id for line in ledger.lines()] == [1, 4]


def test_threads_write_at_once(ledger: Ledger) -> None:
    def write(number: int) -> None:
        for turn in range(20):
            (given,) = ledger.reserve(1)
            ledger.add(given, SnapshotInfo(f"{number}-{turn}", None, SnapshotKind.ACTIVE, 1.0))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.lines()) == 80


def test_a_file_that_is_no_ledger_is_told_as_corrupt(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"junk" * 1000)
    with pytest.raises(Corrupt):
        Ledger(tmp_path / "ledger.db")
