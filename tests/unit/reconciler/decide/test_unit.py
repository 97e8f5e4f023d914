import shutil
import subprocess
from pathlib import Path

import pytest

from core.errors import Invalid
from core.runtime import seccomp
from core.runtime.spec import DEFAULT_CAPABILITIES
from reconciler.decide.unit import DEFAULT_ROOT, REFUSED_CALLS, WITHHELD, Unit, quoted
from reconciler.model.kinds.capabilities import CAPABILITIES

NAMESPACED = (
    *("PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateNetwork", "PrivateUsers", "PrivateIPC", "PrivatePIDs"),
    *("ProtectSystem", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs"),
    *("ProtectControlGroups", "ProtectClock", "ProtectHostname", "ProtectProc", "ProcSubset", "RootDirectory"),
    *("RootImage", "RootHash", "MountAPIVFS", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "NoExecPaths"),
    *("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "MountFlags", "MountImages", "DynamicUser"),
    *(
        "ExtensionImages",
        "ExtensionDirectories",
        "LoadCredential",
        "SetCredential",
        "LogNamespace",
        "NetworkNamespacePath",
    ),
)
"""Directives that give a service a namespace of its own (systemd.exec(5))."""
BINDING = (
    *("NoNewPrivileges", "RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "RestrictRealtime"),
    *("LockPersonality", "RestrictAddressFamilies", "SystemCallArchitectures", "DevicePolicy", "IPAddressDeny", "User"),
)
"""Directives that would bind every container too."""


def unit(root: str = "/var/lib/reconciler", *options: str, program: str = "/opt/venv/bin/reconciler") -> Unit:
    return Unit(Path(program), options, Path(root))


def directives(made: Unit) -> dict[str, str]:
    return dict(line.split("=", 1) for line in made.text().splitlines() if "=" in line and line[0] != "#")


def test_the_unit_says_what_a_container_agent_needs() -> None:
    said = directives(unit())
    assert said["RequiresMountsFor"] == '"/var/lib/reconciler"'
    assert said["ExecStart"] == '"/opt/venv/bin/reconciler" "agent"'
    assert said["ExecReload"] == "/bin/kill -HUP $MAINPID"
    wanted = {"Type": "notify", "NotifyAccess": "main", "KillMode": "process", "Delegate": "yes", "Restart": "always"}
    wanted |= {"OOMPolicy": "continue", "TasksMax": "infinity", "StartLimitIntervalSec": "0", "WatchdogSec": "60s"}
    assert {name: said.get(name) for name in wanted} == wanted


def test_nothing_in_the_unit_makes_a_namespace_or_binds_what_containers_may_do() -> None:
    assert directives(unit()).keys() & {*NAMESPACED, *BINDING} == set()


def test_a_node_boots_without_a_network() -> None:
    assert "network-online" not in unit().text()
    assert directives(unit()).keys() & {"Requires", "BindsTo", "Requisite", "ConditionPathExists"} == set()


def test_what_is_withheld_is_nothing_that_containers_have_by_default() -> None:
    assert set(WITHHELD) <= set(CAPABILITIES)
    assert set(WITHHELD) & set(DEFAULT_CAPABILITIES) == set()


def test_the_calls_that_are_refused_are_none_that_the_default_profile_allows() -> None:
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("not installed: systemd")
    told = subprocess.run([program, "syscall-filter", *REFUSED_CALLS], capture_output=True, text=True, check=True)
    refused = {line.strip() for line in told.stdout.splitlines() if line[:4] == "    " and "#" not in line}
    assert {"reboot", "kexec_load", "swapon", "init_module"} <= refused
    for architecture in ("x86_64", "aarch64"):
        rules = seccomp.default(DEFAULT_CAPABILITIES, architecture)["syscalls"]
        allowed = {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
        assert refused & allowed == set()


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("/a b", '"/a b"'),
        ('/a"b', '"/a\\"b"'),
        ("/100%", '"/100%%"'),
        ("/a\\b", '"/a\\\\b"'),
        ("/a$b", '"/a$$b"'),
        ("/ä", '"/ä"'),
    ],
)
def test_words_are_quoted_by_the_rules_of_systemd(word: str, text: str) -> None:
    assert quoted(word) == text


def test_a_path_has_no_variables() -> None:
    assert quoted("/a$b", program=True) == '"/a$b"'


@pytest.mark.parametrize("word", ["/a\nExecStartPre=/bin/evil", "/a\tb", "/\udcff"])
def test_what_no_unit_can_name_is_refused(word: str) -> None:
    with pytest.raises(Invalid, match="cannot stand in a systemd unit"):
        unit(word).text()


def test_the_default_root_has_the_plain_name_and_others_that_of_their_instance() -> None:
    assert unit(str(DEFAULT_ROOT)).name == "reconciler.service"
    names = {unit("/srv/a").name, unit("/srv/b").name}
    assert len(names) == 2
    assert all(len(name) == len("reconciler-12345678.service") for name in names)


def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("not installed: systemd")
    made = unit('/var/lib/re con%"$x\\y', "--config", "/etc/a b.yaml", program="/bin/true")
    (tmp_path / made.name).write_text(made.text())
    told = subprocess.run([program, "verify", tmp_path / made.name], capture_output=True, text=True)
    assert [line for line in told.stderr.splitlines() if made.name in line] == []
    assert told.returncode == 0, told.stderr
