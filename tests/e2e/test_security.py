"""What confines a container beyond the default, and what frees it: profiles by name and path, privileged."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.runtime.node import read_node
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

PRIVILEGED = {"privileged": True}


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, whose configuration allows privileged containers."""
    with stage(registry, config={"policy": {"allowPrivileged": True}}) as made:
        yield made


def configure(st: Stage, **more: Any) -> None:
    """Write the node's configuration anew; the agent finds it by itself."""
    file = Path(st.node.env["RECONCILER_CONFIG"])
    kept = {name: value for name, value in json.loads(file.read_text()).items() if name != "policy"}
    file.write_text(json.dumps({**kept, **more}))

    def taken_up() -> bool:
        nodes = [obj.spec["config"] for obj in st.store.list() if obj.kind.value == "Node"]
        return any(config["policy"]["allowPrivileged"] == ("policy" in more) for config in nodes)

    eventually(taken_up, "the configuration is taken up")


def stalled(st: Stage, name: str) -> str:
    """What a container is Stalled with, once it is."""
    key = f"container/{name}"
    eventually(lambda: st.condition(key, "Stalled").get("status") == "True", f"{name} is stalled")
    return str(st.condition(key, "Stalled")["message"])


def test_a_privileged_container_has_every_right_of_the_node(st: Stage) -> None:
    script = (
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ls /dev | wc -l; wc -c < /proc/interrupts; "
        "mkdir /tmp/x; mount -t tmpfs x /tmp/x && echo mounted; grep -c ' /sys sysfs ro' /proc/mounts; true"
    )
    caps, nnp, seccomp, devices, interrupts, mounted, read_only = st.said(
        "mighty", script, security=PRIVILEGED
    ).splitlines()
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert int(caps.split()[1], 16) == int(ours.split()[1], 16)
    assert (nnp.split()[1], seccomp.split()[1]) == ("0", "0")
    assert int(devices) > len(read_node().devices) > 10
    assert int(interrupts) > 0
    assert (mounted, read_only) == ("mounted", "0")


def test_privileged_is_refused_at_its_line_where_the_configuration_does_not_allow_it(st: Stage) -> None:
    configure(st)
    try:
        done = st.apply(st.container("refused", "sleep 1000", security=PRIVILEGED))
        assert done.returncode == 1
        line = next(line for line in done.stderr.splitlines() if "spec.security.privileged" in line)
        assert "this node allows no privileged containers" in line
        assert "policy.allowPrivileged: true" in line
        place = line.split(": ")[0].split(":")
        assert '"privileged": true' in Path(place[0]).read_text().splitlines()[int(place[1]) - 1]
        assert st.get("container/refused") is None
    finally:
        configure(st, policy={"allowPrivileged": True})


def test_what_was_applied_before_is_not_started_again_when_it_is_no_longer_allowed(st: Stage) -> None:
    st.must_apply(st.container("once-mighty", "sleep 1000", security=PRIVILEGED))
    pid = st.pid("once-mighty")
    configure(st)
    try:
        assert st.pid("once-mighty") == pid  # what runs is left alone
        os.kill(pid, signal.SIGKILL)
        assert "allows no privileged containers" in stalled(st, "once-mighty")
    finally:
        configure(st, policy={"allowPrivileged": True})
    eventually(lambda: st.status("container/once-mighty").get("state") == "Running", "it runs again")


def test_a_revision_that_asks_for_privileged_is_refused_as_a_whole(st: Stage) -> None:
    configure(st)
    folder = st.files / "desired"
    folder.mkdir()
    spec = {"image": st.image(), "network": {"mode": "none"}, "security": PRIVILEGED}
    documents = [document("Container", "from-source", spec), document("Volume", "beside", {})]
    (folder / "all.yaml").write_text("---\n".join(json.dumps(one, indent=1) + "\n" for one in documents))
    try:
        st.node.cli("source", "add", "desired", "--folder", folder, "--timeout", "10s")
        told = eventually(lambda: st.condition("source/desired", "Stalled").get("message"), "the revision is refused")
        assert "all.yaml:" in told
        assert "this node allows no privileged containers" in told
        assert st.get("container/from-source") is None
        assert st.get("volume/beside") is None
    finally:
        configure(st, policy={"allowPrivileged": True})
    eventually(lambda: st.get("container/from-source"), "it is applied once it is allowed")
    st.delete("source/desired")


