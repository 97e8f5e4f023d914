"""A store is killed at each write of its way to a newer format: it is of the old one or the new, with all its rows."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from core.clock import SystemClock
from reconciler.model.identity import Key, Kind
from reconciler.store.sqlite import open_store
from reconciler.store.sqlite_recovery import mend
from reconciler.store.sqlite_schema import STEPS, migrate

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: strace")]

CALLS: Final = "pwrite64,write,fsync,fdatasync,ftruncate,unlink"
NAMES: Final = tuple(f"v{number}" for number in range(40))
CHILD: Final = """
import sys
from pathlib import Path
from reconciler.store.sqlite import open_store
sys.stdout.write("now\\n")
sys.stdout.flush()
open_store(Path(sys.argv[1]), create=False).close()
"""


def make_old(path: Path, version: int) -> None:
    """A store as version `version` left it: closed, with forty volumes in it."""
    steps = {number: step for number, step in STEPS.items() if number <= version}
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection, steps)
    for number, name in enumerate(NAMES, 1):
        row = ("Volume", name, f"uid-{name}", number, 1, '{"spec":{"retain":false}}')
        connection.execute("INSERT INTO object (kind, name, uid, version, generation, body) VALUES (?,?,?,?,?,?)", row)
        connection.execute("INSERT INTO change VALUES (?, 'Volume', ?, 0)", (number, name))
    connection.close()


def bring_up(path: Path, traced: Sequence[str], log: Path) -> int:
    """Have a process bring the store up under strace; its exit code."""
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={CALLS}", *traced, sys.executable, "-c", CHILD, str(path)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def points(log: Path) -> list[tuple[str, int]]:
    """The calls after the word `now`, each with its number among those of its name: where a kill can come."""
    seen: dict[str, int] = {}
    found = []
    begun = False
    for line in log.read_text().splitlines():
        name = line.split(None, 1)[1].split("(", 1)[0]
        if name not in CALLS.split(","):
            continue
        seen[name] = seen.get(name, 0) + 1
        if begun:
            found.append((name, seen[name]))
        begun = begun or '"now\\n"' in line
    return found


def test_a_kill_at_any_write_leaves_the_old_format_or_the_new_one(tmp_path: Path) -> None:
    newest = max(STEPS)
    made = tmp_path / "made.db"
    make_old(made, 1)
    tried = tmp_path / "tried.db"
    shutil.copy(made, tried)
    assert bring_up(tried, (), tmp_path / "log") == 0
    where = points(tmp_path / "log")
    assert len(where) >= 5
    seen: list[int] = []
    for name, number in where:
        for old in tmp_path.glob("tried.db*"):
            old.unlink()
        shutil.copy(made, tried)
        code = bring_up(tried, ("-e", f"inject={name}:signal=KILL:when={number}"), tmp_path / "again")
        assert code == -9, f"{name} {number}: {code}"
        with sqlite3.connect(tried) as connection:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            columns = {row[1] for row in connection.execute("PRAGMA table_info(object)")}
        connection.close()
        assert found in (1, newest), f"{name} {number}"
        assert ("sum" in columns) == (found == newest), f"{name} {number}"
        seen.append(found)
        store = open_store(tried, create=False)
        assert store is not None
        assert [obj.name for obj in store.list(Kind.VOLUME)] == sorted(NAMES)
        assert store.get(Key(Kind.VOLUME, "v7")) is not None
        store.close()
        assert mend(tried, SystemClock()) is None
    assert set(seen) == {1, newest}, "kills came before and after the commit"
    print(f"{len(where)} points: {seen.count(1)} left the old format, {seen.count(newest)} the new one")
