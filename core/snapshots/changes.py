"""What a writable snapshot holds beyond its parent, written down as a layer (OCI image-spec, layer.md).

Rules of this file: what is read stands still (its task has ended, or is frozen), yet no link is followed, and every
folder is reached by one name in its open parent. Of an overlay the upper folder alone is read: its whiteouts and opaque
folders become those of a layer. A copy is compared with its parent, byte by byte where nothing else tells. Sockets are
left out, since a tar holds none; the context that SELinux gave is the node's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.digest import Digest
from core.errors import NotFound, OverLimit, Unsupported, from_os_error
from core.snapshots.apply import OPAQUE
from core.snapshots.comparing import differs
from core.snapshots.driver import FILES
from core.snapshots.ledger import Ledger
from core.values import dataclass

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH: Final = 200
_WHITEOUT: Final = ".wh."
_OPAQUE_MARK: Final = ".wh..wh..opq"
_OVERLAYS: Final = ".overlay."
_TIED: Final = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_HOSTS: Final = "security.selinux"
_XATTR: Final = "SCHILY.xattr."
_NANO: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed layer in the file `path`, of `size` bytes."""

    path: Path
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Written:
    """Where a writable snapshot's files lie: `own`, and `beneath` where `own` began as a copy of that."""

    own: Path
    beneath: Path | None


def written(root: Path, key: str, *, copied: bool) -> Written:
    """The files of the writable snapshot `key` of the driver at `root`; `copied`: that driver copies the parent.

    Reads the ledger only. Raises `SnapshotMissing`, `NotFound` where there is no ledger.
    """
    path = root / "ledger.db"
    if not path.exists():
        raise NotFound(f"there are no snapshots at {root}")
    ledger = Ledger(path)
    try:
        line = ledger.get(key)
        parent = ledger.get(line.info.parent) if copied and line.info.parent is not None else None
    finally:
        ledger.close()
    return Written(root / str(line.id) / FILES, None if parent is None else root / str(parent.id) / FILES)


def keep(found: Written, path: Path) -> Layer:
    """Write what was changed into the new file `path` (0600, synced).

    Raises `Unsupported` for what no layer can say, `OverLimit` (nested too deep), or the class of an `OSError`.
    """
    try:
        with open(os.open(path, _NEW, 0o600), "wb") as out:
            hashed = _Hashed(out)
            with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _Packer(tar).root(found)
            out.flush()
            os.fsync(out.fileno())
            return Layer(path, Digest("sha256", hashed.hash.hexdigest()), out.tell())
    except OSError as error:
        raise from_os_error(error, f"writing down what changed in {found.own}") from error


class _Hashed(io.RawIOBase):
    """A file for writing that hashes what goes through."""

    def __init__(self, out: io.BufferedWriter) -> None:
        super().__init__()
        self._out = out
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # only bytes are written
        self.hash.update(data)
        return self._out.write(data)


