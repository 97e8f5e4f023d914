"""In which control group what is born beside a task belongs: monitors out of the helpers' group, tasks in their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import cgroups
from core.cgroups import Hierarchies

_LOOKS: Final = 10


def move_out(found: Hierarchies, group: str, monitor: int) -> None:
    """Move a monitor to `<group>/monitors`, wherever we are tracked. Raises `OSError`.

    Out of the helpers' group, which ends with the engine; and out of a service manager's, which may end with it.
    """
    wanted = dict.fromkeys(path for path in (found.tracking, found.v1.get("name=systemd")) if path)
    for hierarchy in wanted:
        own = hierarchy / f"{group}/monitors".lstrip("/")
        try:
            cgroups.enter(own, monitor)
        except FileNotFoundError:
            cgroups.enter(cgroups.make(hierarchy, f"{group}/monitors"), monitor)


def settle(found: Hierarchies, helpers: Path | None, first: int, group: str) -> None:
    """Put a task's first process into its group of the hierarchy in which we are tracked.

    A runtime that does not know that hierarchy leaves the task there where it was born. Raises `OSError`.
    """
    tracking = found.tracking
    if tracking is not None and helpers is not None and first in cgroups.members(helpers):
        cgroups.enter(cgroups.make(tracking, group), first)


def gather(found: Hierarchies, helpers: Path | None, first: int, group: str) -> None:
    """Put a restored task's processes into its own groups. Raises `OSError`.

    CRIU puts them where they were written down, into groups of that name which it makes anew: those are removed when
    they are empty. What is forked while we move its parent is met by another look.
    """
    strange: dict[Path, None] = {}
    for _ in range(_LOOKS):
        moves = [
            (own, pid, place)
            for pid in _descending(first)
            for hierarchy, place in _places(pid, found)
            if (own := hierarchy / group.lstrip("/")) not in (place, *place.parents)
            and (own.is_dir() or hierarchy == found.tracking)
        ]
        if not moves:
            break
        for own, pid, place in moves:
            own.mkdir(parents=True, exist_ok=True)
            cgroups.enter(own, pid)
            strange[place] = None
    for place in strange:
        if place != helpers:
            with contextlib.suppress(OSError):  # somebody is in it
                place.rmdir()


def _descending(first: int) -> Iterator[int]:
    """A process and all that descends from it."""
    todo = [first]
    while todo:
        pid = todo.pop()
        yield pid
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # a child is listed with the thread that made it
            with contextlib.suppress(OSError):  # it has ended at this moment
                todo += map(int, thread.read_text().split())


def _places(pid: int, found: Hierarchies) -> Iterator[tuple[Path, Path]]:
    """The hierarchies, each with the folder of the group in it that a process is in; nothing of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        hierarchy = found.v1.get(names.split(",")[0]) if names else found.v2
        if hierarchy is not None:
            yield hierarchy, hierarchy / path.lstrip("/")
