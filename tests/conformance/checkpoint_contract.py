"""What every Shim promises that can write a task down and take it up again: one suite, with a `ground` that has it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from core import fsio
from core.clock import SystemClock
from core.errors import AgentError
from core.runtime import logs
from core.runtime.ports import Checkpointing, ExecSpec, IllegalMove, NewSandbox, NewTask, Shim, TaskPhase
from core.runtime.sandboxes import OciSandboxer
from tests.conformance.shim_contract import eventually, running
from tests.conformance.shim_ground import OciGround

COUNTING: Final = """
exec 7>>/data/held
n=0
while :; do n=$((n+1)); echo $n; echo $n >&7; echo $n >/data/new; mv /data/new /data/last; sleep 0.05; done
"""
"""Counts in a variable of its own, into its output, an open file, and a file that is made each time."""


class CheckpointGround(OciGround):
    """Tasks in a sandbox with a network of its own, as they always are on a node."""

    def open(self, state: Path, root: Path, logs: Path, runtime: str = "runc") -> None:
        super().open(state, root, logs, runtime)
        self.box = OciSandboxer(self.state, self.group, SystemClock(), self.boot)
        self.namespaces = self.box.create(NewSandbox("box", {}, "none", "box")).namespaces

    def task(self, *args: str, id: str = "still", **wanted: object) -> NewTask:
        """As before, in the sandbox."""
        return super().task(*args, id=id, namespaces=self.namespaces, **wanted)

    def end(self) -> None:
        try:
            for id in list(self.shim.tasks()):
                self.shim.delete(id)
            self.box.shutdown("box")
        finally:
            super().end()


def able(shim: Shim, *, ending: bool = True) -> Checkpointing:
    """The driver with its checkpoints; skips with its own words where it has none here."""
    assert isinstance(shim, Checkpointing)
    if why := shim.why_no_checkpoint(ending=ending):
        pytest.skip(why)
    return shim


def numbers(ground: OciGround, id: str) -> list[int]:
    """What a counting task has said."""
    log = ground.task("x", id=id).log
    return [int(line.text) for line in logs.read(log)] if log.exists() else []


@contextmanager
def counted(ground: OciGround, tmp_path: Path, id: str = "before") -> Iterator[tuple[Checkpointing, Path, int]]:
    """A counting task that was written down and has ended: the driver, the folder, and how far it had come."""
    for name in ("held", "last"):
        (ground.root / "data" / name).unlink(missing_ok=True)
    able(ground.shim)
    shim = running(ground, "sh", "-c", COUNTING, id=id)
    checkpoints = able(shim)
    eventually(lambda: len(numbers(ground, id)) > 3)
    folder = fsio.make_private(tmp_path / "image")
    checkpoints.checkpoint(id, folder, ending=True)
    yield checkpoints, folder, numbers(ground, id)[-1]


def _said(ground: OciGround, id: str) -> bool:
    return bool(numbers(ground, id))


class CheckpointContract:
    """The suite."""

    def test_a_counter_in_memory_goes_on_counting_where_it_was(self, ground: OciGround, tmp_path: Path) -> None:
        with counted(ground, tmp_path) as (shim, folder, last):
            ground.shim.prepare(ground.task("sh", "-c", COUNTING, id="after"))
            state = shim.restore("after", folder)
            assert state.phase is TaskPhase.RUNNING
            assert state.pid is not None
            assert state.monitor is not None
            eventually(lambda: len(numbers(ground, "after")) > 3)
            assert numbers(ground, "after")[:3] == [last + 1, last + 2, last + 3]

    def test_files_that_it_had_open_go_on_and_those_that_it_wrote_are_there(
        self, ground: OciGround, tmp_path: Path
    ) -> None:
        with counted(ground, tmp_path) as (shim, folder, last):
            held = ground.root / "data/held"
            assert int((ground.root / "data/last").read_text()) in (last - 1, last)
            ground.shim.prepare(ground.task("sh", "-c", COUNTING, id="after"))
            shim.restore("after", folder)
            eventually(lambda: int(held.read_text().split()[-1]) > last + 3)
            found = [int(word) for word in held.read_text().split()]
            assert found == list(range(1, len(found) + 1))
            eventually(lambda: int((ground.root / "data/last").read_text()) > last + 3)

    def test_its_end_by_a_checkpoint_is_recorded_and_it_can_be_deleted(self, ground: OciGround, tmp_path: Path) -> None:
        with counted(ground, tmp_path):
            seen = ground.shim.state("before")
            assert seen.phase is TaskPhase.STOPPED
            assert seen.exit is not None
            assert not seen.exit.oom
            assert ground.shim.delete("before") == seen.exit

    def test_a_restored_task_is_one_like_any_other(self, ground: OciGround, tmp_path: Path) -> None:
        with counted(ground, tmp_path) as (shim, folder, _):
            ground.shim.prepare(ground.task("sh", "-c", COUNTING, id="after"))
            shim.restore("after", folder)
            assert ground.shim.exec("after", ExecSpec(["true"])) == 0
            assert ground.shim.ask("after", ["sh", "-c", "exit 3"], 20)[0] == 3
            assert ground.shim.stats("after").pids >= 1
            assert ground.again().state("after") == ground.shim.state("after")
            ground.shim.pause("after")
            assert ground.shim.state("after").phase is TaskPhase.PAUSED
            ground.shim.resume("after")
            ground.shim.kill("after", signal.SIGKILL)
            exit = ground.shim.wait("after", 20)
            assert exit is not None
            assert exit.code == 137

    def test_what_is_written_down_once_can_be_restored_more_than_once(self, ground: OciGround, tmp_path: Path) -> None:
        with counted(ground, tmp_path) as (shim, folder, last):
            for id in ("after", "again"):
                ground.shim.prepare(ground.task("sh", "-c", COUNTING, id=id))
                shim.restore(id, folder)
                eventually(partial(_said, ground, id))
                assert numbers(ground, id)[0] == last + 1
                ground.shim.delete(id)

    def test_a_task_that_does_not_run_is_not_written_down(self, ground: OciGround, tmp_path: Path) -> None:
        shim = able(ground.shim)
        with pytest.raises(IllegalMove):
            shim.checkpoint("nobody", tmp_path, ending=True)
        ground.shim.prepare(ground.task("sleep", "1000", id="still"))
        ground.shim.create("still")
        with pytest.raises(IllegalMove):
            shim.checkpoint("still", tmp_path, ending=True)
        assert list(tmp_path.glob("image*")) == []

    def test_what_is_cut_off_is_not_restored_and_leaves_what_delete_removes(
        self, ground: OciGround, tmp_path: Path
    ) -> None:
        with counted(ground, tmp_path) as (shim, folder, _):
            for path in folder.rglob("*"):
                with open(path, "r+b") as state:
                    state.truncate(path.stat().st_size // 2)
            ground.shim.prepare(ground.task("sh", "-c", COUNTING, id="after"))
            with pytest.raises(AgentError):
                shim.restore("after", folder)
            assert ground.shim.state("after").phase is TaskPhase.HALF_MADE
            ground.shim.delete("after")
            assert ground.shim.state("after").phase is TaskPhase.ABSENT

    def test_a_task_that_runs_is_not_restored(self, ground: OciGround, tmp_path: Path) -> None:
        with counted(ground, tmp_path) as (shim, folder, _):
            running(ground, id="after")
            with pytest.raises(IllegalMove):
                shim.restore("after", folder)
            assert ground.shim.state("after").phase is TaskPhase.RUNNING
