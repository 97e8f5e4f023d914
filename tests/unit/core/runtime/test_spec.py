"""From what is wanted to the OCI runtime-spec."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid, Unsupported
from core.runtime.node import Device, Node, loaded_profiles
from core.runtime.resourcing import Resources, resources
from core.runtime.spec import (
    DEFAULT_CAPABILITIES,
    Mount,
    MountKind,
    Security,
    User,
    Wanted,
    build,
    environment,
)

ALL = frozenset({*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_NET_ADMIN"})
NODE = Node(
    architecture="x86_64",
    capabilities=ALL - {"CAP_SYS_RESOURCE"},
    all_capabilities=ALL,
    rlimits={"RLIMIT_NOFILE": 20000},
    oom_floor=0,
    accounts_swap=True,
    devices=(Device("/dev/fuse", "c", 10, 229),),
)
WANTED = Wanted(["sleep", "1"], "/group/box/one")


def spec_of(**changes: Any) -> dict[str, Any]:
    """The spec of the plain task with some fields changed."""
    return build(replace(WANTED, **changes), NODE).spec


def mounts_of(mounts: Sequence[Mount]) -> dict[str, dict[str, Any]]:
    """Its mounts by their path."""
    return {mount["destination"]: mount for mount in spec_of(mounts=mounts)["mounts"]}


def test_the_defaults_are_safe() -> None:
    spec = spec_of()
    process, linux = spec["process"], spec["linux"]
    assert spec["ociVersion"] == "1.0.2"
    assert "hooks" not in spec
    assert process["noNewPrivileges"] is True
    for kind in ("bounding", "effective", "permitted"):
        assert set(process["capabilities"][kind]) == DEFAULT_CAPABILITIES
    assert not process["capabilities"].get("inheritable")
    assert not process["capabilities"].get("ambient")
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert linux["resources"]["pids"] == {"limit": 4096}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert {"pid", "mount", "ipc", "uts", "cgroup"} == {entry["type"] for entry in linux["namespaces"]}
    json.dumps(spec)


def test_there_are_fourteen_default_capabilities() -> None:
    assert len(DEFAULT_CAPABILITIES) == 14


def test_the_environment_has_each_name_once_the_later_one_winning() -> None:
    assert environment(["A=1", "B=2"], ["A=3=x", "PATH=/p"]) == ["B=2", "A=3=x", "PATH=/p"]
    assert environment() == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@pytest.mark.parametrize("pair", ["", "A", "=x", "A=\0"])
def test_what_is_no_variable_is_refused(pair: str) -> None:
    with pytest.raises(Invalid):
        environment([pair])


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["NET_ADMIN"], [], DEFAULT_CAPABILITIES | {"CAP_NET_ADMIN"}),
        ([], ["cap_net_raw"], DEFAULT_CAPABILITIES - {"CAP_NET_RAW"}),
        ([], ["ALL"], frozenset()),
        (["CHOWN"], ["ALL"], frozenset({"CAP_CHOWN"})),
        (["ALL"], ["NET_RAW"], ALL - {"CAP_NET_RAW", "CAP_SYS_RESOURCE"}),
        (["CHOWN"], ["CHOWN"], DEFAULT_CAPABILITIES - {"CAP_CHOWN"}),
    ],
)
def test_capabilities_are_added_and_dropped(add: list[str], drop: list[str], expected: frozenset[str]) -> None:
    security = Security(add=tuple(add), drop=tuple(drop))
    assert set(spec_of(security=security)["process"]["capabilities"]["bounding"]) == expected


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(Invalid, match="CAP_FLY"):
        spec_of(security=Security(add=("FLY",)))


def test_what_the_node_cannot_give_is_clamped_and_noted() -> None:
    wanted = replace(
        WANTED,
        security=Security(add=("SYS_RESOURCE",)),
        rlimits={"RLIMIT_NOFILE": (1 << 20, 1 << 20)},
        oom_score_adj=-500,
    )
    built = build(wanted, NODE)
    assert "CAP_SYS_RESOURCE" not in built.spec["process"]["capabilities"]["bounding"]
    assert built.spec["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}]
    assert built.spec["process"]["oomScoreAdj"] == 0
    assert len(built.notes) == 3


def test_what_the_node_can_give_is_given_without_a_note() -> None:
    wanted = replace(WANTED, rlimits={"RLIMIT_NOFILE": (1 << 20, 1 << 20)}, oom_score_adj=-500)
    built = build(wanted, replace(NODE, capabilities=ALL))
    assert built.spec["process"]["rlimits"][0]["hard"] == 1 << 20
    assert built.spec["process"]["oomScoreAdj"] == -500
    assert built.notes == ()


@pytest.mark.parametrize("limit", [("RLIMIT_X", (1, 1)), ("RLIMIT_NOFILE", (2, 1)), ("RLIMIT_NOFILE", (-1, 1))])
def test_an_impossible_rlimit_is_refused(limit: tuple[str, tuple[int, int]]) -> None:
    with pytest.raises(Invalid):
        spec_of(rlimits=dict([limit]))


def test_privileged_lifts_everything_that_it_names() -> None:
    spec = spec_of(security=Security(privileged=True))
    assert "seccomp" not in spec["linux"]
    assert "maskedPaths" not in spec["linux"]
    assert spec["linux"]["devices"][0]["path"] == "/dev/fuse"
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["bounding"]
    assert not spec["process"]["noNewPrivileges"]


def test_a_device_is_given_with_its_rule() -> None:
    linux = spec_of(security=Security(devices=(Device("/dev/fuse", "c", 10, 229, access="rw"),)))["linux"]
    assert linux["devices"][0]["major"] == 10
    assert linux["resources"]["devices"][1] == {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}


def test_seccomp_is_the_default_the_given_or_none() -> None:
    given = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert spec_of(security=Security(seccomp=given))["linux"]["seccomp"] == given
    assert "seccomp" not in spec_of(security=Security(unconfined=True))["linux"]
    with pytest.raises(Unsupported):
        build(WANTED, replace(NODE, architecture="vax"))


def test_limits_become_quota_shares_memory_with_swap_and_pids() -> None:
    assert resources(Resources(cpu=0.5, memory=1 << 20, pids=9), NODE) == {
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512},
        "memory": {"limit": 1 << 20, "swap": 1 << 20},
        "pids": {"limit": 9},
    }
    assert resources(Resources(memory=1 << 20, pids=None), replace(NODE, accounts_swap=False)) == {
        "memory": {"limit": 1 << 20}
    }
    assert resources(Resources(cpu=0.000001), NODE)["cpu"] == {"quota": 1000, "period": 100_000, "shares": 2}


@pytest.mark.parametrize("bad", [Resources(cpu=0), Resources(cpu=-1), Resources(memory=-1), Resources(pids=0)])
def test_limits_that_are_not_positive_are_refused(bad: Resources) -> None:
    with pytest.raises(Invalid):
        resources(bad, NODE)


def test_sandbox_namespaces_are_joined_and_its_files_bound() -> None:
    spec = spec_of(
        namespaces={"network": "/n/network", "ipc": "/n/ipc", "uts": "/n/uts"},
        files={"/etc/hosts": "/n/hosts", "/etc/resolv.conf": "/etc/resolv.conf", "/dev/shm": "/n/shm"},
        hostname="unused",
    )
    assert {"type": "network", "path": "/n/network"} in spec["linux"]["namespaces"]
    assert "hostname" not in spec
    mounts = {mount["destination"]: mount for mount in spec["mounts"]}
    assert mounts["/dev/shm"]["source"] == "/n/shm"
    assert "rw" in mounts["/etc/hosts"]["options"]
    assert "ro" in mounts["/etc/resolv.conf"]["options"], "the host's own file"
    assert [mount["destination"] for mount in spec["mounts"]].index("/dev") < [
        mount["destination"] for mount in spec["mounts"]
    ].index("/dev/shm")


def test_without_a_uts_namespace_to_join_the_hostname_is_set() -> None:
    assert spec_of(hostname="me")["hostname"] == "me"


def test_mounts_take_their_kind_and_access_and_parents_come_first() -> None:
    mounts = mounts_of(
        [
            Mount("/data/inner", source="/s", read_only=True),
            Mount("/data", MountKind.TMPFS, size=1 << 20),
            Mount("/x//y/", source="/s"),
        ]
    )
    assert "ro" in mounts["/data/inner"]["options"]
    assert "nodev" in mounts["/data/inner"]["options"]
    assert "size=1048576" in mounts["/data"]["options"]
    assert "/x/y" in mounts
    order = list(mounts)
    assert order.index("/data") < order.index("/data/inner")


@pytest.mark.parametrize("path", ["data", "/", "/proc", "/proc/self", "/sys/x", "/a/../etc", "/dev", "", "/a\0"])
def test_a_mount_that_would_break_out_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        mounts_of([Mount(path, source="/s")])


def test_a_bind_from_no_absolute_path_is_refused() -> None:
    with pytest.raises(Invalid):
        mounts_of([Mount("/a", source="s")])


@pytest.mark.parametrize("cwd", ["/proc/self/fd/8", "/proc", "/sys/x", "relative", "/a/../proc", "//proc/self"])
def test_a_working_folder_in_the_kernels_files_is_refused(cwd: str) -> None:
    with pytest.raises(Invalid):
        spec_of(cwd=cwd)


@pytest.mark.parametrize("args", [[], [""], ["a\0b"]])
def test_no_command_is_refused(args: list[str]) -> None:
    with pytest.raises(Invalid):
        spec_of(args=args)


def test_a_terminal_brings_its_kind() -> None:
    assert "TERM=xterm" in spec_of(terminal=True)["process"]["env"]
    assert "TERM=dumb" in spec_of(terminal=True, env=["TERM=dumb"])["process"]["env"]


def test_a_user_is_numbers() -> None:
    assert spec_of(user=User(1, 2, (3,)))["process"]["user"] == {"uid": 1, "gid": 2, "additionalGids": [2, 3]}
    assert str(User(1, 2, (3, 4))) == "1:2,3,4"


def test_an_apparmor_profile_is_named_only_where_there_is_apparmor() -> None:
    with_it = replace(NODE, apparmor=True)
    wanted = replace(WANTED, security=Security(apparmor="web"))
    assert build(wanted, with_it).spec["process"]["apparmorProfile"] == "web"
    assert "apparmorProfile" not in build(WANTED, with_it).spec["process"]
    mighty = replace(WANTED, security=Security(apparmor="web", privileged=True))
    assert build(mighty, with_it).spec["process"]["apparmorProfile"] == "unconfined"
    with pytest.raises(Unsupported, match="has no AppArmor"):
        build(wanted, NODE)
    for harmless in (Security(apparmor="unconfined"), Security(privileged=True, apparmor="web")):
        assert "apparmorProfile" not in build(replace(WANTED, security=harmless), NODE).spec["process"]


def test_the_profiles_that_are_loaded_are_read_by_name(tmp_path: Path) -> None:
    listed = tmp_path / "profiles"
    listed.write_text("docker-default (enforce)\n/usr/bin/man (complain)\nweb//child (enforce)\n")
    assert loaded_profiles(listed) == {"docker-default", "/usr/bin/man", "web//child"}
    assert loaded_profiles(tmp_path / "none") is None


PLACED = replace(NODE, cpus="0-3", mems="0", hugepages=frozenset({"2MB"}), weighs_io=True)


def test_processors_pages_and_weight_are_limits_too() -> None:
    wanted = Resources(cpu=1, cpus="0,2-3", mems="0", hugepages={"2MB": 64 << 20}, io_weight=200)
    made = resources(wanted, PLACED)
    assert made["cpu"] == {"quota": 100_000, "period": 100_000, "shares": 1024, "cpus": "0,2-3", "mems": "0"}
    assert made["hugepageLimits"] == [{"pageSize": "2MB", "limit": 64 << 20}]
    assert made["blockIO"] == {"weight": 200}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Resources(cpus="0"), "no cpuset control group"),
        (Resources(hugepages={"2MB": 1 << 21}), "cannot limit pages of 2MB: it has no huge pages"),
        (Resources(io_weight=100), "do not weigh I/O"),
    ],
)
def test_a_limit_that_the_node_cannot_hold_is_refused(wanted: Resources, told: str) -> None:
    with pytest.raises(Unsupported, match=told):
        resources(wanted, NODE)


def test_processors_that_the_node_has_not_are_refused_by_number() -> None:
    with pytest.raises(Invalid, match="this node has no 4, 5"):
        resources(Resources(cpus="3-5"), PLACED)
    with pytest.raises(Unsupported, match="it limits 2MB"):
        resources(Resources(hugepages={"1GB": 1}), PLACED)
