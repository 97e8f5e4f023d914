"""The control groups of tasks and sandboxes: limits of a sandbox, freezing, members below, counters.

Rules of this file: a *group* is a path in every hierarchy. A task's own limits are its runtime's business; a sandbox
has no runtime, so its limits are written here. Members are signalled by pidfd, after a second look at where they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core import cgroups, proc
from core.cgroups import Hierarchies
from core.clock import Clock
from core.errors import TimedOut
from core.runtime.ports import Stats

_Place = tuple[str, str]
"""Where a value lies in OCI `linux.resources`."""
_V1_SUM: Final = "memory.memsw.limit_in_bytes"
_V1_FILES: Final[tuple[tuple[str, str, _Place], ...]] = (
    ("cpu", "cpu.cfs_period_us", ("cpu", "period")),
    ("cpu", "cpu.cfs_quota_us", ("cpu", "quota")),
    ("cpu", "cpu.shares", ("cpu", "shares")),
    ("memory", "memory.limit_in_bytes", ("memory", "limit")),
    ("memory", _V1_SUM, ("memory", "swap")),
    ("pids", "pids.max", ("pids", "limit")),
    ("cpuset", "cpuset.cpus", ("cpu", "cpus")),
    ("cpuset", "cpuset.mems", ("cpu", "mems")),
    ("blkio", "blkio.weight", ("blockIO", "weight")),
    ("blkio", "blkio.bfq.weight", ("blockIO", "weight")),
)
_V2_CONTROLLERS: Final = ("cpu", "memory", "pids")
_V2_MORE: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "cpuset": lambda resources: bool({"cpus", "mems"} & resources.get("cpu", {}).keys()),
    "io": lambda resources: "blockIO" in resources,
    "hugetlb": lambda resources: "hugepageLimits" in resources,
}
_V2_EITHER: Final = ("io.weight", "io.bfq.weight")


def folders(found: Hierarchies, group: str) -> list[Path]:
    """The folders of `group`, one a hierarchy, there or not."""
    return [hierarchy / group.lstrip("/") for hierarchy in found.all()]


def pids_below(found: Hierarchies, group: str) -> list[int]:
    """The processes in `group` and below, each once, from the hierarchy that has them."""
    seen: dict[int, None] = {}
    for folder in folders(found, group):
        for below, _, _ in os.walk(folder):
            seen.update(dict.fromkeys(cgroups.members(Path(below))))
    return list(seen)


def _is_below(pid: int, group: str) -> bool:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as source:
            lines = source.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any((line.split(":", 2)[2] + "/").startswith(group + "/") for line in lines)


def signal_all(found: Hierarchies, group: str, number: int) -> int:
    """Signal every process in `group` and below by pidfd; returns how many there were. Strangers are left alone."""
    count = 0
    for pid in pids_below(found, group):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            fd = os.pidfd_open(pid)
            try:
                if _is_below(pid, group):
                    signal.pidfd_send_signal(fd, signal.Signals(number))
                    count += 1
            finally:
                os.close(fd)
    return count


def frozen(found: Hierarchies, group: str) -> bool:
    """Whether the group's processes are frozen."""
    name = group.lstrip("/")
    try:
        if (freezer := found.v1.get("freezer")) is not None:
            return proc.read_small(f"{freezer}/{name}/freezer.state").startswith((b"FROZEN", b"FREEZING"))
        if found.v2 is not None:
            return proc.read_small(f"{found.v2}/{name}/cgroup.freeze").startswith(b"1")
    except OSError:
        return False
    return False


def thaw(found: Hierarchies, group: str) -> None:
    """Let the group's processes run again: a frozen one does not even die."""
    name = group.lstrip("/")
    with contextlib.suppress(OSError):  # no such group, or no freezer: then nothing is frozen
        if (freezer := found.v1.get("freezer")) is not None:
            (freezer / name / "freezer.state").write_text("THAWED")
        elif found.v2 is not None:
            (found.v2 / name / "cgroup.freeze").write_text("0")


def end_all(found: Hierarchies, group: str, clock: Clock, *, within: float) -> None:
    """SIGKILL everything in `group` and below until nothing is left; the groups stay. Raises `TimedOut`."""
    deadline = clock.monotonic() + within
    pause = 0.0005
    thaw(found, group)
    while signal_all(found, group, signal.SIGKILL):
        if clock.monotonic() > deadline:
            raise TimedOut(f"processes in {group} do not die: {pids_below(found, group)}")
        clock.sleep(pause)
        pause = min(0.02, pause * 2)


