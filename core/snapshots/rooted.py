"""Folders below a root that nothing in a path can leave.

Rules of this file: every folder is reached by openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) from the root's
descriptor, so that `..`, absolute links and /proc's links end inside; what is made in a folder is made by a single name
relative to its descriptor. No path string is ever handed to a call that resolves it from outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from core import syscalls
from core.errors import Invalid
from core.values import dataclass

OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_RESOLVE: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_REACH: Final = os.O_RDONLY | os.O_DIRECTORY
_KEPT_OPEN: Final = 64
_MAX_LINKS: Final = 40
_DEFAULT_ACL: Final = "system.posix_acl_default"


class Beneath(StrEnum):
    """What lies under the layer that is applied."""

    NOTHING = "nothing"
    """It is the first one."""
    HIDDEN = "hidden"
    """Parents, which cannot be seen from here: what needs them raises `NeedsParent`."""
    VISIBLE = "visible"
    """Parents, whose files are in the root: they are changed in place."""


class NeedsParent(Exception):
    """Only on top of its parents can this layer be applied; says why."""


@dataclass(slots=True)
class Folder:
    """An open folder. `inherits`: what is made inside takes a group or an ACL from it unless told otherwise."""

    fd: int
    inode: int
    inherits: bool


class Root:
    """The root of all paths of one layer, with the last used folders kept open.

    `made()` is called for every folder made on the way to a name, `met(path, status)` for one that was there already.
    """

    def __init__(
        self, fd: int, beneath: Beneath, made: Callable[[], None], met: Callable[[bytes, os.stat_result], None]
    ) -> None:
        self.fd = fd
        self._beneath = beneath
        self._made = made
        self._met = met
        self._open: dict[bytes, Folder] = {}

    def folder(self, path: bytes) -> Folder:
        """The folder at clean relative `path` (`b""`: the root), made with its parents (0755) when it is not there.

        Stays open until 63 others were asked for. Raises `NeedsParent`, `Invalid` (a file is in the way, or a loop).
        """
        found = self._open.pop(path, None)
        if found is None:
            found = self._reach(path, make=True)
        if found is None:
            raise Invalid(f"{_show(path)} is not a folder")
        return self._keep(path, found)

    def existing(self, path: bytes) -> Folder | None:
        """As `folder`, but None when it is not there and `NeedsParent` when it might be in a parent."""
        found = self._open.pop(path, None) or self._reach(path, make=False)
        return None if found is None else self._keep(path, found)

    def adopt(self, path: bytes, folder: Folder) -> None:
        """Keep a folder open that was just made at `path`."""
        if (before := self._open.pop(path, None)) is not None:
            os.close(before.fd)
        self._keep(path, folder)

    def forget(self, but: Folder | None = None) -> None:
        """Close all kept folders `but` one: something was removed or replaced, and paths may lead elsewhere now."""
        for path, folder in list(self._open.items()):
            if folder is not but:
                os.close(folder.fd)
                del self._open[path]

    def reach(self, path: bytes) -> int:
        """A new descriptor of the folder that `path` leads to; raises `OSError`."""
        while True:
            try:
                return syscalls.openat2(self.fd, path or b".", _REACH, resolve=_RESOLVE)
            except OSError as error:
                if error.errno != errno.EAGAIN:  # somebody renamed something while `..` was resolved
                    raise

    def _keep(self, path: bytes, folder: Folder) -> Folder:
        self._open[path] = folder
        if len(self._open) > _KEPT_OPEN:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest).fd)
        return folder

    def _reach(self, path: bytes, *, make: bool) -> Folder | None:
        try:
            fd = self.reach(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Invalid(f"{_show(path)} leads through a loop of links, or out of the layer") from None
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            if self._beneath is Beneath.HIDDEN:
                raise NeedsParent(f"folder {_show(path)} is not in the layer") from None
            if not make:
                return None
            fd = self._make(path)
        return self._seen(path, fd)

    def _seen(self, path: bytes, fd: int) -> Folder:
        status = os.fstat(fd)
        self._met(path, status)
        inherits = bool(status.st_mode & stat.S_ISGID)
        if not inherits:
            with contextlib.suppress(OSError):  # ENODATA, ENOTSUP: there is no default ACL
                inherits = bool(os.getxattr(fd, _DEFAULT_ACL))
        return Folder(fd, status.st_ino, inherits)

    def _make(self, path: bytes) -> int:
        # Walks `path` name by name with its links expanded by hand, since the kernel makes no folders on the way.
        todo = path.split(b"/")[::-1]
        real: list[bytes] = []
        links = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del real[-1:]
                continue
            parent = self.folder(b"/".join(real))
            mode = _mode(name, parent.fd)
            if mode is None:
                self._made()
                os.mkdir(name, 0o755, dir_fd=parent.fd)
            elif stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise Invalid(f"{_show(path)} leads through too many links")
                target = os.readlink(name, dir_fd=parent.fd)
                if target.startswith(b"/"):
                    real.clear()
                todo.extend(target.split(b"/")[::-1])
                continue
            elif not stat.S_ISDIR(mode):
                raise Invalid(f"{_show(b'/'.join([*real, name]))} is not a folder, yet the layer puts files into it")
            real.append(name)
        return self.reach(b"/".join(real))


def _mode(name: bytes, folder: int) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _show(path: bytes) -> str:
    return "/" + path[:200].decode("utf-8", "replace")
