"""What the other node is: by tests that run there only (pytest collects no file of this name by itself)."""

from __future__ import annotations

import platform
from pathlib import Path

from core import cgroups
from core.runtime.node import read_node
from tests.kernel.machine import CHECKOUT


def test_control_groups_are_of_version_2_alone() -> None:
    found = cgroups.hierarchies()
    assert found.pure_v2
    assert found.tracking == Path("/sys/fs/cgroup")
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set((found.tracking / "cgroup.controllers").read_text().split())


def test_apparmor_is_on() -> None:
    assert read_node().apparmor


def test_the_kernel_is_debians() -> None:
    assert platform.release().endswith(("-cloud-amd64", "-amd64"))


def test_what_is_written_here_does_not_reach_the_host() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {target: kind for _, target, kind, *_ in mounts}
    assert kinds["/"] == "overlay"
    assert kinds["/tmp"] == "tmpfs"
    options = next(options for _, target, _, options, *_ in mounts if target == "/")
    assert "lowerdir=/lower" in options
    if str(CHECKOUT).startswith("/tmp/"):
        assert kinds[str(CHECKOUT)] == "overlay"
