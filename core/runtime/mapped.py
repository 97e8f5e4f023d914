"""The bundle of a task in a user namespace of its own: its root and what it mounts are mapped to the ids that it has.

Rules of this file: no runtime is asked to map anything (runc knows how since 1.2 only, and for mounts only): what it is
given is mapped already, below the bundle. Only the task's first id may enter the bundle, and the folders above let it
through without telling anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core import idmaps
from core.runtime.ports import NewTask

_MOUNTS: Final = "mounts"
_PASSABLE: Final = 0o711
_LOCKED: Final = {"ro": os.ST_RDONLY, "nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}


def users_of(spec: Mapping[str, Any]) -> tuple[Path, int] | None:
    """The pinned user namespace that a spec joins, and its first id; None: it joins none."""
    linux = spec.get("linux", {})
    pins = [Path(one["path"]) for one in linux.get("namespaces", ()) if one["type"] == "user" and "path" in one]
    return (pins[0], int(linux["uidMappings"][0]["hostID"])) if pins else None


def with_mapped_mounts(task: NewTask, bundle: Path) -> NewTask:
    """The task, its binds taken from below its bundle, where `fill` puts them."""
    moved = [
        {**mount, "source": str(bundle / _MOUNTS / str(number)), "options": _with_locked(mount)}
        if mount["type"] == "bind"
        else mount
        for number, mount in enumerate(task.spec["mounts"])
    ]
    return replace(task, spec={**task.spec, "mounts": moved})


def _with_locked(mount: Mapping[str, Any]) -> list[str]:
    """A bind's options, with those of its source that nobody in a user namespace may take away."""
    flags = os.statvfs(mount["source"]).f_flag
    options = [word for word in mount["options"] if word != "rw" or not flags & os.ST_RDONLY]
    return [*options, *(word for word, flag in _LOCKED.items() if flags & flag and word not in options)]


def fill(task: NewTask, work: Path, users: Path, first: int) -> None:
    """Mount root and binds, mapped, in a bundle that is being made. `task`: as it was asked for. Raises `OSError`."""
    for folder in (work.parent, work.parent.parent):
        os.chmod(folder, _PASSABLE)
    os.chown(work, first, first)
    (work / _MOUNTS).mkdir(mode=0o700)
    os.chown(work / _MOUNTS, first, first)
    with idmaps.opened(users) as fd:
        idmaps.attach(task.rootfs, work / "rootfs", fd, first)
        for number, mount in enumerate(task.spec["mounts"]):
            if mount["type"] == "bind":
                idmaps.bind(mount["source"], work / _MOUNTS / str(number), fd)
