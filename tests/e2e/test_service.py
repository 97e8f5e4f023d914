"""The agent as a service: a real systemd runs it from the unit that `agent install` writes."""

import json
import re
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


def test_a_reload_takes_a_drop_in_up_and_nothing_is_started_anew(home: Home) -> None:
    before = (home.agent(), home.process("one"))
    home.machine.write("/etc/reconciler/conf.d/site.yaml", "version: 2\nnode: {labels: {site: lyon}}\n")
    home.machine.must("systemctl", "reload", UNIT)
    (node,) = json.loads(home.cli("get", "nodes", "-o", "json"))["items"]
    assert node["metadata"]["labels"] == {"site": "lyon"}
    assert node["spec"]["config"]["node"]["labels"] == {"site": "lyon"}
    home.machine.must("rm", "/etc/reconciler/conf.d/site.yaml")
    home.machine.must("systemctl", "reload", UNIT)
    assert (home.agent(), home.process("one")) == before


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
    (unit,) = re.findall(r"journalctl -u (reconciler-\w+[.]service)", done.stderr)
    home.machine.must("systemctl", "disable", "--now", unit)


def test_after_a_reboot_everything_runs_that_ran_before(home: Home, registry: Registry) -> None:
    home.machine.halt()
    home.machine.boot()
    home.agent()
    home.ready("one", "two")
    assert home.process("one")[0] > 0


def test_uninstalling_wants_to_be_told_what_becomes_of_data(home: Home) -> None:
    keeps = home.container("keeps", command=["sh", "-c", "echo precious > /d/file; sleep 100000"])
    keeps["spec"]["mounts"] = [{"path": "/d", "volume": "data"}]
    shared = document("Sandbox", "shared", {"runtime": "runc", "network": {"mode": "none"}})
    inside = home.container("inside", sandbox="shared")
    del inside["spec"]["network"]
    home.apply(
        document("Volume", "data", {}), document("Secret", "s", {"stringData": {"k": "v"}}), shared, keeps, inside
    )
    eventually(lambda: home.machine.run("test", "-e", "/var/lib/reconciler/volumes/data/file").returncode == 0, "data")
    before = home.process("keeps")
    done = home.machine.run(COMMAND, "agent", "uninstall")
    assert done.returncode == 1
    assert "error: denied: there is data in 1 volume (data): nothing was removed\n" in done.stderr
    assert "--keep-volumes" in done.stderr
    assert home.process("keeps") == before
    assert home.agent() > 0


def nothing_is_left(home: Home, pids: list[int]) -> None:
    """Neither unit, nor process, mount, control group, network namespace or state."""
    machine = home.machine
    assert machine.run("systemctl", "cat", UNIT).returncode != 0
    assert [pid for pid in pids if machine.run("test", "-e", f"/proc/{pid}").returncode == 0] == []
    mounts = [line.split()[4] for line in machine.must("cat", "/proc/self/mountinfo").splitlines()]
    ours = ("/var/lib/reconciler/", "/run/reconciler")
    assert [mount for mount in mounts if mount.startswith(ours)] == []
    assert machine.groups() == []
    assert machine.run("test", "-e", "/run/reconciler").returncode != 0
    assert "conmon" not in machine.must("ps", "-eo", "comm=")


def test_uninstalling_leaves_the_volumes_if_told_to_and_else_nothing(home: Home) -> None:
    pids = [home.agent(), *(home.process(name)[0] for name in ("one", "two", "keeps", "inside"))]
    said = home.cli("agent", "uninstall", "--keep-volumes")
    assert "/etc/systemd/system/reconciler.service: stopped and removed\n" in said
    assert "/var/lib/reconciler/volumes: kept\n" in said
    nothing_is_left(home, pids)
    assert home.machine.must("ls", "-A", "/var/lib/reconciler").split() == ["other", "volumes"]
    assert home.machine.must("cat", "/var/lib/reconciler/volumes/data/file") == "precious\n"


def test_what_was_kept_is_there_again_after_a_new_install_and_goes_with_it_if_told_to(home: Home) -> None:
    home.cli("agent", "install")
    look = home.container("look", command=["sh", "-c", "cat /d/file; sleep 100000"])
    look["spec"]["mounts"] = [{"path": "/d", "volume": "data"}]
    home.apply(document("Volume", "data", {}), look)
    assert eventually(lambda: home.cli("logs", "look"), "its words") == "precious\n"
    pids = [home.agent(), home.process("look")[0]]
    home.machine.must("rm", "-r", "/var/lib/reconciler/other")
    home.machine.write("/var/lib/reconciler/mine", "a file of mine")
    said = home.cli("agent", "uninstall", "--yes")
    assert "/var/lib/reconciler/mine: not ours, left alone\n" in said
    assert "/run/reconciler: removed\n" in said
    nothing_is_left(home, pids)
    assert home.machine.must("ls", "-A", "/var/lib/reconciler").split() == ["mine"]
    again = home.cli("agent", "uninstall", "--yes")
    assert "/var/lib/reconciler: stays\n" in again


def test_uninstalling_takes_down_what_no_store_remembers(home: Home) -> None:
    home.apply(home.container("lost"))
    pid, _ = home.process("lost")
    home.machine.must("sh", "-c", "rm -rf /var/lib/reconciler/store.db* /var/lib/reconciler/applied")
    home.cli("agent", "uninstall", "--yes")
    nothing_is_left(home, [pid])
