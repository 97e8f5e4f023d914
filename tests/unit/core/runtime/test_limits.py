"""Limits and counters, on folders that look like control groups."""

import secrets
from pathlib import Path

import pytest

from core import cgroups
from core.cgroups import Hierarchies
from core.runtime import limits
from core.runtime.ports import Stats


def test_limits_of_version_two_are_written_in_its_files() -> None:
    resources = {
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024},
        "memory": {"limit": 1000, "swap": 1500},
        "pids": {"limit": 9},
    }
    assert limits.v2_values(resources) == {
        "cpu.max": "50000 100000",
        "cpu.weight": "39",
        "memory.max": "1000",
        "memory.swap.max": "500",
        "pids.max": "9",
    }
    assert limits.v2_values({}) == {}
    assert limits.v2_values({"cpu": {"quota": -1}}) == {"cpu.max": "max 100000"}


def test_a_sandbox_in_version_two_gets_its_controllers_and_its_limits(tmp_path: Path) -> None:
    limits.limit(Hierarchies(tmp_path, {}), "/g/box", {"pids": {"limit": 5}})
    assert (tmp_path / "g/box/pids.max").read_text() == "5"
    for folder in (tmp_path, tmp_path / "g"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_a_sandbox_in_version_one_gets_its_limits_in_each_hierarchy(tmp_path: Path) -> None:
    found = Hierarchies(None, {"memory": tmp_path / "memory", "pids": tmp_path / "pids"})
    for folder, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max")):
        (tmp_path / folder / "g/box").mkdir(parents=True)
        (tmp_path / folder / "g/box" / file).write_text("max")
    limits.limit(found, "/g/box", {"pids": {"limit": 5}, "memory": {"limit": 7, "swap": 7}, "cpu": {"shares": 2}})
    assert (tmp_path / "pids/g/box/pids.max").read_text() == "5"
    assert (tmp_path / "memory/g/box/memory.limit_in_bytes").read_text() == "7"


@pytest.mark.root
def test_a_limit_of_memory_in_version_one_is_raised_and_lowered_in_place() -> None:
    found = cgroups.hierarchies()
    if "memory" not in found.v1:
        pytest.skip("memory is not limited by cgroup version 1 here")
    group = f"/reconciler-limits-{secrets.token_hex(4)}"
    folder = found.v1["memory"] / group.lstrip("/")
    if not (found.v1["memory"] / "memory.memsw.limit_in_bytes").exists():
        pytest.skip("swap is not accounted here")
    try:
        for size in (64 << 20, 256 << 20, 16 << 20, -1, 32 << 20):
            limits.limit(found, group, {"memory": {"limit": size, "swap": size}})
            for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
                told = int((folder / name).read_text())
                assert told == size if size > 0 else told > 1 << 60, (size, name)
    finally:
        folder.rmdir()


def test_counters_of_version_two_are_read(tmp_path: Path) -> None:
    group = tmp_path / "g"
    group.mkdir()
    (group / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    (group / "memory.events").write_text("oom 3\noom_kill 2\n")
    (group / "pids.current").write_text("4\n")
    assert limits.counters(Hierarchies(tmp_path, {}), "/g") == Stats(2.5, 700, 4, 2)
    assert limits.counters(Hierarchies(tmp_path, {}), "/nothing") is None


def test_freezing_is_read_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    one, two = Hierarchies(None, {"freezer": tmp_path}), Hierarchies(tmp_path, {})
    assert not limits.frozen(one, "/g")
    (tmp_path / "g/freezer.state").write_text("FROZEN\n")
    (tmp_path / "g/cgroup.freeze").write_text("1\n")
    assert limits.frozen(one, "/g")
    assert limits.frozen(two, "/g")
    limits.thaw(one, "/g")
    limits.thaw(two, "/g")
    assert not limits.frozen(one, "/g")
    assert not limits.frozen(two, "/g")
    limits.thaw(one, "/nothing")
