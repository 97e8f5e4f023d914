"""Applying one layer to a folder (OCI image-spec, layer.md): right result or a clear error, and never outside.

Rules of this file, where the specification leaves a choice:

- `..` and absolute names are read as if the layer's root were `/` (confined, as all known tools do).
- A later entry of a name replaces an earlier one, and never acts through it. A folder named again keeps its content.
- A name below something that is not a folder is refused.
- A whiteout hides what parents hold, never what this layer holds, in whatever order they come. A character device 0/0
  is overlayfs's own whiteout and is taken as one; extended attributes that speak to overlayfs are refused.
- Hard links carry no metadata: changing it would change the target, or what a link points at.
- A folder that the layer does not name keeps its times.

The process's umask is 0 while a layer is applied, so that a mode given at creation needs no second call; only worker
processes apply layers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from core import tar
from core.errors import AgentError, Invalid, NoSpace, OverLimit, Unsupported, from_os_error
from core.fsio import clear_folder
from core.snapshots.rooted import OPEN_FOLDER, Beneath, Folder, NeedsParent, Root
from core.values import dataclass

OPAQUE: Final = "trusted.overlay.opaque"
_WHITEOUT: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_PATH: Final = 4095
_FAULTS_OF_THE_LAYER: Final = frozenset(
    (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EEXIST,
     errno.EPERM, errno.EMLINK, errno.ENOTEMPTY, errno.ERANGE, errno.E2BIG, errno.EOVERFLOW)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one layer may cost. `scarce`: the inodes are what the file system has left, not what the budget says."""

    bytes: int
    inodes: int
    scarce: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What a layer came to: bytes and inodes written, and whether it named the root folder itself."""

    bytes: int
    inodes: int
    named_root: bool


def apply_layer(root: int, beneath: Beneath, source: tar.TarReader, allowance: Allowance) -> Applied:
    """Apply the members of `source` to the folder open as `root`.

    Raises `NeedsParent` (only with `Beneath.HIDDEN`), `Invalid`, `OverLimit`, `NoSpace`, `Unsupported`, `Failed`; the
    folder then holds a part of the layer.
    """
    before = os.umask(0)
    layer = _Layer(root, beneath, source, allowance)
    try:
        layer.run()
    except OSError as error:
        raise _explain(error, layer.current) from error
    finally:
        os.umask(before)
        layer.root.forget()
    return Applied(layer.bytes, layer.inodes, layer.named_root)


def _explain(error: OSError, name: bytes) -> AgentError:
    doing = f"applying {name[:200].decode('utf-8', 'replace')!r}"
    if error.errno in _FAULTS_OF_THE_LAYER:
        return Invalid(f"{doing}: {error.strerror}", advice="The layer itself is at fault; another copy will not help.")
    if error.errno == errno.ENOTSUP:
        return Unsupported(f"{doing}: the file system cannot hold its extended attributes")
    return from_os_error(error, doing)


class _Layer:
    def __init__(self, root: int, beneath: Beneath, source: tar.TarReader, allowance: Allowance) -> None:
        self.root = Root(root, beneath, self._count, self._met)
        self.bytes = 0
        self.inodes = 0
        self.named_root = False
        self.current = b""
        self._beneath = beneath
        self._source = source
        self._allowance = allowance
        self._times: dict[int, tuple[bytes, int, int]] = {}
        self._own: set[tuple[int, bytes]] = set()

    def run(self) -> None:
        makers = {
            tar.REGULAR: self._file,
            tar.DIRECTORY: self._folder,
            tar.SYMLINK: self._symlink,
            tar.HARDLINK: self._hardlink,
            tar.CHARACTER: self._node,
            tar.BLOCK_DEVICE: self._node,
            tar.FIFO: self._node,
        }
        track = self._own.add if self._beneath is Beneath.VISIBLE else None
        while (member := self._source.next()) is not None:
            self.current = member.name
            self._count()
            self._charge(member)
            path = _clean(member.name)
            head, _, base = path.rpartition(b"/")
            if not path:
                self._root_itself(member)
            elif base.startswith(_WHITEOUT):
                self._whiteout(head, base)
            elif _WHITEOUT in head and b"/.wh." in b"/" + head:
                raise Invalid(f"the layer puts files into a whiteout: {path[:200]!r}")
            elif member.kind == tar.CHARACTER and not member.major and not member.minor:
                self._hide(head, base)
            else:
                maker = makers.get(member.kind)
                if maker is None:
                    raise Invalid(f"the layer holds {path[:200]!r} of unknown type {chr(member.kind)!r}")
                folder = self.root.folder(head)
                maker(member, folder, base, path)
                if track:
                    track((folder.inode, base))
        self.current = b"its folders' times"
        self._set_times()

    def _count(self) -> None:
        self.inodes += 1
        if self.inodes > self._allowance.inodes:
            if self._allowance.scarce:
                raise NoSpace(f"the layer needs more than the {self._allowance.inodes} inodes that are left")
            raise OverLimit(f"the layer holds more than {self._allowance.inodes} files")

    def _charge(self, member: tar.Member) -> None:
        if member.kind == tar.REGULAR:
            self.bytes += member.size
        if self.bytes > self._allowance.bytes:
            raise OverLimit(f"the layer holds more than {self._allowance.bytes} bytes")
        for name in member.xattrs:
            if b".overlay." in name:
                raise Invalid(f"{member.name[:200]!r} has an attribute that speaks to overlayfs: {name[:80]!r}")

    def _met(self, path: bytes, status: os.stat_result) -> None:
        if self._beneath is Beneath.VISIBLE:
            self._times.setdefault(status.st_ino, (path, status.st_atime_ns, status.st_mtime_ns))

    def _set_times(self) -> None:
        for inode, (path, atime, mtime) in self._times.items():
            try:
                fd = self.root.reach(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a later entry replaced it
                    continue
                raise
            try:
                if os.fstat(fd).st_ino == inode:
                    os.utime(fd, ns=(atime, mtime))
            finally:
                os.close(fd)

    def _root_itself(self, member: tar.Member) -> None:
        if member.kind != tar.DIRECTORY:
            raise Invalid("the layer's root is not a folder")
        self._dress(self.root.fd, member, exact=True)
        self._times[os.fstat(self.root.fd).st_ino] = (b"", member.atime, member.mtime)
        self.named_root = True

    def _file(self, member: tar.Member, folder: Folder, base: bytes, path: bytes) -> None:
        try:
            fd = os.open(base, _NEW_FILE, member.mode & 0o7777, dir_fd=folder.fd)
        except FileExistsError:
            self._clear_way(folder, base)
            fd = os.open(base, _NEW_FILE, member.mode & 0o7777, dir_fd=folder.fd)
        try:
            piece = self._source.piece
            while part := piece():
                written = os.write(fd, part)
                while written < len(part):
                    written += os.write(fd, part[written:])
            if folder.inherits or member.uid or member.gid or member.mode & 0o7000 or member.xattrs:
                self._dress(fd, member, exact=folder.inherits)
            os.utime(fd, ns=(member.atime, member.mtime))
        finally:
            os.close(fd)

    def _folder(self, member: tar.Member, folder: Folder, base: bytes, path: bytes) -> None:
        exact, opaque = folder.inherits, False
        try:
            os.mkdir(base, member.mode & 0o1777, dir_fd=folder.fd)
        except FileExistsError:
            exact = True
            if not stat.S_ISDIR(os.stat(base, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                self._clear_way(folder, base)
                os.mkdir(base, member.mode & 0o1777, dir_fd=folder.fd)
                # What was here hid the parents' folder of this name; the new folder must not let it show again.
                opaque = self._beneath is Beneath.HIDDEN
        fd = os.open(base, OPEN_FOLDER, dir_fd=folder.fd)
        inode = os.fstat(fd).st_ino
        inherits = bool(member.mode & stat.S_ISGID) or b"system.posix_acl_default" in member.xattrs
        self.root.adopt(path, Folder(fd, inode, inherits))
        self._dress(fd, member, exact=exact)
        if opaque:
            os.setxattr(fd, OPAQUE, b"y")
        self._times[inode] = (path, member.atime, member.mtime)

    def _symlink(self, member: tar.Member, folder: Folder, base: bytes, path: bytes) -> None:
        self._make(folder, base, lambda: os.symlink(member.link, base, dir_fd=folder.fd))
        self._dress_node(member, folder, base)

    def _node(self, member: tar.Member, folder: Folder, base: bytes, path: bytes) -> None:
        kinds = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        mode = member.mode & 0o7777 | kinds[member.kind]
        device = 0 if member.kind == tar.FIFO else os.makedev(member.major, member.minor)
        self._make(folder, base, lambda: os.mknod(base, mode, device, dir_fd=folder.fd))
        if folder.inherits or member.uid or member.gid or member.mode & 0o7000:
            os.chown(base, member.uid, member.gid, dir_fd=folder.fd, follow_symlinks=False)
            os.chmod(base, member.mode & 0o7777, dir_fd=folder.fd)  # follows no link: the node was just made
        self._dress_node(member, folder, base)

    def _hardlink(self, member: tar.Member, folder: Folder, base: bytes, path: bytes) -> None:
        head, _, name = _clean(member.link).rpartition(b"/")
        target = self.root.existing(head)
        folder = self.root.folder(path.rpartition(b"/")[0])
        try:
            if target is None or not name:
                raise FileNotFoundError
            status = os.stat(name, dir_fd=target.fd, follow_symlinks=False)
        except FileNotFoundError:
            if self._beneath is Beneath.HIDDEN:
                raise NeedsParent(f"the target of hard link {path[:200]!r} is not in the layer") from None
            raise Invalid(f"{path[:200]!r} is a hard link to {member.link[:200]!r}, which is not there") from None
        if self._beneath is Beneath.HIDDEN and stat.S_ISCHR(status.st_mode) and not status.st_rdev:
            raise NeedsParent(f"the target of hard link {path[:200]!r} is a whiteout")
        if (target.inode, name) == (folder.inode, base):
            return
        try:
            os.link(name, base, src_dir_fd=target.fd, dst_dir_fd=folder.fd, follow_symlinks=False)
        except FileExistsError:
            self._clear_way(folder, base)
            self._hardlink(member, folder, base, path)

    def _make(self, folder: Folder, base: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear_way(folder, base)
            make()

    def _clear_way(self, folder: Folder, base: bytes) -> None:
        if stat.S_ISDIR(os.stat(base, dir_fd=folder.fd, follow_symlinks=False).st_mode):
            self._empty(folder, base, None)
            os.rmdir(base, dir_fd=folder.fd)
            self.root.forget(folder)
        else:
            os.unlink(base, dir_fd=folder.fd)

    def _empty(self, folder: Folder, base: bytes, keep: Callable[[int, bytes], bool] | None) -> None:
        fd = os.open(base, OPEN_FOLDER, dir_fd=folder.fd)
        try:
            clear_folder(fd, keep)
        finally:
            os.close(fd)

    def _dress(self, fd: int, member: tar.Member, *, exact: bool) -> None:
        if exact:
            _strip(fd)
        if exact or member.uid or member.gid:
            os.fchown(fd, member.uid, member.gid)
        if exact or member.mode & 0o7000:
            os.fchmod(fd, member.mode & 0o7777)
        for name, value in member.xattrs.items():
            os.setxattr(fd, name, value)

    def _dress_node(self, member: tar.Member, folder: Folder, base: bytes) -> None:
        if member.kind == tar.SYMLINK and (folder.inherits or member.uid or member.gid):
            os.chown(base, member.uid, member.gid, dir_fd=folder.fd, follow_symlinks=False)
        for name, value in member.xattrs.items():
            os.setxattr(b"/proc/self/fd/%d/%s" % (folder.fd, base), name, value, follow_symlinks=False)
        os.utime(base, ns=(member.atime, member.mtime), dir_fd=folder.fd, follow_symlinks=False)

    def _whiteout(self, head: bytes, base: bytes) -> None:
        if base == _OPAQUE_MARK:
            self._hide_all(head)
        elif not base.startswith(_AUFS):  # aufs's own records hide nothing
            name = base[len(_WHITEOUT) :]
            if name in (b"", b".", b".."):
                raise Invalid(f"the layer holds a whiteout of nothing: {base!r}")
            self._hide(head, name)

    def _hide(self, head: bytes, name: bytes) -> None:
        if self._beneath is Beneath.NOTHING:
            return
        folder = self.root.existing(head)
        if folder is None:
            return
        if self._beneath is Beneath.VISIBLE:
            self._take_away(folder, name)
            return
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder.fd)
        except FileExistsError:
            # This layer's own: a file hides its namesake by being there, a folder has to be told.
            if stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                self._hide_all(head + b"/" + name if head else name)

    def _hide_all(self, path: bytes) -> None:
        if self._beneath is Beneath.NOTHING:
            return
        if self._beneath is Beneath.HIDDEN and not path:
            raise NeedsParent("the layer hides everything beneath its root")
        folder = self.root.existing(path)
        if folder is None:
            return
        if self._beneath is Beneath.HIDDEN:
            os.setxattr(folder.fd, OPAQUE, b"y")
        else:
            clear_folder(folder.fd, self._is_own)
            self.root.forget()

    def _take_away(self, folder: Folder, name: bytes) -> None:
        own = self._is_own(folder.inode, name)
        try:
            is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if is_folder:
            self._empty(folder, name, self._is_own)
            if not own and not self._holds_something(folder, name):
                os.rmdir(name, dir_fd=folder.fd)
        elif not own:
            os.unlink(name, dir_fd=folder.fd)
        self.root.forget()

    def _is_own(self, inode: int, name: bytes) -> bool:
        return (inode, name) in self._own

    def _holds_something(self, folder: Folder, name: bytes) -> bool:
        fd = os.open(name, OPEN_FOLDER, dir_fd=folder.fd)
        try:
            return bool(os.listdir(fd))
        finally:
            os.close(fd)


def _strip(fd: int) -> None:
    # Drops what a folder had before, or what a new file took from its folder; labels are the host's own.
    for name in os.listxattr(fd):
        if not name.startswith(("trusted.overlay.", "security.")) or name == "security.capability":
            os.removexattr(fd, name)


def _clean(name: bytes) -> bytes:
    """`name` below the layer's root: without `.`, `..` and doubled or outer slashes; `b""` is the root itself."""
    if not name:
        raise Invalid("the layer holds a file without a name")
    if len(name) > _MAX_PATH:
        raise Invalid(f"the layer holds a name of {len(name)} bytes; {_MAX_PATH} is the most: File name too long")
    if name[0] not in b"./" and b"/." not in name and b"//" not in name:
        return name[:-1] if name[-1] == 0x2F else name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
