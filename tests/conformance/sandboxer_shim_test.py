"""Sandboxes by a shim's own sandbox service: the suite of every Sandboxer, and tasks that share a sandbox's shim."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import mounts, proc
from core.clock import SystemClock
from core.errors import AgentError, Unsupported
from core.process import Launcher
from core.runtime.drivers import Ground, build_table
from core.runtime.ports import ExecSpec, MonitorLost, NewTask, SandboxPhase, SandboxState, TaskPhase
from core.runtime.shimv2.sandboxes import ShimSandboxer
from core.runtime.table import RuntimeSpec
from tests.conformance.sandboxer_contract import SandboxerContract, wanted
from tests.conformance.shim_contract import ShimContract, eventually, said
from tests.conformance.shim_ground import make_root
from tests.conformance.shim_played_ground import PlayedGround, skip_without_shim
from tests.killing import killed_in_a_call

pytestmark = pytest.mark.root
PROTOCOLS = ("ttrpc", "grpc")


class ShimYard:
    """One instance's sandboxes, beside its tasks."""

    def __init__(self, ground: PlayedGround) -> None:
        self.ground = ground
        self.boxer = self.again()

    def again(self) -> ShimSandboxer:
        """The driver of a new engine."""
        ground = self.ground
        launcher = Launcher(ground.helpers)
        return ShimSandboxer(ground.state, ground.group, launcher, SystemClock(), ground.boot, ground.program)

    def shim(self, id: str = "box") -> proc.ProcessId:
        """The process of a sandbox's shim."""
        pid = self.boxer.status(id).pid
        assert pid is not None
        return pid

    def end(self) -> None:
        """Remove all, and see that all is gone."""
        for id in list(self.ground.shim.tasks()):
            self.ground.shim.delete(id)
        for id in list(self.boxer.sandboxes()):
            self.boxer.shutdown(id)
        assert list((self.ground.state / "netns").iterdir()) == []
        assert proc.mounts(str(self.ground.state)) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_shim()
    return make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def protocol() -> str:
    return "grpc"


@pytest.fixture
def plays() -> tuple[str, ...]:
    return ("--sandboxes",)


@pytest.fixture
def yard(tmp_path: Path, root: Path, protocol: str, plays: tuple[str, ...]) -> Iterator[ShimYard]:
    ground = PlayedGround(tmp_path, root, "--protocol", protocol, *plays, sandbox="service")
    yard = ShimYard(ground)
    try:
        yield yard
        yard.end()
    finally:
        mounts.detach_below(ground.state)
        ground.end()


class SharedGround(PlayedGround):
    """Tasks that all are in the one sandbox `box`."""

    box: SandboxState

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask:
        """In the sandbox."""
        joined = {"namespaces": self.box.namespaces, "files": self.box.files, **wanted}
        return super().task(*args, id=id, **joined)


@pytest.fixture
def ground(tmp_path: Path, root: Path) -> Iterator[SharedGround]:
    ground = SharedGround(tmp_path, root, "--protocol", "grpc", "--sandboxes", sandbox="service")
    yard = ShimYard(ground)
    ground.box = yard.boxer.create(wanted())
    yard.boxer.start("box")
    try:
        yield ground
        yard.end()
    finally:
        mounts.detach_below(ground.state)
        ground.end()


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestSandboxesOfAShim(SandboxerContract):
    """The suite."""


@pytest.mark.soak
class TestTasksInASandboxOfAShim(ShimContract):
    """The suite of every Shim, with all tasks in one sandbox's shim."""