@contextlib.contextmanager
def _opened(name: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


class _Packer:
    """Writes members, parents first. Folders in which nothing changed are written only when something below has."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._names: dict[tuple[int, int], str] = {}
        self._unwritten: list[tuple[int, str]] = []

    def root(self, found: Written) -> None:
        """All that changed, the root folder's own looks first."""
        with _opened(found.own, _FOLDER) as own:
            self._folder(own, "./")
            if found.beneath is None:
                self._whole(own, "", 0)
                return
            with _opened(found.beneath, _FOLDER) as beneath:
                self._compared(own, beneath, "", 0)

    def _whole(self, folder: int, path: str, depth: int) -> None:
        if depth > _DEPTH:
            raise OverLimit(f"folders are nested more than {_DEPTH} deep")
        for name in sorted(os.listdir(folder)):
            self._entry(folder, name, path + name, depth)

    def _entry(self, folder: int, name: str, path: str, depth: int) -> None:
        if name.startswith(_WHITEOUT):
            raise Unsupported(f"/{path} cannot be kept: in a layer a name with {_WHITEOUT} hides another")
        seen = os.lstat(name, dir_fd=folder)
        if stat.S_ISDIR(seen.st_mode):
            with _opened(name, _FOLDER, folder) as inner:
                self._folder(inner, path)
                self._whole(inner, f"{path}/", depth + 1)
        elif stat.S_ISCHR(seen.st_mode) and not seen.st_rdev:
            self._hide(path)
        elif stat.S_ISREG(seen.st_mode):
            self._file(folder, name, path)
        elif not stat.S_ISSOCK(seen.st_mode):
            self._node(folder, name, path, seen)

    def _compared(self, own: int, beneath: int, path: str, depth: int) -> None:
        if depth > _DEPTH:
            raise OverLimit(f"folders are nested more than {_DEPTH} deep")
        mine, theirs = set(os.listdir(own)), set(os.listdir(beneath))
        for name in sorted(theirs - mine):
            self._hide(path + name)
        for name in sorted(mine):
            if name not in theirs:
                self._entry(own, name, path + name, depth)
                continue
            one, other = (b"/proc/self/fd/%d/%s" % (fd, os.fsencode(name)) for fd in (own, beneath))
            changed = differs(one, other, _unheard)
            modes = [os.lstat(name, dir_fd=fd).st_mode for fd in (own, beneath)]
            if all(map(stat.S_ISDIR, modes)):
                with _opened(name, _FOLDER, own) as left, _opened(name, _FOLDER, beneath) as right:
                    self._unwritten.append((left, path + name))
                    if changed:
                        self._write_folders()
                    self._compared(left, right, f"{path}{name}/", depth + 1)
                    if self._unwritten and self._unwritten[-1][0] == left:
                        self._unwritten.pop()
            elif changed:
                self._entry(own, name, path + name, depth)

    def _write_folders(self) -> None:
        waiting, self._unwritten = self._unwritten, []
        for fd, path in waiting:
            self._folder(fd, path)

    def _folder(self, fd: int, path: str) -> None:
        self._write_folders()
        attributes = _attributes(fd, path)
        self._tar.addfile(_member(path, os.fstat(fd), tarfile.DIRTYPE, attributes))
        with contextlib.suppress(OSError):  # ENODATA, ENOTSUP: it is not opaque
            if os.getxattr(fd, OPAQUE) == b"y":
                self._tar.addfile(tarfile.TarInfo(f"{path.rstrip('/')}/{_OPAQUE_MARK}"))

    def _hide(self, path: str) -> None:
        self._write_folders()
        head, slash, name = path.rpartition("/")
        self._tar.addfile(tarfile.TarInfo(f"{head}{slash}{_WHITEOUT}{name}"))

    def _file(self, folder: int, name: str, path: str) -> None:
        self._write_folders()
        with _opened(name, _FILE, folder) as fd:
            seen = os.fstat(fd)
            member = _member(path, seen, tarfile.REGTYPE, _attributes(fd, path))
            if first := self._known(seen, path):
                member.type, member.linkname = tarfile.LNKTYPE, first
                self._tar.addfile(member)
                return
            member.size = seen.st_size
            with open(fd, "rb", closefd=False) as data:
                self._tar.addfile(member, data)

    def _node(self, folder: int, name: str, path: str, seen: os.stat_result) -> None:
        self._write_folders()
        kinds = {stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}
        kind = kinds.get(stat.S_IFMT(seen.st_mode), tarfile.FIFOTYPE)
        member = _member(path, seen, kind, _attributes(b"/proc/self/fd/%d/%s" % (folder, os.fsencode(name)), path))
        if first := self._known(seen, path):
            member.type, member.linkname = tarfile.LNKTYPE, first
        elif kind == tarfile.SYMTYPE:
            member.linkname = os.readlink(name, dir_fd=folder)
        else:
            member.devmajor, member.devminor = os.major(seen.st_rdev), os.minor(seen.st_rdev)
        self._tar.addfile(member)

    def _known(self, seen: os.stat_result, path: str) -> str:
        """Another name of the same file that was written before; "": this one is the first."""
        if seen.st_nlink < 2:
            return ""
        first = self._names.setdefault((seen.st_dev, seen.st_ino), path)
        return "" if first == path else first


def _unheard(count: int) -> None:
    """Nobody is told how much was read."""


def _attributes(place: int | bytes, path: str) -> dict[str, str]:
    follow = {} if isinstance(place, int) else {"follow_symlinks": False}
    found = {}
    for name in os.listxattr(place, **follow):
        if name in _TIED:
            raise Unsupported(f"/{path} cannot be kept: overlayfs tied it to a file of the image ({name})")
        if _OVERLAYS not in name and name != _HOSTS:
            value = os.getxattr(place, name, **follow)
            found[f"{_XATTR}{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _member(path: str, seen: os.stat_result, kind: bytes, attributes: dict[str, str]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode, member.uid, member.gid = stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid
    member.mtime = seen.st_mtime_ns // _NANO
    # Seconds are rounded down; before 1970 a fraction would count from the other side, and is left out.
    exact = f"{member.mtime}.{seen.st_mtime_ns % _NANO:09d}" if member.mtime >= 0 else f"{member.mtime}"
    member.pax_headers = {"mtime": exact, **attributes}
    return member
