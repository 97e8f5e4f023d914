"""Mounts whose owners are shown shifted, for a task in a user namespace of its own.

Rules of this file: what lies on disk stays as it is, with the ids that the image or the volume has; only the mount maps
them. So a root that is kept, or a volume, is right for any range of ids, today's and another boot's.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from core import mounts, syscalls
from core.errors import Unsupported
from core.mounts import MountSpec

_IDS: Final = 65536


@contextlib.contextmanager
def opened(users: Path) -> Iterator[int]:
    """A descriptor of the user namespace that is pinned at `users`, for the block."""
    fd = os.open(users, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def bind(source: str, target: Path, users: int) -> None:
    """Bind a file or folder, mapped, on `target`, which is made as the one or the other.

    Raises `Unsupported` for a file system that the kernel cannot map, `OSError` for the rest.
    """
    if os.path.isdir(source):
        target.mkdir(mode=0o755, exist_ok=True)
    else:
        target.touch(mode=0o600)
    try:
        syscalls.bind_mapped(source, str(target), users)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise Unsupported(
            f"the file system of {source} cannot be mounted with the ids of a user namespace",
            advice="Keep it on ext4, xfs, btrfs or tmpfs, or write userNamespace: {mode: host}.",
        ) from error


def attach(specs: Sequence[MountSpec], target: Path, users: int, first: int) -> None:
    """`mounts.attach`, mapped: folders are bound so, and an overlay is made of lower folders that are. Raises likewise.

    An overlay's upper folder is the task's alone, and empty: it is given to `first`, the id of root, since the kernel
    makes no overlay whose upper folder is mapped. The folder that holds the lower ones is mapped beside `target` for
    the moment in which the overlay is made.
    """
    for spec in specs:
        if "bind" in spec.options or "rbind" in spec.options:
            bind(str(Path(spec.prefix, spec.source)), target, users)
            flags = [word for word in spec.options if word in mounts.FLAGS and word not in ("bind", "rbind")]
            mounts.change(target, flags)
            continue
        layers = target.with_name(f"{target.name}-layers")
        options = dict(option.partition("=")[::2] for option in spec.options)
        lower = [os.path.join(spec.prefix, path) for path in options["lowerdir"].split(":")]
        top = os.path.commonpath([os.path.dirname(path) for path in lower])
        options["lowerdir"] = ":".join(os.path.relpath(path, top) for path in lower)
        for name in ("upperdir", "workdir"):
            if name in options:
                options[name] = os.path.join(spec.prefix, options[name])
        if "upperdir" in options:
            _give(options["upperdir"], first)
        words = tuple(f"{name}={value}" if value else name for name, value in options.items())
        try:
            bind(top, layers, users)
            mounts.attach([replace(spec, options=words, prefix=str(layers))], target)
        finally:
            mounts.detach(layers)
            layers.rmdir()


def _give(folder: str, first: int) -> None:
    """Shift a folder's owner into the range that begins at `first`; harmless when it has been."""
    seen = os.stat(folder)
    if seen.st_uid < _IDS and seen.st_gid < _IDS:
        os.chown(folder, first + seen.st_uid, first + seen.st_gid)
