"""From the first issue's last version to this one, and back, with workloads that notice nothing."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from reconciler.store.sqlite_schema import STEPS
from tests import older
from tests.conftest import Node
from tests.crash.checker import start_time
from tests.crash.ground import NAMES, Ground
from tests.e2e.workloads import eventually
from tests.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not older.known(older.FIRST), reason="a shallow checkout: the older version is not in it"),
]
RUNNING: Final = NAMES[2:6]
"""Two in a shared sandbox, two on their own."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return older.unpacked(older.FIRST, tmp_path_factory.mktemp("older"))


class Two:
    """One node, and both versions on it."""

    def __init__(self, node: Node, python: Path, host: str) -> None:
        self.new = Ground(node, host)
        self.old = Ground(older.OlderNode(node.place, python=python), host)

    def want(self, version: str) -> None:
        """Write what is to be, for both."""
        for one in (self.old, self.new):
            one.want(dict.fromkeys(RUNNING, version))

    def processes(self) -> dict[str, tuple[int, int]]:
        """The first process of each container: pid and start time, from the bundles, whatever a store says."""
        found = {}
        for name in RUNNING:
            (bundle,) = (self.new.node.state / "bundles").glob(f"{name}-*")
            pid = int((bundle / "pid").read_text())
            began = start_time(pid)
            assert began is not None, f"{name}: process {pid} is gone"
            found[name] = pid, began
        return found

    def format(self) -> int:
        """The format of the store's file."""
        with sqlite3.connect(f"file:{self.new.node.root}/store.db?mode=ro", uri=True) as connection:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
        connection.close()
        assert isinstance(found, int)
        return found


@pytest.fixture
def two(node: Node, python: Path, registry: Registry) -> Iterator[Two]:
    made = Two(node, python, registry.host)
    try:
        yield made
    finally:
        made.old.node.stop()
        made.new.close()


def test_an_upgrade_touches_no_workload_and_going_back_is_refused(two: Two) -> None:
    two.want("1")
    two.old.start_agent()
    two.old.apply()
    before = two.processes()
    was = two.format()

    assert was < max(STEPS)
    for words in (("get", "all"), ("apply", "--no-wait", "-f", str(two.new.manifest)), ("delete", "volume", "data")):
        early = two.new.node.cli(*words)
        assert early.returncode == 1, "a new command must not touch the store of an old agent"
        assert "is of an older version than this command; nothing was changed" in early.stderr
        assert "reconciler agent install" in early.stderr
    assert two.format() == was
    two.old.stop_agent()

    two.new.start_agent()
    two.new.converged()
    assert two.processes() == before
    assert "nothing to do" in two.new.apply()
    assert two.processes() == before
    assert two.format() == max(STEPS)
    two.new.stop_agent()

    back = two.old.node.cli("agent", "--once")
    refused = two.old.node.cli("get", "all")
    apply = two.old.node.cli(*two.old.apply_words)
    for done in (back, refused, apply):
        assert done.returncode == 1
        assert f"the store is of format {max(STEPS)}, this version knows up to {was}" in done.stderr
        assert "Install the version that wrote it, or a newer one; nothing was changed." in done.stderr
    assert two.processes() == before

    two.new.start_agent()
    two.want("2")
    two.new.apply()
    two.new.converged()
    assert not set(two.processes().values()) & set(before.values())
    two.new.delete_all()


def test_without_an_agent_the_first_new_command_brings_the_store_up(two: Two) -> None:
    two.want("1")
    two.old.apply()
    before = two.processes()
    shown = two.new.node.cli("get", "containers", "-o", "name")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split() == [f"container/{name}" for name in RUNNING]
    assert two.format() == max(STEPS)
    assert "nothing to do" in two.new.apply()
    assert two.processes() == before
    two.new.delete_all()


@pytest.mark.parametrize("seed", range(2))
def test_an_upgrade_in_the_middle_of_an_apply_ends_where_it_should(two: Two, seed: int) -> None:
    draw = random.Random(seed)
    two.want("1")
    two.old.start_agent()
    two.old.apply()
    two.want("2")
    ledger = two.old.ledger / "starts"
    begun = len(RUNNING) + draw.randrange(len(RUNNING))
    done = two.old.node.cli("apply", "--no-wait", "-f", two.old.manifest, "--set", "crash")
    assert done.returncode == 0, done.stderr
    eventually(lambda: len(ledger.read_text().splitlines()) >= begun, "so many of the second version run", 60)
    two.old.kill_agent()
    two.new.start_agent()
    two.new.converged()
    two.new.delete_all()
