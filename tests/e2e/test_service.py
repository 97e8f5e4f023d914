"""The agent as a service: a real systemd runs it from the unit that `agent install` writes."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from core.runtime.spec import DEFAULT_CAPABILITIES
from reconciler.store.sqlite_schema import APPLICATION_ID
from tests import systemd
from tests.conftest import COMMAND
from tests.e2e.workloads import document, eventually
from tests.registry import Registry
from tests.systemd import Machine

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(systemd.lacking()), reason=systemd.lacking())]

UNIT: Final = "reconciler.service"
DROP_IN: Final = Path(f"/etc/systemd/system/{UNIT}.d/test.conf")


class Home:
    """A machine with systemd on which the agent is installed."""

    def __init__(self, machine: Machine, registry: Registry) -> None:
        self.machine = machine
        self.registry = registry

    def cli(self, *words: str, timeout: float = 60) -> str:
        """A command that must succeed; what it said."""
        return self.machine.must(COMMAND, *words, timeout=timeout)

    def apply(self, *documents: Mapping[str, Any]) -> str:
        """Apply these documents on the machine."""
        self.machine.write("/all.yaml", "\n---\n".join(map(json.dumps, documents)))
        return self.cli("apply", "-f", "/all.yaml")

    def container(self, name: str, **spec: Any) -> dict[str, Any]:
        """A container of busybox that sleeps."""
        image = f"{self.registry.host}/busybox:latest"
        whole = {"image": image, "network": {"mode": "none"}, "command": ["sleep", "100000"]}
        return document("Container", name, {**whole, "stop": {"signal": "KILL"}, **spec})

    def process(self, name: str) -> tuple[int, str]:
        """Pid on the machine and start time of a container's first process, which must run."""
        status = json.loads(self.cli("get", "container", name, "-o", "json"))["status"]
        pid = int(status["pid"])
        line = self.machine.must("cat", f"/proc/{pid}/stat")
        return pid, line.rpartition(")")[2].split()[19]

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        lines = self.machine.must("systemctl", "show", UNIT, "-p", ",".join(names)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def agent(self) -> int:
        """The agent's pid on the machine, once it is ready."""

        def ready() -> int:
            seen = self.show("ActiveState", "SubState", "MainPID")
            return int(seen["MainPID"]) if (seen["ActiveState"], seen["SubState"]) == ("active", "running") else 0

        found = eventually(ready, "the agent is ready", 60)
        assert isinstance(found, int)
        return found

    def ready(self, *names: str) -> None:
        """Wait until these containers are ready."""
        for name in names:
            self.cli("wait", f"container/{name}", "--for", "Ready", "--timeout", "60s")


@pytest.fixture(scope="module")
def home(registry: Registry) -> Iterator[Home]:
    with systemd.machine() as machine:
        made = Home(machine, registry)
        said = made.cli("agent", "install")
        assert f"/etc/systemd/system/{UNIT}: written" in said
        assert f"{UNIT}: the agent runs as pid " in said
        made.apply(made.container("one"), made.container("two", resources={"memory": "64Mi"}))
        yield made


def test_a_container_has_all_that_the_default_profile_gives_it(home: Home) -> None:
    pid, _ = home.process("one")
    status = dict(line.split(":\t", 1) for line in home.machine.must("cat", f"/proc/{pid}/status").splitlines())
    assert int(status["CapBnd"], 16).bit_count() == len(DEFAULT_CAPABILITIES)
    agent = home.machine.must("cat", f"/proc/{home.agent()}/status")
    assert "NoNewPrivs:\t0" in agent
    assert "Seccomp:\t2" in agent
    assert home.machine.must("cat", f"/proc/{pid}/oom_score_adj").strip() == "0"


def test_the_unit_keeps_reboot_swap_and_modules_from_agent_and_containers_alike(home: Home) -> None:
    bounding = int(home.machine.must("sh", "-c", f"sed -n 's/^CapBnd:.//p' /proc/{home.agent()}/status"), 16)
    assert bounding >> 16 & 1 == 0, "CAP_SYS_MODULE"
    assert bounding >> 22 & 1 == 0, "CAP_SYS_BOOT"
    assert bounding >> 21 & 1 == 1, "CAP_SYS_ADMIN"
    home.apply(home.container("bold", security={"capabilities": {"add": ["ALL"]}}))
    pid, _ = home.process("bold")
    line = home.machine.must("sh", "-c", f"sed -n 's/^CapBnd:.//p' /proc/{pid}/status")
    assert int(line, 16) == bounding
    refused = home.machine.run(COMMAND, "exec", "bold", "--", "reboot", "-f")
    assert home.process("bold")[0] == pid, refused.stderr
    home.cli("delete", "container/bold")


def test_the_agent_sees_the_mounts_of_pid_1(home: Home) -> None:
    spaces = [home.machine.must("readlink", f"/proc/{pid}/ns/mnt") for pid in (1, home.agent())]
    assert spaces[0] == spaces[1]


def test_systemctl_tells_how_many_objects_there_are(home: Home) -> None:
    home.agent()
    home.machine.must("systemctl", "restart", UNIT)
    assert eventually(lambda: "objects" in (said := home.show("StatusText")["StatusText"]) and said, "a status")


def test_a_killed_agent_is_started_again_and_no_container_notices(home: Home) -> None:
    before, agent = (home.process("one"), home.process("two")), home.agent()
    home.machine.must("systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT)
    eventually(lambda: home.agent() != agent, "another agent", 30)
    home.ready("one", "two")
    assert (home.process("one"), home.process("two")) == before


def test_stopping_the_service_stops_no_container(home: Home) -> None:
    before = home.process("one")
    home.machine.must("systemctl", "stop", UNIT)
    assert home.show("ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert home.process("one") == before
    home.machine.must("systemctl", "start", UNIT)
    home.ready("one")
    assert home.process("one") == before


def test_installing_again_starts_the_agent_anew_and_touches_no_container(home: Home) -> None:
    before, agent = home.process("one"), home.agent()
    said = home.cli("agent", "install")
    assert f"/etc/systemd/system/{UNIT}: is right already" in said
    assert home.agent() != agent
    home.ready("one")
    assert home.process("one") == before
    dry = home.cli("agent", "install", "--dry-run")
    assert dry.startswith("is right already: /etc/systemd/system/reconciler.service\n")


def test_an_agent_that_hangs_is_ended_by_the_watchdog_and_no_container_notices(home: Home) -> None:
    before = home.process("one")
    home.machine.write(DROP_IN, "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\nRestartSec=100ms\n")
    home.machine.must("systemctl", "daemon-reload")
    home.machine.must("systemctl", "restart", UNIT)
    agent = home.agent()
    first = home.show("WatchdogTimestampMonotonic")
    eventually(lambda: home.show("WatchdogTimestampMonotonic") != first, "a sign of life", 10)
    assert home.agent() == agent
    home.machine.must("kill", "-STOP", str(agent))
    eventually(lambda: int(home.show("NRestarts")["NRestarts"]) > 0, "the watchdog ends it", 20)
    assert home.agent() != agent
    home.ready("one")
    assert home.process("one") == before
    home.machine.must("rm", str(DROP_IN))
    home.machine.must("systemctl", "daemon-reload")


def test_an_agent_that_cannot_start_is_told_of_with_its_own_words(home: Home) -> None:
    home.machine.must("mkdir", "-p", "/var/lib/reconciler/other")
    with sqlite3.connect(home.machine.folder / "lib/other/store.db") as store:
        store.execute("PRAGMA user_version = 99")
        store.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    done = home.machine.run(
        *(COMMAND, "--root", "/var/lib/reconciler/other", "--state", "/run/other", "agent", "install")
    )
    assert done.returncode == 1
    assert "error: failed: the agent does not start: not supported: the store is of format 99, " in done.stderr
    assert "journalctl -u reconciler-" in done.stderr


def test_after_a_reboot_everything_runs_that_ran_before(home: Home, registry: Registry) -> None:
    home.machine.halt()
    home.machine.boot()
    home.agent()
    home.ready("one", "two")
    assert home.process("one")[0] > 0
