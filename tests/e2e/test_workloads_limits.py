"""What a container may not: write to its root, gain rights, use more than it was given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.runtime.node import read_node
from core.runtime.resourcing import numbers
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

DEFAULT_CAPABILITIES = 0x00000000A80425FB
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
AUDIT_WRITE, SETFCAP (linux/capability.h)."""


@pytest.fixture(scope="module", params=RUNTIMES)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def limit_file(pid: int, controller: str, name_v1: str, name_v2: str) -> Path:
    """A file of the cgroup that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{name_v1}")
    path = next(
        line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line[:3] == "0::"
    )
    return Path(f"/sys/fs/cgroup{path}/{name_v2}")


def test_a_read_only_root_refuses_writes_but_tmpfs_and_shm_take_them(st: Stage) -> None:
    script = "(echo x >/etc/x) 2>&1; echo y >/tmp/y && cat /tmp/y; echo z >/dev/shm/z && cat /dev/shm/z"
    mounts = [{"path": "/tmp", "tmpfs": {"size": "1Mi"}}]
    said = st.said("readonly", script, security={"readOnlyRootfs": True}, mounts=mounts)
    assert "Read-only file system" in said
    assert said.endswith("y\nz\n")


def test_capabilities_are_a_safe_few_and_can_be_added_and_dropped(st: Stage) -> None:
    script = "sed -n 's/^CapEff:\t//p' /proc/self/status"
    once = {"restart": {"policy": "Never"}}
    added = {"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}}
    only = {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    st.must_apply(
        st.container("caps", script, **once),
        st.container("caps-added", script, **once, security=added),
        st.container("caps-only", script, **once, security=only),
    )
    found = [int(st.node.cli("logs", name).stdout, 16) for name in ("caps", "caps-added", "caps-only")]
    assert found == [DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES & ~1 | 1 << 12, 1 << 10]


def test_programs_gain_no_rights_unless_allowed(st: Stage) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert st.said("nnp", script, user="www").split() == ["NoNewPrivs:", "1"]
    assert st.said("no-nnp", script, user="www", security={"noNewPrivileges": False}).split() == ["NoNewPrivs:", "0"]


def test_the_default_seccomp_profile_is_on_and_can_be_left_out(st: Stage) -> None:
    script = "grep '^Seccomp:' /proc/self/status; unshare -U true 2>&1 || echo refused"
    assert st.said("seccomp", script).split()[1] == "2"
    assert "refused" in st.node.cli("logs", "seccomp").stdout
    free = st.said("unconfined", script, security={"seccomp": "unconfined"}).split()
    assert free[1] == "0"


def test_kernel_files_are_masked_or_read_only(st: Stage) -> None:
    script = "cat /proc/interrupts /sys/firmware/* 2>/dev/null | wc -c; (echo x >/proc/sys/kernel/shmmax) 2>&1; true"
    said = st.said("masked", script)
    assert said.splitlines()[0] == "0"
    assert "Read-only file system" in said


def test_limits_are_on_the_cgroup_and_change_in_place_without_a_restart(st: Stage) -> None:
    st.must_apply(st.container("limited", "sleep 1000", resources={"cpu": "500m", "memory": "64Mi", "pids": 20}))
    pid = st.pid("limited")
    memory = limit_file(pid, "memory", "memory.limit_in_bytes", "memory.max")
    quota = limit_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
    pids = limit_file(pid, "pids", "pids.max", "pids.max")
    assert (int(memory.read_text()), quota.read_text().split()[0], pids.read_text().strip()) == (
        64 << 20,
        "50000",
        "20",
    )
    assert "change" in st.must_apply(
        st.container("limited", "sleep 1000", resources={"cpu": "2", "memory": "96Mi", "pids": 30})
    )
    eventually(lambda: int(memory.read_text()) == 96 << 20, "the new limit of memory")
    eventually(lambda: quota.read_text().split()[0] == "200000", "the new limit of cpu")
    eventually(lambda: pids.read_text().strip() == "30", "the new limit of processes")
    assert st.pid("limited") == pid
    assert st.status("container/limited")["restarts"] == 0


def test_more_processes_than_allowed_are_refused(st: Stage) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; echo started"
    st.must_apply(st.container("forks", script, resources={"pids": 4}, restart={"policy": "Never"}))
    assert st.exited("forks")["exitCode"] != 0
    assert "can't fork" in st.node.cli("logs", "forks").stderr


def test_a_container_that_takes_too_much_memory_is_reported_as_oom_killed(st: Stage) -> None:
    script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo survived"
    st.must_apply(st.container("hungry", script, resources={"memory": "16Mi"}, restart={"policy": "Never"}))
    status = st.exited("hungry")
    assert status["exitCode"] == 137
    assert status["lastExit"]["reason"] == "OOMKilled"
    assert "OOMKilled" in st.node.cli("describe", "container", "hungry").stdout


def test_a_sandboxes_limit_holds_for_all_its_containers_together(st: Stage) -> None:
    spec = {"runtime": st.runtime, "network": {"mode": "none"}, "resources": {"pids": 50}}
    sandbox = document("Sandbox", "small", spec)
    st.must_apply(sandbox, st.container("in-small", "sleep 1000", sandbox="small"))
    own = limit_file(st.pid("in-small"), "pids", "pids.max", "pids.max")
    assert (own.parent.parent / "pids.max").read_text().strip() == "50"


def test_processors_and_io_weight_hold_and_change_in_place(st: Stage) -> None:
    node = read_node()
    if not node.cpus:
        pytest.skip("this node has no cpuset control group")
    weighs = node.weighs_io and st.runtime == "runc"  # crun 1.8 knows no bfq.weight
    one = {"cpuset": {"cpus": node.cpus[0]}, **({"ioWeight": 200} if weighs else {})}
    st.must_apply(st.container("placed", "sleep 1000", resources=one))
    pid = st.pid("placed")
    assert os.sched_getaffinity(pid) == {int(node.cpus[0])}
    if weighs and "blkio" in Path(f"/proc/{pid}/cgroup").read_text():
        weight = limit_file(pid, "blkio", "blkio.bfq.weight", "io.weight")
        assert weight.read_text().split()[0] == "200"
    st.must_apply(st.container("placed", "sleep 1000", resources={"cpuset": {"cpus": node.cpus}}))
    assert st.pid("placed") == pid
    assert os.sched_getaffinity(pid) == numbers(node.cpus)


def test_what_limits_cannot_hold_here_is_refused_with_the_reason(st: Stage) -> None:
    st.submit(st.container("misplaced", "true", resources={"cpuset": {"cpus": "4000"}}))
    eventually(lambda: st.condition("container/misplaced", "Stalled").get("status") == "True", "it is stalled")
    assert "this node has no 4000" in st.condition("container/misplaced", "Stalled")["message"]
    if not read_node().hugepages:
        st.submit(st.container("paged", "true", resources={"hugepages": {"2Mi": "64Mi"}}))
        eventually(lambda: st.condition("container/paged", "Stalled").get("status") == "True", "it is stalled")
        assert "cannot limit pages of 2MB" in st.condition("container/paged", "Stalled")["message"]
