"""When the configuration is read again, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.clock import VirtualClock
from reconciler.config import ConfigFiles
from reconciler.engine.standing import Standing
from reconciler.model.config import Config
from reconciler.model.identity import Key
from reconciler.reloading import Engine, Reloader
from reconciler.store.memory import MemoryStore


class Ground:
    """A reloader over a file, and what it did."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.yaml"
        self.write("version: 2\n")
        clock, self.standing = VirtualClock(), Standing()
        self.store = MemoryStore(clock)
        self.taken: list[Config] = []
        self.looked: list[Key] = []
        files = ConfigFiles(str(self.file), folder)
        engine = Engine(self.store, self.standing, self.taken.append, self.looked.append)
        self.reloader = Reloader(files, engine, files.load().config, files.signature(), clock)

    def write(self, text: str) -> None:
        """Another file in its place, so that it is seen however coarse the clock is."""
        (self.file.parent / "new").write_text(text)
        (self.file.parent / "new").rename(self.file)

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.reloader.look()

    def events(self) -> list[tuple[str, str]]:
        return [(one.reason, one.message) for one in self.store.events()]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_what_does_not_change_is_not_read(ground: Ground) -> None:
    ground.look(5)
    assert (ground.taken, ground.events(), ground.looked) == ([], [], [])


def test_a_change_is_read_once_it_is_at_rest(ground: Ground) -> None:
    ground.write("version: 2\ngc: {interval: 5m}\n")
    ground.look(1)
    assert ground.taken == []
    ground.write("version: 2\ngc: {interval: 6m}\n")
    ground.look(1)
    assert ground.taken == [], "it is still being written"
    ground.look(3)
    assert [one.gc.interval for one in ground.taken] == [360.0]
    assert ground.events() == [("ConfigReloaded", "in force: gc.interval")]
    assert ground.standing.files == (str(ground.file),)


def test_a_bad_one_is_refused_once_and_the_good_one_that_follows_is_taken_up(ground: Ground) -> None:
    ground.write("version: 2\ngc: {interval: never, keepRevisions: 4}\n")
    ground.look(5)
    assert ground.taken == []
    assert ground.standing.problem.startswith(f"{ground.file}:2:16: gc.interval: is not a duration")
    assert [reason for reason, _ in ground.events()] == ["ConfigInvalid"]
    ground.write("version: 2\ngc: {keepRevisions: 4}\n")
    ground.look(5)
    assert ground.standing.problem == ""
    assert [one.gc.keep_revisions for one in ground.taken] == [4]


def test_a_file_that_was_named_and_goes_away_is_no_configuration(ground: Ground) -> None:
    ground.write("version: 2\ngc: {keepRevisions: 4}\n")
    ground.look()
    ground.file.unlink()
    ground.look()
    assert "is not there" in ground.standing.problem
    assert len(ground.taken) == 1


def test_what_waits_for_a_restart_is_told_once_and_forgotten_when_it_is_taken_back(ground: Ground) -> None:
    ground.write("version: 2\nroot: /elsewhere\n")
    ground.look()
    ground.reloader.reload()
    assert (ground.taken, ground.standing.waiting) == ([], ("root",))
    assert ground.events() == [("ConfigReloaded", "after a restart of the agent: root")]
    ground.write("version: 2\n")
    ground.look()
    assert ground.standing.waiting == ()


def test_being_told_reads_at_once_also_what_is_the_same(ground: Ground) -> None:
    ground.reloader.reload()
    assert len(ground.looked) == 1
    assert (ground.taken, ground.events()) == ([], [])
    ground.write("version: 2\nnode: {labels: {a: b}}\n")
    ground.reloader.reload()
    assert [one.node.labels for one in ground.taken] == [{"a": "b"}]
    ground.look(3)
    assert len(ground.taken) == 1