def limit(found: Hierarchies, group: str, resources: Mapping[str, Any]) -> None:
    """Make `group` in the hierarchies that `resources` (OCI `linux.resources`) needs, and write its limits.

    Raises `OSError`. cgroup version 1 and 2.
    """
    if found.pure_v2 and found.v2 is not None:
        _limit_v2(found.v2, group, resources)
        return
    for controller, file, (kind, name) in _v1_order(found, group, resources):
        value = resources.get(kind, {}).get(name)
        if value is None or controller not in found.v1:
            continue
        path = cgroups.make(found.v1[controller], group) / file
        if path.exists():  # memsw is not there where swap is not accounted
            path.write_text(str(value))
    for pages in resources.get("hugepageLimits", ()):
        if "hugetlb" in found.v1:
            own = cgroups.make(found.v1["hugetlb"], group)
            (own / f"hugetlb.{pages['pageSize']}.limit_in_bytes").write_text(str(pages["limit"]))


def _v1_order(found: Hierarchies, group: str, resources: Mapping[str, Any]) -> tuple[tuple[str, str, _Place], ...]:
    """The files in the order in which they can be written: memory without swap is never above memory with it.

    The kernel refuses otherwise (EINVAL), so what is to rise above the present sum has the sum raised first.
    """
    most = resources.get("memory", {}).get("limit")
    both = cgroups.read_int(_v1(found, "memory", group.lstrip("/")) / _V1_SUM)
    if most is None or both is None or 0 <= most <= both:
        return _V1_FILES
    return tuple(sorted(_V1_FILES, key=lambda one: one[1] != _V1_SUM))


def _limit_v2(root: Path, group: str, resources: Mapping[str, Any]) -> None:
    folder = cgroups.make(root, group)
    parent = root
    wanted = [*_V2_CONTROLLERS, *(name for name, is_needed in _V2_MORE.items() if is_needed(resources))]
    for part in Path(group.lstrip("/")).parts:
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        parent = parent / part
    for name, value in v2_values(resources).items():
        if name in _V2_EITHER and not (folder / name).exists():
            continue  # the other scheduler's
        (folder / name).write_text(value)


def v2_values(resources: Mapping[str, Any]) -> dict[str, str]:
    """OCI `linux.resources` as the files of cgroup version 2 (kernel, cgroup-v2.rst)."""
    cpu, memory, pids = (resources.get(name, {}) for name in _V2_CONTROLLERS)
    values: dict[str, str] = {}
    if (quota := cpu.get("quota")) is not None:
        values["cpu.max"] = f"{quota if quota > 0 else 'max'} {cpu.get('period', 100_000)}"
    if (shares := cpu.get("shares")) is not None:
        values["cpu.weight"] = str(1 + ((max(2, min(262_144, shares)) - 2) * 9999) // 262_142)
    if (most := memory.get("limit")) is not None:
        values["memory.max"] = str(most)
    if (swap := memory.get("swap")) is not None and most is not None:
        values["memory.swap.max"] = str(max(0, swap - most))
    if (count := pids.get("limit")) is not None:
        values["pids.max"] = str(count)
    for name in ("cpus", "mems"):
        if name in cpu:
            values[f"cpuset.{name}"] = str(cpu[name])
    if (weight := resources.get("blockIO", {}).get("weight")) is not None:
        values |= {"io.weight": f"default {1 + (weight - 10) * 9999 // 990}", "io.bfq.weight": str(weight)}
    for pages in resources.get("hugepageLimits", ()):
        values[f"hugetlb.{pages['pageSize']}.max"] = str(pages["limit"])
    return values


def counters(found: Hierarchies, group: str) -> Stats | None:
    """What the group has used since its start, and holds now (memory without file pages that are easily dropped)."""
    name = group.lstrip("/")
    if found.pure_v2 and found.v2 is not None:
        return _counters_v2(found.v2 / name)
    if not any(folder.is_dir() for folder in folders(found, group)):
        return None
    cpu, memory, pids = (_v1(found, controller, name) for controller in ("cpuacct", "memory", "pids"))
    used = cgroups.read_int(memory / "memory.usage_in_bytes") or 0
    cold = cgroups.read_table(memory / "memory.stat").get("total_inactive_file", 0)
    return Stats(
        cpu_seconds=(cgroups.read_int(cpu / "cpuacct.usage") or 0) / 1e9,
        memory=max(0, used - cold),
        pids=cgroups.read_int(pids / "pids.current") or 0,
        oom_kills=cgroups.read_table(memory / "memory.oom_control").get("oom_kill", 0),
    )


def _v1(found: Hierarchies, controller: str, name: str) -> Path:
    return found.v1.get(controller, Path("/nonexistent")) / name


def _counters_v2(folder: Path) -> Stats | None:
    if not folder.is_dir():
        return None
    used = cgroups.read_int(folder / "memory.current") or 0
    cold = cgroups.read_table(folder / "memory.stat").get("inactive_file", 0)
    return Stats(
        cpu_seconds=cgroups.read_table(folder / "cpu.stat").get("usage_usec", 0) / 1e6,
        memory=max(0, used - cold),
        pids=cgroups.read_int(folder / "pids.current") or 0,
        oom_kills=cgroups.read_table(folder / "memory.events").get("oom_kill", 0),
    )
