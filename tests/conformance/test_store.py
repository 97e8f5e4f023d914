"""The SQLite backend and the store in memory keep the same promises; the file keeps some more."""

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import VirtualClock
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.memory import MemoryStore
from reconciler.store.port import Put, WriteConflict
from reconciler.store.sqlite import SqliteStore, open_store
from reconciler.store.sqlite_connections import make_store
from tests.conformance.store_contract import KEPT_REMOVALS, WEB, StoreContract, told

TOP = Path(__file__).parents[2]
KILLS = 20


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def make(self) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock, kept_removals=KEPT_REMOVALS)


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def make(self, tmp_path: Path) -> Iterator[None]:
        self.clock = VirtualClock()
        make_store(tmp_path / "root" / "store.db")
        store = SqliteStore(tmp_path / "root" / "store.db", self.clock, kept_removals=KEPT_REMOVALS)
        self.store = store
        yield
        store.check()
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store is to be."""
    return tmp_path / "root" / "store.db"


def opened(path: Path) -> SqliteStore:
    """The store at `path`, made when it is not there."""
    store = open_store(path, create=True)
    assert store is not None
    return store


def script(path: Path, body: str) -> list[str]:
    """The command of a process that has `store` open."""
    head = f"""
        import sys
        from dataclasses import replace
        from pathlib import Path
        from reconciler.model.identity import Key, Kind
        from reconciler.model.objects import Object
        from reconciler.store.functions import modify
        from reconciler.store.port import Put, Remove
        from reconciler.store.sqlite import open_store
        store = open_store(Path({str(path)!r}), create=True)
        web = Key(Kind.CONTAINER, "web")
        """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)]


def test_all_that_was_told_is_there_after_closing_and_opening(path: Path) -> None:
    store = opened(path)
    made = store.commit([Put(Object(WEB, spec={"image": "web"}), 0)])[0]
    store.set_status(WEB, made.uid, {"state": "Running"})
    store.add_event(told(WEB, "Started"))
    store.set_meta("boot", "7")
    version = store.version()
    store.close()
    again = opened(path)
    found = again.get(WEB)
    assert found is not None
    assert (found.uid, found.spec, found.status) == (made.uid, {"image": "web"}, {"state": "Running"})
    assert [event.reason for event in again.events()] == ["Started"]
    assert again.meta("boot") == "7"
    assert [change.key for change in again.changes(version)] == [WEB]
    again.close()


def test_a_status_reaches_other_processes_by_itself(path: Path) -> None:
    store, other = opened(path), opened(path)
    made = store.commit([Put(Object(WEB), 0)])[0]
    seen = other.version()
    store.set_status(WEB, made.uid, {"state": "Running"})
    assert other.wait(seen, 10.0)
    found = other.get(WEB)
    assert found is not None
    assert found.status == {"state": "Running"}
    store.close()
    other.close()


def test_the_store_is_its_users_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = opened(path)
        store.commit([Put(Object(WEB), 0)])
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
        assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        store.close()
    finally:
        os.umask(before)


def test_looking_for_a_store_that_is_not_there_makes_nothing(path: Path) -> None:
    assert open_store(path, create=False) is None
    assert not path.parent.exists()


def test_processes_that_write_at_once_lose_no_update(path: Path) -> None:
    store = opened(path)
    store.commit([Put(Object(WEB, record={"n": 0}), 0)])
    body = """
        for _ in range(50):
            modify(store, web, lambda obj: replace(obj, record={"n": obj.record["n"] + 1}))
            store.set_status(web, store.get(web).uid, {"by": sys.argv[1]})
        store.close()
        """
    writers = [subprocess.Popen([*script(path, body), str(number)], cwd=TOP) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = store.get(WEB)
    assert found is not None
    assert found.record == {"n": 150}
    assert found.status["by"] in ("0", "1", "2")
    store.check()
    store.close()


def test_processes_that_make_the_store_at_once_make_one(path: Path) -> None:
    body = """
        store.commit([Put(Object(Key(Kind.IMAGE, sys.argv[1])), 0)])
        store.close()
        """
    makers = [subprocess.Popen([*script(path, body), f"i{number}"], cwd=TOP) for number in range(3)]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0]
    store = opened(path)
    assert [obj.name for obj in store.list()] == ["i0", "i1", "i2"]
    store.close()


def test_a_kill_in_the_middle_of_commits_loses_nothing_that_was_acknowledged(path: Path) -> None:
    body = """
        number = len(store.list(Kind.IMAGE))
        while True:
            keys = [Key(kind, f"n{number}") for kind in (Kind.IMAGE, Kind.VOLUME)]
            made = store.commit([Put(Object(key, spec={"pad": "x" * 500}), 0) for key in keys])
            store.set_status(made[0].key, made[0].uid, {"n": number})
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
            number += 1
        """
    dice = random.Random(7)
    opened(path).close()
    for _ in range(KILLS):
        writer = subprocess.Popen(script(path, body), cwd=TOP, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline())]
        time.sleep(dice.uniform(0, 0.06))
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
        writer.stdout.close()
        writer.wait()
        store = opened(path)
        store.check()
        images = {obj.name for obj in store.list(Kind.IMAGE)}
        assert {f"n{number}" for number in acknowledged} <= images
        assert images == {obj.name for obj in store.list(Kind.VOLUME)}
        store.commit([Put(Object(Key(Kind.SECRET, f"s{len(images)}")), 0)])
        store.close()


def test_one_refused_commit_does_not_take_along_those_it_waited_with(path: Path) -> None:
    store = opened(path)
    store.commit([Put(Object(WEB), 0)])
    writes = [
        Put(Object(Key(Kind.IMAGE, "a")), 0),
        Put(Object(WEB), 0),
        Put(Object(Key(Kind.IMAGE, "b"), spec={"x": object()}), 0),
        Put(Object(Key(Kind.IMAGE, "c")), 0),
    ]
    ends: list[object] = [None] * len(writes)

    def commit(number: int) -> None:
        try:
            ends[number] = store.commit([writes[number]])[0].name
        except (WriteConflict, TypeError) as error:
            ends[number] = type(error)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(len(writes))]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for thread in threads:
            thread.start()
        time.sleep(0.2)  # the first waits for the other process, the rest for the first
        other.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    assert ends == ["a", WriteConflict, TypeError, "c"]
    assert [obj.name for obj in store.list()] == ["a", "c", "web"]
    store.close()


# The second is the folder's, once a connection: SQLite does it, and lets a refusal pass.
@pytest.mark.parametrize("nth", [1, 3, 4])
def test_a_sync_that_fails_is_no_acknowledgement_and_harms_none_that_was_given(path: Path, nth: int) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    body = """
        from core.errors import AgentError
        for number in range(6):
            try:
                store.commit([Put(Object(Key(Kind.IMAGE, f"i{number}")), 0)])
                print("yes", flush=True)
            except AgentError as error:
                print("no", type(error).__name__, flush=True)
        store.check()
        """
    opened(path).close()
    inject = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject=fdatasync,fsync:error=EIO:when={nth}"]
    told = subprocess.run([*inject, *script(path, body)], cwd=TOP, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    ends = told.stdout.splitlines()
    assert ends.count("no Failed") == 1
    assert ends.count("yes") == 5
    store = opened(path)
    store.check()
    acknowledged = {f"i{number}" for number, end in enumerate(ends) if end == "yes"}
    assert acknowledged <= {obj.name for obj in store.list()}
    store.close()
