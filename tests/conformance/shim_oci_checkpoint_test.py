"""runc writes a task down and takes it up again by CRIU, as every Shim that can; it skips where CRIU does not work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups, fsio
from core.errors import Unsupported
from core.runtime.ports import Checkpointing, TaskPhase
from tests.conformance.checkpoint_contract import COUNTING, CheckpointContract, CheckpointGround, able, numbers
from tests.conformance.shim_contract import eventually, running
from tests.conformance.shim_ground import make_root, skip_unless_possible

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[CheckpointGround]:
    ground = CheckpointGround(tmp_path, root)
    yield ground
    ground.end()


class TestRuncsCheckpoints(CheckpointContract):
    """The suite."""


def test_a_task_goes_on_after_a_checkpoint_that_is_not_to_end_it(ground: CheckpointGround, tmp_path: Path) -> None:
    able(ground.shim, ending=False)
    shim = running(ground, "sh", "-c", COUNTING, id="before")
    eventually(lambda: len(numbers(ground, "before")) > 3)
    folder = fsio.make_private(tmp_path / "image")
    able(shim).checkpoint("before", folder)
    assert shim.state("before").phase is TaskPhase.RUNNING
    last = numbers(ground, "before")[-1]
    eventually(lambda: numbers(ground, "before")[-1] > last)
    shim.delete("before")
    ground.shim.prepare(ground.task("sh", "-c", COUNTING, id="after"))
    able(ground.shim).restore("after", folder)
    eventually(lambda: len(numbers(ground, "after")) > 1)
    assert 3 < numbers(ground, "after")[0] <= last + 1


def test_several_processes_are_taken_up_again_in_the_groups_of_the_task(
    ground: CheckpointGround, tmp_path: Path
) -> None:
    able(ground.shim)
    shim = running(ground, "sh", "-c", "sleep 1000 & sleep 1000 & wait", id="before")
    eventually(lambda: len(shim.pids("before")) == 3)
    folder = fsio.make_private(tmp_path / "image")
    able(shim).checkpoint("before", folder, ending=True)
    shim.prepare(ground.task("sh", "-c", "sleep 1000 & sleep 1000 & wait", id="after"))
    able(shim).restore("after", folder)
    first = shim.state("after").pid
    assert first is not None
    assert cgroups.left_behind(first.pid, f"{ground.group}/box/after", ground.found) == ""
    assert len(shim.pids("after")) == 3
    assert not set(shim.pids("after")) & set(cgroups.members(ground.helpers))


def test_where_criu_is_of_no_use_it_is_said_why_and_the_task_goes_on(ground: CheckpointGround, tmp_path: Path) -> None:
    shim = running(ground, id="still")
    assert isinstance(shim, Checkpointing)
    why = shim.why_no_checkpoint(ending=True)
    if not why:
        pytest.skip("CRIU works here")
    assert ("criu check" in why) if shutil.which("criu") else ("criu is not on this node" in why)
    with pytest.raises(Unsupported, match="criu"):
        shim.checkpoint("still", tmp_path, ending=True)
    assert shim.state("still").phase is TaskPhase.RUNNING
    shim.prepare(ground.task("sleep", "1000", id="after"))
    with pytest.raises(Unsupported, match="criu"):
        shim.restore("after", tmp_path)
    assert shim.state("after").phase is TaskPhase.HALF_MADE
