"""A store that lost something is filled from applied/, and says so; applied/ is written anew from the store."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import VirtualClock
from reconciler.engine import recovery
from reconciler.model.identity import FINALIZERS, Key, Kind
from reconciler.places import Paths
from reconciler.store.applied import keep_applied, load_applied
from reconciler.store.functions import HAND, Manager, Wanted, apply_specs, existing, request_deletion
from reconciler.store.sqlite import SqliteStore, open_store
from reconciler.store.sqlite_recovery import mend

CLOCK = VirtualClock()
NODE = Key(Kind.NODE, "here")
WEB, LOGIN, DATA = Key(Kind.CONTAINER, "web"), Key(Kind.SECRET, "login"), Key(Kind.VOLUME, "data")


class Home:
    """A root with a store that is opened and closed as agents come and go."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "root", folder / "state")
        self.paths.root.mkdir()
        self._open: list[SqliteStore] = []

    def begin(self) -> SqliteStore:
        """What an agent does first."""
        mend(self.paths.store_file, CLOCK)
        store = open_store(self.paths.store_file, create=True, clock=CLOCK)
        assert store is not None
        self._open.append(store)
        recovery.fill(self.paths, store, CLOCK.wall(), NODE)
        return store

    def apply(self, store: SqliteStore, key: Key, **spec: object) -> None:
        """What `apply` does."""
        apply_specs(store, [Wanted(key, spec)], Manager(HAND), finalizers=FINALIZERS)
        keep_applied(self.paths.root, store, [key])

    def end(self) -> None:
        """The agent ends well."""
        for store in self._open:
            store.close()
        self._open.clear()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.end()


def reasons(store: SqliteStore) -> list[str]:
    return [event.reason for event in store.events() if event.key == NODE]


def notice(home: Home, store: SqliteStore) -> str:
    return recovery.notice(home.paths, store, CLOCK.wall())


def test_a_whole_store_is_filled_with_nothing_and_says_nothing(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="a")
    home.end()
    store = home.begin()
    assert (reasons(store), notice(home, store)) == ([], "")


def test_a_store_that_is_gone_comes_back_from_applied(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="a")
    home.apply(store, LOGIN, data={"k": "djE="})
    request_deletion(store, WEB, 5.0)
    keep_applied(home.paths.root, store, [WEB])
    home.end()
    for path in home.paths.root.glob("store.db*"):
        path.unlink()
    store = home.begin()
    assert existing(store, LOGIN).spec == {"data": {"k": "djE="}}
    assert existing(store, WEB).deleted is not None
    assert reasons(store) == ["StoreRebuilt"]
    assert "the store was lost; 2 came back from applied/ (container/web, secret/login)" in notice(home, store)
    home.end()
    assert len(reasons(home.begin())) == 1


def test_one_damaged_row_comes_back_from_applied_and_the_notice_goes_with_the_damaged_file(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="a")
    home.apply(store, DATA, retain=True)
    home.end()
    with closing(sqlite3.connect(home.paths.store_file, isolation_level=None)) as connection:
        connection.execute("UPDATE object SET body = replace(body, 'image', 'imago') WHERE name = 'web'")
    store = home.begin()
    assert existing(store, WEB).spec == {"image": "a"}
    said = notice(home, store)
    assert "the row of container/web is not what was written" in said
    assert "1 came back from applied/ (container/web)" in said
    for path in home.paths.root.glob("store.db.damaged-*"):
        path.unlink()
    assert notice(home, store) == ""


def test_a_notice_goes_after_a_week(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="a")
    home.end()
    home.paths.store_file.unlink()
    store = home.begin()
    assert notice(home, store)
    assert not recovery.notice(home.paths, store, CLOCK.wall() + 8 * 86400)


def test_a_store_whose_log_was_deleted_gets_its_newest_specs_from_applied(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="a")
    home.apply(store, DATA, retain=True)
    home.end()
    store = home.begin()
    home.apply(store, WEB, image="b")
    home.apply(store, LOGIN, data={"k": "djE="})
    killed = home.paths.root.parent / "killed"
    shutil.copytree(home.paths.root, killed)  # as a killed agent leaves it, with its log
    home.end()
    shutil.rmtree(home.paths.root)
    os.rename(killed, home.paths.root)
    home.paths.root.joinpath("store.db-wal").unlink()
    store = home.begin()
    assert existing(store, WEB).spec == {"image": "b"}
    assert existing(store, LOGIN).spec == {"data": {"k": "djE="}}
    assert "lost its newest commits; 2 came back" in notice(home, store)
    home.end()
    store = home.begin()
    assert len(reasons(store)) == 1
    assert len(load_applied(home.paths.root).kept) == 3


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"kind": "Volume"}', b"\xff" * 100])
def test_a_lost_or_damaged_file_in_applied_is_written_anew_from_the_store(home: Home, content: bytes | None) -> None:
    store = home.begin()
    home.apply(store, WEB, image="busybox")
    home.apply(store, DATA, retain=True)
    path = home.paths.root / "applied/hand/container-web.json"
    before = path.read_bytes()
    home.end()
    path.unlink() if content is None else path.write_bytes(content)
    store = home.begin()
    assert path.read_bytes() == before
    assert reasons(store) == ["AppliedRewritten"]


def test_one_other_letter_in_a_file_of_applied_is_not_believed(home: Home) -> None:
    store = home.begin()
    home.apply(store, WEB, image="busybox")
    path = home.paths.root / "applied/hand/container-web.json"
    path.write_text(path.read_text().replace("busybox", "busybux"))
    assert load_applied(home.paths.root).damaged == (path,)
    home.end()
    home.begin()
    assert "busybox" in path.read_text()
