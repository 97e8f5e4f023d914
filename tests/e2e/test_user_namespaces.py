"""Sandboxes whose root is nobody on the node: `userNamespace: {mode: auto}`."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

AUTO = {"mode": "auto"}
RUNTIMES = ("runc", "crun", "runc-v2")


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, whose folder lets users through, as /run does."""
    with stage(registry) as made:
        made.node.place.folder.chmod(0o711)
        yield made


def sandbox(name: str, runtime: str = "runc", **more: object) -> dict[str, object]:
    """A sandbox with users of its own."""
    spec = {"runtime": runtime, "network": {"mode": "none"}, "userNamespace": AUTO, **more}
    return document("Sandbox", name, spec)


def mapped(pid: int) -> int:
    """Where the ids of a process' user namespace begin; 0 in the node's own."""
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_root_inside_is_nobody_on_the_node_and_owns_its_namespaces(st: Stage, runtime: str) -> None:
    name = f"users-{runtime}"
    owner = {"capabilities": {"add": ["SYS_ADMIN"]}}
    st.must_apply(sandbox(name, runtime), st.container(name, "sleep 1000", sandbox=name, security=owner))
    pid = st.pid(name)
    first = mapped(pid)
    assert first >= 0x40000000
    assert os.stat(f"/proc/{pid}").st_uid == first
    assert st.exec(name, "id -u; stat -c %u:%g /bin/busybox /etc; hostname").split() == ["0", "0:0", "0:0", name]
    assert st.exec(name, "hostname changed && hostname") == "changed\n"  # as the owner of that namespace may
    assert st.exec(name, "echo x > /made && stat -c %u:%g /made").strip() == "0:0"


def test_two_sandboxes_have_ranges_that_do_not_overlap(st: Stage) -> None:
    names = [f"apart-{number}" for number in range(4)]
    st.must_apply(*(one for name in names for one in (sandbox(name), st.container(name, "sleep 1000", sandbox=name))))
    firsts = sorted(mapped(st.pid(name)) for name in names)
    assert all(later - earlier >= 65536 for earlier, later in itertools.pairwise(firsts))


def test_volumes_secrets_and_files_have_the_owners_that_they_have_elsewhere(st: Stage) -> None:
    (st.files / "app.conf").write_text("level=1\n")
    mounts = [
        {"path": "/data", "volume": "shifted"},
        {"path": "/keys", "secret": "shifted"},
        {"path": "/app.conf", "file": "app.conf"},
        {"path": "/tmp", "tmpfs": {"size": "1Mi"}},
    ]
    script = "stat -c %u /data /keys/word; cat /keys/word /app.conf; id -u > /data/who; id -u > /tmp/who; sleep 1000"
    st.must_apply(
        document("Volume", "shifted", {"owner": "1000:1000", "mode": "0750"}),
        document("Secret", "shifted", {"stringData": {"word": "hidden\n"}}),
        sandbox("shifted"),
        st.container("shifted", script, sandbox="shifted", user="1000", mounts=mounts),
    )
    wanted = "1000\n1000\nhidden\nlevel=1\n"
    eventually(lambda: st.node.cli("logs", "shifted").stdout == wanted, "it reads what is mounted")
    made = st.node.root / "volumes/shifted/who"
    eventually(lambda: made.exists() and made.read_text() == "1000\n", "it writes")
    assert made.stat().st_uid == 1000


def test_it_goes_on_with_its_range_without_the_agent_and_gets_it_again_with_each_attempt(st: Stage) -> None:
    st.must_apply(sandbox("steady"), st.container("steady", "sleep 1000", sandbox="steady"))
    pid = st.pid("steady")
    first = mapped(pid)
    st.node.running[-1].kill()
    st.node.running[-1].wait()
    st.node.spawn("agent")
    st.must_apply(document("Volume", "after-the-agent", {}))
    assert st.pid("steady") == pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: st.status("container/steady").get("pid") not in (None, pid), "the next attempt runs")
    assert mapped(st.pid("steady")) == first


def test_processes_can_be_shared_too(st: Stage) -> None:
    spec = sandbox("both", shareProcessNamespace=True)
    st.must_apply(spec, st.container("both", "sleep 1000", sandbox="both"))
    first = st.status("sandbox/both")["pid"]
    assert mapped(first) == mapped(st.pid("both")) == os.stat(f"/proc/{first}").st_uid
    assert st.exec("both", "cat /proc/1/comm") == "catatonit\n"


def test_it_has_an_address_on_a_bridge(st: Stage) -> None:
    st.must_apply(
        sandbox("bridged", network={"mode": "bridge"}), st.container("bridged", "sleep 1000", sandbox="bridged")
    )
    assert st.status("sandbox/bridged")["ip"] in st.exec("bridged", "ip -o -4 addr")


def test_what_cannot_be_mapped_is_refused_with_the_reason(st: Stage) -> None:
    mounts = [{"path": "/srv", "bind": {"source": "/sys/kernel"}}]
    st.submit(sandbox("odd"), st.container("odd", "true", sandbox="odd", mounts=mounts))
    eventually(lambda: st.condition("container/odd", "Stalled").get("status") == "True", "it is stalled")
    assert "cannot be mounted with the ids of a user namespace" in st.condition("container/odd", "Stalled")["message"]


def test_the_nodes_network_cannot_be_had_together_with_it(st: Stage) -> None:
    done = st.apply(sandbox("hosted", network={"mode": "host"}))
    assert done.returncode == 1
    assert "cannot own the node's network" in done.stderr
