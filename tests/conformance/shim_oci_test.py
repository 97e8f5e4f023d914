"""runc and crun under conmon pass the suite of every Shim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.shim_contract import ShimContract
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(params=RUNTIMES)
def ground(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[OciGround]:
    ground = OciGround(tmp_path, root, request.param)
    yield ground
    ground.end()


class TestOciRuntimesUnderConmon(ShimContract):
    """The suite, with nothing of its own."""
