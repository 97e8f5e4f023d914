"""Two trees of files compared: what a snapshot holds now, and what it holds when it is unpacked anew.

Rules of this file: nothing is written, no link is followed; of each folder only the names, of each file only a piece is
in memory; what is read is taken out of the page cache before, so that the disk is what is looked at. Times are not
compared, nor what overlayfs notes for itself: it changes with every mount. Names that lie deeper than the system takes
(4095 bytes from the root folder) are not looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_CHUNK: Final = 1 << 18
_DEEPEST: Final = 4000
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN: Final = "trusted.overlay."
_TELLING: Final = "trusted.overlay.opaque"
"""The one of overlayfs's attributes that a layer says: whiteouts are device nodes, and compared as such."""
_HOSTS: Final = "security.selinux"


def differences(found: Path, wanted: Path, tick: Callable[[int], None]) -> Iterator[str]:
    """A sentence for each file at or below folder `found` that is not as below `wanted`, by one of its names;
    `tick` is told bytes read.

    Compared are names, types, modes, owners, device numbers, sizes, bytes, link targets and extended attributes. Raises
    `OSError` when something cannot be read.
    """
    tops = os.fsencode(found), os.fsencode(wanted)
    if fault := differs(*tops, tick):
        yield f"/ {fault}"
    todo, linked = [b""], set[tuple[int, int]]()
    while todo:
        inside = todo.pop()
        left, right = (set(os.listdir(top + inside)) for top in tops)
        yield from (f"{_shown(inside + b'/' + name)} is missing" for name in sorted(right - left))
        yield from (f"{_shown(inside + b'/' + name)} was added" for name in sorted(left - right))
        for name in sorted(left & right):
            path = inside + b"/" + name
            here, there = tops[0] + path, tops[1] + path
            if max(len(here), len(there)) > _DEEPEST:
                continue
            seen, meant = os.lstat(here), os.lstat(there)
            if (inodes := (seen.st_ino, meant.st_ino)) in linked:
                continue  # another name of two files that were compared
            if seen.st_nlink > 1 and not stat.S_ISDIR(seen.st_mode):
                linked.add(inodes)
            if fault := differs(here, there, tick):
                yield f"{_shown(path)} {fault}"
            elif stat.S_ISDIR(seen.st_mode):
                todo.append(path)


def differs(found: bytes, wanted: bytes, tick: Callable[[int], None]) -> str:
    """What is not the same about two names; empty: nothing. Raises `OSError` when something cannot be read."""
    here, there = os.lstat(found), os.lstat(wanted)
    if stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
        return "is of another type"
    if here.st_mode != there.st_mode:
        return f"has mode {stat.S_IMODE(here.st_mode):04o}, not {stat.S_IMODE(there.st_mode):04o}"
    if (here.st_uid, here.st_gid) != (there.st_uid, there.st_gid):
        return f"belongs to {here.st_uid}:{here.st_gid}, not to {there.st_uid}:{there.st_gid}"
    if here.st_rdev != there.st_rdev:
        return "is another device"
    if _attributes(found) != _attributes(wanted):
        return "has other attributes"
    if stat.S_ISLNK(here.st_mode):
        return "" if os.readlink(found) == os.readlink(wanted) else "leads elsewhere"
    if not stat.S_ISREG(here.st_mode):
        return ""
    if here.st_size != there.st_size:
        return f"has {here.st_size} bytes, not {there.st_size}"
    return "" if _same_bytes(found, wanted, tick) else "has other bytes"


def _attributes(path: bytes) -> dict[str, bytes]:
    names = (os.fsdecode(name) for name in os.listxattr(path, follow_symlinks=False))
    told = (name for name in names if name == _TELLING or not (name.startswith(_OWN) or name == _HOSTS))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in told}


def _same_bytes(found: bytes, wanted: bytes, tick: Callable[[int], None]) -> bool:
    with open(os.open(found, _READ), "rb", buffering=0) as here, open(os.open(wanted, _READ), "rb") as there:
        os.posix_fadvise(here.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := here.read(_CHUNK):
            tick(len(piece))
            if there.read(len(piece)) != piece:
                return False
        os.posix_fadvise(here.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not there.read(1)


def _shown(path: bytes) -> str:
    return path[:300].decode("utf-8", "backslashreplace")