def begin(yard: ShimYard, id: str, *args: str, box: str = "box") -> None:
    """A task that goes on in a sandbox."""
    state, shim = yard.boxer.status(box), yard.ground.shim
    task = yard.ground.task(
        *(args or ("sleep", "1000")), id=id, namespaces=state.namespaces, files=state.files, sandbox=box
    )
    shim.prepare(task)
    shim.create(id)
    shim.start(id)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_tasks_of_a_sandbox_go_to_its_one_shim(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE, "its network comes before its shim"
    yard.boxer.start("box")
    begin(yard, "one")
    begin(yard, "two")
    shim = yard.ground.shim
    started = [line for line in proc.command_lines(yard.ground.boot) if b"--serve" in line[1] and _ours(yard, line[1])]
    assert len(started) == 1
    assert (yard.ground.state / "bundles/one/sandbox").read_text() == "box"
    assert yard.boxer.metrics("box").pids == 2
    assert shim.exec("one", ExecSpec(["sh", "-c", "exit 9"])) == 9
    shim.delete("one")
    assert shim.state("two").phase is TaskPhase.RUNNING
    assert yard.shim().alive(yard.ground.boot)
    assert yard.boxer.ping("box")


def _ours(yard: ShimYard, words: frozenset[bytes]) -> bool:
    return str(yard.ground.played).encode() in words


def test_the_shim_is_told_of_the_network_and_the_bundle(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    yard.boxer.start("box")
    order = [call.split("/")[1] for call in yard.ground.asked()]
    assert order == ["Connect", "CreateSandbox", "Platform", "StartSandbox"]
    asked = next(line for line in (yard.ground.played / "asked").read_text().splitlines() if "CreateSandbox" in line)
    told = bytes.fromhex(asked.split()[1])
    assert str(yard.ground.state / "netns/box/network").encode() in told
    assert str(yard.ground.state / "netns/box/shim").encode() in told


def test_a_new_engine_takes_up_sandbox_and_tasks(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    first = yard.boxer.start("box")
    begin(yard, "one")
    before = yard.ground.shim.state("one")
    again = yard.again()
    assert again.status("box") == first
    assert again.start("box") == first
    assert yard.ground.again().connect("one") == before
    assert again.ping("box")


def test_a_shim_that_is_killed_loses_its_sandbox_and_no_other(yard: ShimYard) -> None:
    for box in ("box", "beside"):
        yard.boxer.create(wanted(box))
        yard.boxer.start(box)
    begin(yard, "one")
    begin(yard, "two")
    begin(yard, "other", box="beside")
    yard.shim().signal(signal.SIGKILL)
    for id in ("one", "two"):
        with pytest.raises(MonitorLost):
            yard.ground.shim.wait(id, 10)
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE
    assert not yard.boxer.ping("box")
    assert yard.boxer.wait("box", 5)
    assert yard.ground.shim.state("other").phase is TaskPhase.RUNNING
    yard.ground.shim.delete("one")
    yard.ground.shim.delete("two")
    assert yard.boxer.start("box").phase is SandboxPhase.READY
    begin(yard, "one")
    assert yard.ground.shim.exec("one", ExecSpec(["true"])) == 0


def test_a_shim_that_hangs_is_ended_with_the_first_task_that_must_go(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    yard.boxer.start("box")
    begin(yard, "one")
    hung = yard.shim()
    hung.signal(signal.SIGSTOP)
    assert not yard.boxer.ping("box")
    yard.ground.shim.delete("one")
    assert not hung.alive(yard.ground.boot)
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE


def test_stopping_ends_the_tasks_and_a_start_makes_a_new_shim(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    yard.boxer.start("box")
    begin(yard, "one", "sh", "-c", "echo up; exec sleep 1000")
    log = yard.ground.task("x", id="one").log
    eventually(lambda: b"up" in log.read_bytes())  # before that runc's own first process would take the signal
    first = yard.shim()
    yard.boxer.stop("box", 0.1)
    exit = yard.ground.shim.wait("one", 10)
    assert exit is not None
    assert exit.code == 137
    yard.ground.shim.delete("one")
    assert yard.boxer.start("box").phase is SandboxPhase.READY
    assert yard.shim() != first
    assert not first.alive(yard.ground.boot)


@pytest.mark.parametrize("plays", [()])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shim_without_the_service_is_told_with_what_to_do(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    with pytest.raises(Unsupported, match="no sandbox service") as caught:
        yard.boxer.start("box")
    assert "sandbox: service" in caught.value.hint()
    assert yard.boxer.status("box").phase is SandboxPhase.HALF_MADE
    assert yard.ground.processes() == []


@pytest.mark.parametrize("plays", [("--sandboxes", "--garbage")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shim_that_speaks_nonsense_makes_no_sandbox_and_leaves_nothing(yard: ShimYard) -> None:
    yard.boxer.create(wanted())
    with pytest.raises(AgentError):
        yard.boxer.start("box")
    assert yard.ground.processes() == []
    yard.boxer.shutdown("box")


def test_a_runtime_decides_by_its_option_who_makes_its_sandboxes(yard: ShimYard) -> None:
    ground = yard.ground
    here = Ground(ground.state, ground.group, Launcher(ground.helpers), SystemClock(), ground.boot)
    specs = [RuntimeSpec("plain", "shim", ground.program.program)]
    specs.append(RuntimeSpec("boxed", "shim", ground.program.program, {"sandbox": "service"}))
    table = build_table(here, specs)
    assert not isinstance(table.named("plain").sandboxer, ShimSandboxer)
    boxed = table.named("boxed")
    table.create_sandbox(boxed, wanted())
    boxed.sandboxer.start("box")
    again = build_table(here)
    assert again.sandboxer("box").status("box").phase is SandboxPhase.READY, "made so, it is driven so"
    again.shutdown_sandbox("box")
    assert ground.processes() == []


def test_tasks_of_a_shared_shim_see_what_their_sandbox_gives(yard: ShimYard) -> None:
    yard.boxer.create(wanted(dns_servers=["192.0.2.1"]))
    yard.boxer.start("box")
    state = yard.boxer.status("box")
    joined = {"namespaces": state.namespaces, "files": state.files, "sandbox": "box"}
    assert said(yard.ground, "sh", "-c", "echo x > /dev/shm/x; hostname", **joined) == "tests"
    assert said(yard.ground, "cat", "/dev/shm/x", "/etc/resolv.conf", **joined) == "x\nnameserver 192.0.2.1"


_MAKER = """
import sys
from pathlib import Path
from core import proc
from core.clock import SystemClock
from core.process import Launcher
from core.runtime.shimv2.program import ShimProgram
from core.runtime.shimv2.sandboxes import ShimSandboxer
from tests.conformance.sandboxer_contract import wanted
state, group, helpers, program = sys.argv[1:]
options = {"sandbox": "service"}
launcher, clock = Launcher(Path(helpers)), SystemClock()
boxer = ShimSandboxer(Path(state), group, launcher, clock, proc.boot_id(), ShimProgram(program, options))
print("ready", flush=True)
sys.stdin.readline()
boxer.create(wanted())
boxer.start("box")
boxer.shutdown("box")
print("done", flush=True)
"""


@pytest.mark.parametrize("protocol", ["ttrpc"])
def test_an_engine_killed_anywhere_in_starting_and_ending_is_followed_by_another(yard: ShimYard) -> None:
    ground = yard.ground
    for step in range(5):
        arguments = (ground.state, ground.group, ground.helpers, ground.program.program)
        killed_in_a_call(_MAKER, *arguments, seconds=0.005 + step * 0.1)
        yard.boxer.sweep()
        if step % 2:
            yard.boxer.create(wanted())
            yard.boxer.start("box")
            assert yard.boxer.ping("box")
        yard.boxer.shutdown("box")
        eventually(lambda: ground.processes() == [])
        yard.end()
