"""The default profile and the reading of given ones."""

import json
from typing import Any

import pytest

from core.errors import Invalid, Unsupported
from core.runtime import seccomp
from core.runtime.spec import DEFAULT_CAPABILITIES


def allowed(profile: dict[str, Any]) -> set[str]:
    """Calls allowed whatever their arguments."""
    rules = (rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args"))
    return {name for rule in rules for name in rule["names"]}


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_dangerous_calls_are_in_no_default_list(architecture: str) -> None:
    names = allowed(seccomp.default(DEFAULT_CAPABILITIES, architecture))
    refused = "mount umount2 unshare setns bpf keyctl add_key request_key kexec_load init_module reboot swapon"
    refused += (
        " io_uring_setup userfaultfd perf_event_open open_by_handle_at pivot_root clone3 clone socket personality"
    )
    assert not names & set(refused.split())
    assert {"read", "write", "openat", "execve", "futex", "exit_group", "chroot"} <= names


def test_a_capability_brings_its_calls() -> None:
    names = allowed(seccomp.default({"CAP_SYS_ADMIN"}, "x86_64"))
    assert {"mount", "unshare", "clone", "clone3", "setns", "bpf"} <= names
    assert "reboot" not in names
    assert "reboot" in allowed(seccomp.default({"CAP_SYS_BOOT"}, "x86_64"))


def test_clone_makes_no_namespaces_and_clone3_is_unknown_without_sys_admin() -> None:
    rules = seccomp.default([], "x86_64")["syscalls"]
    clone = next(rule for rule in rules if rule["names"] == ["clone"])
    assert clone["args"] == [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}]
    assert next(rule for rule in rules if rule["names"] == ["clone3"])["errnoRet"] == 38


def test_sockets_of_two_families_are_left_out() -> None:
    rules = [rule["args"][0] for rule in seccomp.default([], "x86_64")["syscalls"] if rule["names"] == ["socket"]]
    compare = {"LT": int.__lt__, "EQ": int.__eq__, "GT": int.__gt__}

    def passes(family: int) -> bool:
        return any(compare[rule["op"].removeprefix("SCMP_CMP_")](family, rule["value"]) for rule in rules)

    assert [family for family in range(46) if not passes(family)] == [38, 40]


def test_an_architecture_without_a_list_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="vax"):
        seccomp.default([], "vax")


def test_a_given_profile_is_read_or_refused() -> None:
    good = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert seccomp.parse(json.dumps(good).encode(), "x.json") == good
    for bad in (
        b"",
        b"[]",
        b"{}",
        b'{"defaultAction": 1}',
        b'{"defaultAction":"SCMP_ACT_ALLOW","archMap":[]}',
        b"\xff",
    ):
        with pytest.raises(Invalid, match=r"x\.json"):
            seccomp.parse(bad, "x.json")
