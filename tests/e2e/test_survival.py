"""What lives on when the agent, a monitor or a container is killed, stopped or started twice; and a reboot offline.

The program of each container notes its start in a file of the node, so that a start too many is seen; one named
`waits` ends with code 7 as soon as the file `go` is there.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from reconciler.model.identity import Key, Kind
from tests.conftest import Node
from tests.crash.checker import start_time
from tests.crash.ground import Ground, ground
from tests.figures import Figure
from tests.registry import Registry, push_all

pytestmark = [pytest.mark.root, pytest.mark.slow]

T = TypeVar("T")
TOP = Path(__file__).parents[2]
LONG = 'trap "exit 0" TERM; echo $NAME >> /notes/starts; while :; do sleep 1000 & wait $!; done'
WAITS = "echo $NAME >> /notes/starts; while [ ! -e /notes/go ]; do sleep 0.02; done; exit 7"


def eventually(look: Callable[[], T], seconds: float = 30) -> T:
    """The first true answer; fails with the last one."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s; last seen: {answer!r}"
        time.sleep(0.02)
    return answer


class Home:
    """A node with some containers on it."""

    def __init__(self, made: Ground) -> None:
        self.ground = made
        self.notes = made.place.folder / "notes"

    def write(self, programs: Mapping[str, str], **spec: Any) -> None:
        """A manifest of these containers, name → program."""
        items = [("Image", "busybox", {"ref": f"{self.ground.host}/busybox:latest"})]
        for name, program in programs.items():
            mine = {
                "image": "busybox",
                "network": {"mode": "none"},
                "command": ["sh", "-c", program],
                "env": [{"name": "NAME", "value": name}],
                "mounts": [{"path": "/notes", "bind": {"source": str(self.notes), "create": True}}],
                **spec,
            }
            items.append(("Container", name, mine))
        documents = [
            {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
            for kind, name, spec in items
        ]
        self.ground.manifest.write_text("\n---\n".join(map(json.dumps, documents)))

    def status(self, name: str) -> Mapping[str, Any]:
        """A container's status as the store has it."""
        obj = self.ground.store.get(Key(Kind.CONTAINER, name))
        assert obj is not None
        return obj.status

    def process(self, name: str) -> tuple[int, int]:
        """Pid and start time of a running container's first process; fails when it does not run."""
        pid = int(self.status(name)["pid"])
        began = start_time(pid)
        assert began is not None, f"{name}: process {pid} is gone"
        return pid, began

    def monitor(self, name: str) -> int:
        """The pid of a container's monitor."""
        (bundle,) = (self.ground.node.state / "bundles").glob(f"{name}-*")
        return int((bundle / "monitor.pid").read_text())

    def starts(self, name: str) -> int:
        """How often the container's program has begun."""
        path = self.notes / "starts"
        return path.read_text().split().count(name) if path.exists() else 0

    def reasons(self) -> list[str]:
        """The reasons of all events."""
        return [event.reason for event in self.ground.store.events()]


@pytest.fixture
def home(node: Node, registry: Registry) -> Iterator[Home]:
    with ground(node, registry.host) as made:
        yield Home(made)
        made.stop_agent()
        assert node.cli("delete", "--set", "crash").returncode == 0


def test_a_container_survives_kills_and_stops_of_the_agent_and_its_exit_is_known_afterwards(home: Home) -> None:
    home.write({"long": LONG, "waits": WAITS}, restart={"policy": "Never"})
    home.ground.start_agent()
    home.ground.apply()
    long, waits = home.process("long"), home.process("waits")
    home.ground.kill_agent()
    home.ground.start_agent()
    assert home.process("long") == long
    home.ground.stop_agent()
    assert start_time(long[0]) == long[1]
    (home.notes / "go").touch()
    eventually(lambda: start_time(waits[0]) is None)
    home.ground.start_agent()
    eventually(lambda: home.status("waits")["state"] == "Exited")
    assert home.status("waits")["exitCode"] == 7
    assert home.process("long") == long
    assert home.status("long")["restarts"] == 0
    assert (home.starts("long"), home.starts("waits")) == (1, 1)


def test_an_agent_and_an_apply_started_at_one_moment_both_do_their_job(home: Home) -> None:
    draw = random.Random(2)
    for number in range(10):
        offset = draw.uniform(-0.6, 0.6)
        home.write({"one": LONG, "two": LONG}, workingDir=f"/tmp/{number}")
        home.notes.joinpath("starts").unlink(missing_ok=True)
        time.sleep(0.05)
        if offset < 0:
            agent = home.ground.node.spawn("agent")
            time.sleep(-offset)
        applying = home.ground.node.spawn(*home.ground.apply_words)
        if offset >= 0:
            time.sleep(offset)
            agent = home.ground.node.spawn("agent")
        assert applying.wait(60) == 0, f"offset {offset:.3f}"
        holder = home.ground.node.state / "engine.lock"
        eventually(lambda: f'"pid": {agent.pid},' in holder.read_text())  # noqa: B023 - asked before the next round
        assert agent.poll() is None, f"offset {offset:.3f}"
        home.process("one"), home.process("two")
        assert (home.starts("one"), home.starts("two")) == (1, 1), f"offset {offset:.3f}"
        home.ground.agent = agent
        home.ground.stop_agent()


def test_a_second_agent_ends_in_two_seconds_and_names_the_first(home: Home) -> None:
    home.write({"one": LONG})
    home.ground.start_agent()
    home.ground.apply()
    assert home.ground.agent is not None
    version = home.ground.store.version()
    began = time.monotonic()
    second = home.ground.node.cli("agent")
    took = time.monotonic() - began
    assert second.returncode != 0
    assert f"pid {home.ground.agent.pid} " in second.stderr
    assert took < 2.0
    assert home.ground.store.version() == version


def test_killed_monitors_and_containers_are_started_again_once_each(home: Home) -> None:
    home.write({"one": LONG, "two": LONG})
    home.ground.start_agent()
    home.ground.apply()
    one, two = home.process("one"), home.process("two")
    os.kill(home.monitor("one"), signal.SIGKILL)
    os.kill(two[0], signal.SIGKILL)
    for name, before in (("one", one), ("two", two)):
        eventually(lambda: home.status(name).get("pid") not in (None, before[0]))  # noqa: B023 - asked at once
        assert home.status(name)["restarts"] == 1
    assert start_time(one[0]) is None
    assert "MonitorLost" in home.reasons()
    assert home.status("two")["exitCode"] == 137
    assert (home.starts("one"), home.starts("two")) == (2, 2)


def test_an_agent_that_is_stopped_for_five_seconds_does_no_harm(home: Home) -> None:
    home.write({"one": LONG, "two": LONG})
    home.ground.start_agent()
    home.ground.apply()
    one, two = home.process("one"), home.process("two")
    assert home.ground.agent is not None
    home.ground.agent.send_signal(signal.SIGSTOP)
    os.kill(two[0], signal.SIGKILL)
    time.sleep(5)
    home.ground.agent.send_signal(signal.SIGCONT)
    eventually(lambda: home.status("two").get("pid") not in (None, two[0]))
    assert home.process("one") == one
    assert (home.starts("one"), home.starts("two")) == (1, 2)
    assert home.status("two")["restarts"] == 1


def test_fault_12_after_a_reboot_without_any_network_everything_runs_again(
    make_registry: Callable[..., Registry], figure: Figure
) -> None:
    registry = make_registry()
    push_all(registry, ["busybox", "web"])
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.crash.offline"]
    with subprocess.Popen(
        [*command, registry.host], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        registry.stop()
        said, _ = child.communicate("go\n", timeout=180)
        print(said)
        assert child.returncode == 0
    took = re.search(r"all run again ([0-9.]+) s", said)
    assert took is not None
    figure("until all ran again after a reboot with no network", float(took[1]), "s")
