"""gVisor writes a task down and takes it up again, as every Shim that can; on the node's network it says why not."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups
from core.clock import SystemClock
from core.errors import Unsupported
from core.process import Launcher
from core.runtime.gvisor import GvisorShim, LoneGvisorShim
from core.runtime.ports import NewTask, TaskPhase
from tests.conformance.checkpoint_contract import CheckpointContract, CheckpointGround
from tests.conformance.shim_contract import running
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible

pytestmark = pytest.mark.root


class LoneGround(CheckpointGround):
    """An instance whose driver is that of gVisor with a network of its own in each sentry."""

    made: type[GvisorShim] = LoneGvisorShim

    def again(self) -> GvisorShim:
        """The driver of a new engine."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return self.made(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, self.tools.runtime)


class HostGround(LoneGround):
    """With the node's network stack."""

    made = GvisorShim


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    if shutil.which("runsc") is None:
        pytest.skip("not installed: runsc")
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[LoneGround]:
    ground = LoneGround(tmp_path, root, "runsc")
    yield ground
    ground.end()


@pytest.fixture
def on_host(tmp_path: Path, root: Path) -> Iterator[HostGround]:
    ground = HostGround(tmp_path, root, "runsc")
    yield ground
    ground.end()


class TestGvisorsCheckpoints(CheckpointContract):
    """The suite."""


def test_it_cannot_go_on_after_a_checkpoint_and_says_so(ground: LoneGround, tmp_path: Path) -> None:
    shim = running(ground, id="still")
    assert isinstance(shim, LoneGvisorShim)
    with pytest.raises(Unsupported, match="--stop"):
        shim.checkpoint("still", tmp_path)
    assert shim.state("still").phase is TaskPhase.RUNNING


def test_on_the_nodes_network_it_says_why_not_and_the_task_goes_on(on_host: HostGround, tmp_path: Path) -> None:
    shim = running(on_host, id="still")
    assert isinstance(shim, GvisorShim)
    (tmp_path / "image").mkdir()
    with pytest.raises(Unsupported, match="hostinet") as caught:
        shim.checkpoint("still", tmp_path / "image", ending=True)
    assert "network: none" in caught.value.hint()
    assert shim.state("still").phase is TaskPhase.RUNNING


def test_a_network_that_a_task_would_not_see_is_refused(ground: LoneGround) -> None:
    with pytest.raises(Unsupported, match="no network"):
        ground.shim.prepare(of_the_node(ground))


def of_the_node(ground: LoneGround) -> NewTask:
    """A task on the node's own network."""
    return OciGround.task(ground, "true")
