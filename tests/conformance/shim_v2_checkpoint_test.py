"""containerd's shim writes a task down and takes it up again by CRIU, as every Shim that can."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import cgroups
from core.clock import SystemClock
from core.process import Launcher
from core.runtime.shimv2.driver import ShimV2
from core.runtime.shimv2.program import ShimProgram
from tests.conformance.checkpoint_contract import CheckpointContract, CheckpointGround
from tests.conformance.shim_ground import make_root, skip_unless_possible
from tests.conformance.shim_v2_test import SHIM

pytestmark = pytest.mark.root


class ShimCheckpointGround(CheckpointGround):
    """The ground of OCI runtimes, with a shim's driver on it."""

    shim: ShimV2  # type: ignore[assignment]  # in place of the other driver

    def again(self) -> ShimV2:  # type: ignore[override]  # in place of the other driver
        """The driver of a new engine."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        program = ShimProgram(SHIM)
        return ShimV2(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, program)

    def leftovers(self) -> list[str]:
        """As for OCI runtimes."""
        (self.state / self.tools.own_folder).mkdir(exist_ok=True)
        return super().leftovers()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    if shutil.which(SHIM) is None:
        pytest.skip(f"not installed: {SHIM}")
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[ShimCheckpointGround]:
    ground = ShimCheckpointGround(tmp_path, root)
    yield ground
    ground.end()


class TestShimsCheckpoints(CheckpointContract):
    """The suite, with nothing of its own."""
