"""Mounts as values, made and unmade: what a snapshotter hands out and a runtime puts in place.

Glossary. *target*: the folder on which a mount appears. *prefix*: a folder against which the relative paths inside
`options` are read, so that sixty lower folders still fit in the page that mount(2) takes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core import proc, syscalls
from core.values import dataclass

FLAGS: Final = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "bind": syscalls.MS_BIND,
    "rbind": syscalls.MS_BIND | syscalls.MS_REC,
}
"""Options that are flags of mount(2)."""
_CLONE_FS: Final = 0x00000200


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One mount still without its target: `type` (overlay, bind, …), `source`, `options` as in fstab, `prefix`."""

    type: str
    source: str
    options: tuple[str, ...] = ()
    prefix: str = ""


def attach(specs: Sequence[MountSpec], target: Path) -> None:
    """Mount `specs` in order on `target`, which exists; raises `OSError` and leaves nothing mounted on failure."""
    done = 0
    try:
        for spec in specs:
            _mount(spec, str(target))
            done += 1
    except OSError:
        for _ in range(done):
            syscalls.umount(str(target))
        raise


def _mount(spec: MountSpec, target: str) -> None:
    flags = 0
    data: list[str] = []
    for option in spec.options:
        if option in FLAGS:
            flags |= FLAGS[option]
        elif option != "rw":
            data.append(option)
    fstype = "" if flags & syscalls.MS_BIND else spec.type
    _call(spec, target, fstype, flags, ",".join(data))
    if flags & syscalls.MS_BIND and flags & (syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID):
        # A bind mount takes its flags only in a second call.
        syscalls.mount("none", target, "", flags | syscalls.MS_REMOUNT)


def change(target: Path, options: Sequence[str]) -> None:
    """Give a bind mount these flags; raises `OSError`."""
    flags = 0
    for option in options:
        flags |= FLAGS[option]
    if flags:
        syscalls.mount("none", str(target), "", flags | syscalls.MS_BIND | syscalls.MS_REMOUNT)


def _call(spec: MountSpec, target: str, fstype: str, flags: int, data: str) -> None:
    if not spec.prefix:
        syscalls.mount(spec.source, target, fstype, flags, data)
        return

    def from_prefix() -> None:
        syscalls.unshare(_CLONE_FS)
        os.chdir(spec.prefix)
        syscalls.mount(spec.source, target, fstype, flags, data)

    syscalls.in_own_thread(from_prefix)


def detach(target: Path) -> bool:
    """Unmount everything stacked on `target`; False when nothing was. A busy mount is detached lazily as a last resort.

    Raises `OSError` for anything but "not mounted".
    """
    found = False
    while True:
        try:
            syscalls.umount(str(target))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return found
            if error.errno == errno.EPERM and os.geteuid() != 0:  # who may not mount has mounted nothing
                return found
            if error.errno != errno.EBUSY:
                raise
            syscalls.umount(str(target), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        found = True


def detach_below(folder: Path) -> int:
    """Unmount all that is mounted at or below `folder`, innermost first; returns how many there were."""
    seen = proc.mounts(str(folder))
    for mount in reversed(seen):
        detach(Path(mount.target))
    return len(seen)
