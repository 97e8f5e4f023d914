"""A shim that is spoken to over gRPC: the suite of every Shim, with each version of the task service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.runtime.ports import ExecSpec, TaskPhase
from core.runtime.shimv2 import bootstrap
from tests.conformance.shim_contract import ShimContract, eventually, run, running
from tests.conformance.shim_ground import make_root
from tests.conformance.shim_played_ground import PlayedGround, skip_without_shim

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_shim()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[PlayedGround]:
    ground = PlayedGround(tmp_path, root, "--protocol", "grpc")
    yield ground
    ground.end()


@pytest.mark.soak
class TestShimOverGrpc(ShimContract):
    """The suite, with nothing of its own."""


def test_a_task_lives_and_dies_over_grpc(ground: PlayedGround) -> None:
    shim = running(ground, "sh", "-c", "echo up; trap 'exit 3' TERM; while :; do sleep 0.05; done")
    assert bootstrap.kept(ground.state / "bundles/one").protocol == "grpc"
    eventually(lambda: b"up" in ground.task("x").log.read_bytes())
    assert shim.exec("one", ExecSpec(["sh", "-c", "exit 7"])) == 7
    assert shim.ask("one", ["sh", "-c", "echo because; exit 4"], 10) == (4, "because")
    shim.pause("one")
    assert shim.state("one").phase is TaskPhase.PAUSED
    shim.resume("one")
    assert len(shim.pids("one")) >= 1
    assert ground.again().connect("one") == shim.state("one")
    shim.kill("one", 15)
    exit = shim.wait("one", 10)
    assert exit is not None
    assert exit.code == 3
    shim.delete("one")
    assert {call.split("/")[0] for call in ground.asked()} == {"containerd.task.v3.Task", "delete"}


@pytest.mark.parametrize("protocol", ["ttrpc", "grpc"])
def test_a_shim_with_the_older_task_service_is_spoken_to_by_that(tmp_path: Path, root: Path, protocol: str) -> None:
    ground = PlayedGround(tmp_path, root, "--protocol", protocol, "--says", "3", "--has", "2")
    assert run(ground, "sh", "-c", "exit 5").code == 5
    asked = ground.asked()
    ground.end()
    assert "containerd.task.v2.Task/Start" in asked