def test_a_seccomp_profile_is_taken_from_its_path(st: Stage) -> None:
    profile = st.files / "no-mkdir.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = "grep '^Seccomp:' /proc/self/status; mkdir /tmp/x 2>&1; touch /tmp/y && echo touched"
    said = st.said("filtered", script, security={"seccomp": str(profile)})
    assert said.split()[1] == "2"
    assert "Permission denied" in said
    assert "touched" in said


def test_a_seccomp_profile_beside_the_manifest_comes_along_and_a_change_of_it_replaces_the_container(st: Stage) -> None:
    profile = st.files / "beside.json"

    def refuses(call: str) -> None:
        rule = {"names": [call, f"{call}at"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))

    refuses("mkdir")
    web = st.container("beside", "sleep 1000", security={"seccomp": "./beside.json"})
    st.must_apply(web)
    first = st.pid("beside")
    assert st.node.cli("exec", "beside", "--", "mkdir", "/tmp/x").returncode != 0
    st.exec("beside", "ln -s a /tmp/y")
    refuses("symlink")
    assert "replace" in st.must_apply(web)
    assert st.pid("beside") != first
    assert st.node.cli("exec", "beside", "--", "ln", "-s", "a", "/tmp/y").returncode != 0
    st.exec("beside", "mkdir /tmp/x")
    st.delete("container/beside")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("absent", None, "is not on this node"), ("broken", "{", "not JSON"), ("strange", "{}", "not a seccomp profile")],
)
def test_a_seccomp_profile_that_is_none_stalls_the_container(st: Stage, name: str, text: str | None, told: str) -> None:
    profile = st.files / f"{name}.json"
    if text is not None:
        profile.write_text(text)
    st.submit(st.container(name, "true", security={"seccomp": str(profile)}))
    assert told in stalled(st, name)


def test_an_apparmor_profile_is_refused_with_the_reason_where_there_is_no_apparmor(st: Stage) -> None:
    if read_node().apparmor:
        pytest.skip("this node has AppArmor")
    st.submit(st.container("armored", "true", security={"apparmor": "web-profile"}))
    assert "this node has no AppArmor" in stalled(st, "armored")
    assert st.said("unarmored", "echo runs", security={"apparmor": "unconfined"}) == "runs\n"


def test_a_device_is_given_by_its_cdi_name_with_all_that_belongs_to_it(st: Stage) -> None:
    folder = st.files / "cdi"
    folder.mkdir()
    (st.files / "firmware").write_text("loaded\n")
    (folder / "vendor.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: vendor.com/gpu\n"
        "containerEdits:\n  mounts:\n  - hostPath: " + str(st.files / "firmware") + "\n    containerPath: /firmware\n"
        "    options: [ro, bind]\n"
        "devices:\n- name: zero\n  containerEdits:\n    env: [SLOT=0]\n"
        "    deviceNodes:\n    - {path: /dev/gpu0, hostPath: /dev/zero, permissions: r}\n"
    )
    configure(st, policy={"allowPrivileged": True, "cdi": [str(folder)]})
    script = "echo $SLOT; cat /firmware; head -c 3 /dev/gpu0 | wc -c"

    def taken() -> bool:
        nodes = [obj.spec["config"] for obj in st.store.list() if obj.kind.value == "Node"]
        return any(config["policy"]["cdi"] == [str(folder)] for config in nodes)

    eventually(taken, "the folder is known")
    said = st.said("gpu", script, security={"devices": ["vendor.com/gpu=zero"]})
    assert said.split() == ["0", "loaded", "3"]
    st.submit(st.container("no-gpu", "true", security={"devices": ["vendor.com/gpu=nine"]}))
    assert "this node has no CDI device vendor.com/gpu=nine: it has vendor.com/gpu=zero" in stalled(st, "no-gpu")
