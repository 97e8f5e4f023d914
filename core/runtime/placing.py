"""In which control group what is born beside a task belongs: monitors out of the helpers' group, tasks in their own."""

from __future__ import annotations

from pathlib import Path

from core import cgroups
from core.cgroups import Hierarchies


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
