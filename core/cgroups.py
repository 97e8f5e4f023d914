"""Control groups, version 1, 2 and the hybrid of both: groups by name, their members, their ends, their counters.

Glossary. *group*: a path below the hierarchies' mount points, such as `/reconciler-1a2b3c4d/helpers`. *tracking
hierarchy*: the one in which our own processes are kept together (version 2 where it can be written, else a version 1
hierarchy); limits are the OCI runtime's business and lie in all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from core import proc
from core.clock import Clock
from core.errors import TimedOut
from core.values import dataclass

_V1_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")
_LIMITING: Final = frozenset(("cpu", "memory", "pids", "devices", "freezer"))
"""The controllers in which every runtime puts every task into its group."""
_V1_TRACKING: Final = ("freezer", "pids", "devices", "cpu")


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where cgroups are mounted on this node."""

    v2: Path | None
    v1: dict[str, Path]

    @property
    def tracking(self) -> Path | None:
        """The hierarchy that keeps our processes together; None when there is none that we may write."""
        candidates = [self.v2, *(self.v1.get(name) for name in _V1_TRACKING)]
        return next((path for path in candidates if path is not None and os.access(path, os.W_OK)), None)

    @property
    def pure_v2(self) -> bool:
        """Whether version 2 is the only one."""
        return self.v2 is not None and not self.v1

    def all(self) -> list[Path]:
        """Every mount point."""
        return [*([self.v2] if self.v2 else []), *dict.fromkeys(self.v1.values())]


def hierarchies() -> Hierarchies:
    """Read the mount table once."""
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for seen in proc.mounts("/sys/fs/cgroup"):
        if seen.fstype == "cgroup2":
            v2 = v2 or Path(seen.target)
        elif seen.fstype == "cgroup":
            for option in seen.options.split(","):
                if option in _V1_CONTROLLERS or option.startswith("name="):
                    v1.setdefault(option, Path(seen.target))
    return Hierarchies(v2, v1)


def make(hierarchy: Path, group: str) -> Path:
    """Make `group` (and its parents) in one hierarchy; returns its folder."""
    folder = hierarchy / group.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def members(folder: Path) -> list[int]:
    """The processes in one group, not below; empty when the group is not there.

    Those of another pid namespace show as 0 and are left out: nobody may signal number 0 (our own process group).
    """
    try:
        text = (folder / "cgroup.procs").read_text()
    except (FileNotFoundError, OSError):
        return []
    return [int(line) for line in text.split() if line != "0"]


def left_behind(pid: int, group: str, found: Hierarchies) -> str:
    """The names of the hierarchies, with commas, in which process `pid` is neither in `group` nor below it.

    Of version 2 beside version 1 nothing is said: not everybody makes groups there. "" also for a process that is gone.
    """
    try:
        lines = proc.read_small(f"/proc/{pid}/cgroup").decode(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    where = {names: f"{path}/" for _, names, path in (line.split(":", 2) for line in lines)}
    wanted = [""] if found.pure_v2 else [names for names in where if _LIMITING.intersection(names.split(","))]
    outside = ",".join(names or "unified" for names in wanted if f"{group}/" not in where.get(names, ""))
    return "" if outside and proc.is_ending(pid) else outside  # who ends is shown at the top


def enter(folder: Path, pid: int) -> bool:
    """Move process `pid` into the group; False when the process is gone already."""
    try:
        (folder / "cgroup.procs").write_text(f"{pid}\n")
    except ProcessLookupError:
        return False
    return True


def end(folder: Path, clock: Clock, *, within: float = 10.0) -> None:
    """SIGKILL every process in the group and below until none is left, then remove the groups.

    Raises `TimedOut` when some process does not go away `within` seconds (uninterruptible sleep). Harmless when the
    group is not there. A process that enters meanwhile is killed too: removal succeeds only on an empty group.
    """
    deadline = clock.monotonic() + within
    pause = 0.0005
    while folder.exists():
        if _end_once(folder):
            return
        if clock.monotonic() > deadline:
            raise TimedOut(f"processes in {folder} do not die: {members(folder)}")
        clock.sleep(pause)
        pause = min(0.05, pause * 2)


def _end_once(folder: Path) -> bool:
    for below, _, _ in os.walk(folder, topdown=False):
        group = Path(below)
        for pid in members(group):
            with contextlib.suppress(ProcessLookupError):  # it went before we got to it
                os.kill(pid, signal.SIGKILL)
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # EBUSY: still has a member, dying or just come
            return False
    return True


def remove_everywhere(group: str, found: Hierarchies, clock: Clock) -> None:
    """End and remove `group` in every hierarchy."""
    for hierarchy in found.all():
        end(hierarchy / group.lstrip("/"), clock)


def read_int(path: Path) -> int | None:
    """A counter file as a number; None when it is not there or says `max`."""
    try:
        text = path.read_text().split("\n", 1)[0].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def read_table(path: Path) -> dict[str, int]:
    """A file of `name number` lines; empty when it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
