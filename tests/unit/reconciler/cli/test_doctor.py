"""What doctor finds, and what it advises."""

from __future__ import annotations

import sys
from pathlib import Path

from core.runtime.probing import Probe
from core.runtime.table import RuntimeSpec
from reconciler.cli.checks import Finding, Level, disk, findings, runtime, tool
from reconciler.cli.doctor import report


def test_every_subject_is_looked_at_and_none_ends_the_others(tmp_path: Path) -> None:
    found = list(findings(tmp_path / "not" / "there"))
    assert [one.subject for one in found] == [
        *("user", "kernel", "capabilities", "mounts", "cgroups", "overlayfs", "disk"),
        *("conmon", "catatonit", "git"),
    ]
    assert not (tmp_path / "not").exists()


def test_a_missing_program_names_its_package() -> None:
    assert tool("no-such-program", "some-package", "does much") == Finding(
        Level.LIMITED, "no-such-program", "not installed (does much)", "Install it: apt-get install some-package"
    )


def test_a_program_that_does_not_work_is_said_to_be_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no library >&2\nexit 127\n")
    broken.chmod(0o755)
    found = tool(str(broken), "broken", "")
    assert (found.level, found.found) == (Level.LIMITED, "does not work: no library")


def test_a_program_that_works_shows_its_version() -> None:
    found = tool(sys.executable, "python3", "")
    assert (found.level, found.found.split()[0]) == (Level.OK, sys.version.split()[0])


def test_space_is_measured_where_the_data_will_lie(tmp_path: Path) -> None:
    assert disk(tmp_path / "later").found.endswith(f"free for {tmp_path / 'later'}")


def test_the_report_ends_with_a_verdict_and_one_line_that_installs_all_that_is_missing() -> None:
    lines = report(
        [
            Finding(Level.OK, "user", "root"),
            Finding(Level.MISSING, "runc", "not installed (x)", "Install it: apt-get install runc"),
            Finding(Level.LIMITED, "crun", "not installed (y)", "Install it: apt-get install crun"),
        ]
    )
    assert lines == [
        "ok       user          root",
        "missing  runc          not installed (x)",
        "                       Install it: apt-get install runc",
        "limited  crun          not installed (y)",
        "                       Install it: apt-get install crun",
        "Containers cannot run here: runc.",
        "2 packages to install: apt-get install runc crun",
    ]


def test_a_runtime_is_told_with_what_it_can_and_what_it_is_warned_of() -> None:
    probe = Probe("/usr/sbin/runc", "1.1.5", {"cgroup": ["v1", "v2"], "seccomp": True, "checkpoint": False}, ("old",))
    found = runtime(RuntimeSpec("runc"), probe)
    assert found == Finding(Level.LIMITED, "runc", "1.1.5 (/usr/sbin/runc): cgroup v1+v2, seccomp", "old")


def test_a_runtime_of_which_nothing_more_is_known_is_told_by_its_version_alone() -> None:
    assert runtime(RuntimeSpec("runc-v2", "shim"), Probe("/x", "1.6")).found == "1.6 (/x)"


def test_gvisor_is_told_with_its_platform_its_control_groups_and_its_network() -> None:
    can = {"platform": ["ptrace"], "cgroup": ["v1"], "network": ["the node's stack in the sandbox's namespace"]}
    found = runtime(RuntimeSpec("gvisor"), Probe("/usr/bin/runsc", "1", can)).found
    assert (
        found == "1 (/usr/bin/runsc): platform ptrace, cgroup v1, network the node's stack in the sandbox's namespace"
    )


def test_only_runc_must_be_there() -> None:
    probe = Probe(problem="not installed", advice="Install it: apt-get install x")
    assert runtime(RuntimeSpec("runc"), probe).level is Level.MISSING
    assert runtime(RuntimeSpec("fast", path="/x"), probe).level is Level.LIMITED
