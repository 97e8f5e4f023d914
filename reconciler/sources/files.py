"""Manifest files on disk: which are read, and that nothing outside the folder given is.

Rules of this file: a folder is read recursively in order of names, without names that begin with `.` or `_`; what lies
below a folder is opened by the kernel's own resolution (openat2, RESOLVE_BENEATH), so that no link and no `..` leads
out, whatever changes meanwhile; only regular files are read, and never more than their limit.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from core.errors import AgentError, Invalid, NotFound, OverLimit
from core.syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from core.values import dataclass
from reconciler.sources.faults import Fault
from reconciler.sources.revisions import Entry, Tree

STDIN: Final = "-"
SHOWN_STDIN: Final = "<stdin>"
SUFFIXES: Final = (".yaml", ".yml", ".json")
MOST_BYTES: Final = 1 << 20
MOST_FILES: Final = 10_000
_MOST_FOLDERS_DEEP: Final = 32


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file's bytes. `shown`: its name for people; `base`: the folder that nothing it names may leave ("": it may
    name nothing, as it came from stdin); `inside`: its path below `base`. `tree`: where it came from, when that is no
    folder of this machine;
    `id`: what stands for its bytes there.
    """

    shown: str
    data: bytes
    base: str = ""
    inside: str = ""
    tree: Tree | None = None
    id: str = ""


class Unreadable(Exception):
    """A file that cannot be read: `message` and `advice` for its fault."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


def gather(paths: Sequence[str]) -> Iterator[ManifestFile | Fault]:
    """The files that `paths` (files, folders, `-`) name, each once, or a fault in place of what cannot be read."""
    seen: set[tuple[int, int]] = set()
    for path in dict.fromkeys(paths):
        if path == STDIN:
            yield _bounded(SHOWN_STDIN)
        else:
            yield from _path(path, seen)


def gather_tree(tree: Tree, inside: str) -> Iterator[ManifestFile | Fault]:
    """The manifest files of `tree` below its sub-path `inside` ("": all of it), in order, or faults in their place.

    Which names are left out is as in a folder. No manifest file at all is no fault here: what an emptied source means
    is decided elsewhere. Raises `Corrupt` and the like, which say nothing about what people wrote.
    """
    try:
        entries = tree.entries()
    except (NotFound, Invalid, OverLimit) as error:
        yield _fault_of(inside or ".", error)
        return
    prefix = f"{inside}/" if inside else ""
    found = [one for one in entries if not _left_out(one.path.removeprefix(prefix))]
    if sum(one.path.endswith(SUFFIXES) for one in found) > MOST_FILES:
        yield Fault(inside or ".", 0, 0, "", f"holds more than {MOST_FILES} manifest files", "name a folder in it")
        return
    for entry in found:
        yield from _in_tree(tree, inside, entry)


def _in_tree(tree: Tree, inside: str, entry: Entry) -> Iterator[ManifestFile | Fault]:
    """What one name holds: a link is followed within the source, when it leads to a file."""
    is_manifest = entry.path.endswith(SUFFIXES)
    try:
        at = tree.find(entry.path) if entry.kind == "link" else entry
        if at.kind == "folder":
            yield Fault(entry.path, 0, 0, "", "is a link to a folder, which is not followed", "name that folder too")
        elif is_manifest and at.kind == "file":
            yield ManifestFile(entry.path, tree.read(at), inside or ".", entry.path, tree, at.id)
    except (NotFound, Invalid, OverLimit) as error:
        if is_manifest:
            yield _fault_of(entry.path, error)


def _fault_of(path: str, error: AgentError) -> Fault:
    return Fault(path, 0, 0, "", *_words(path, error))


def _left_out(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def read_beside(manifest: ManifestFile, path: str) -> bytes:
    """The bytes of the file at `path`, relative to `manifest`; raises `Unreadable`."""
    if not manifest.base:
        raise Unreadable("names a file, but stdin lies in no folder", "give the manifest with -f FILE")
    inside = os.path.join(os.path.dirname(manifest.inside), path)
    if manifest.tree is not None:
        return _read_in_tree(manifest.tree, inside)
    return _read_beneath(manifest.base, inside)[0]


def path_beside(manifest: ManifestFile, path: str) -> str:
    """The absolute path of the file or folder at `path`, relative to `manifest`, no link in it; raises `Unreadable`.

    Out of a revision it is taken into a file of its own where it lies in none: raises what `Tree.place` raises.
    """
    if not manifest.base:
        raise Unreadable("is a relative path, but stdin lies in no folder of this node", "write an absolute path")
    inside = os.path.join(os.path.dirname(manifest.inside), path)
    if manifest.tree is not None:
        try:
            return manifest.tree.place(manifest.tree.find(inside))
        except (NotFound, Invalid, OverLimit) as error:
            raise Unreadable(*_words(inside, error)) from None
    try:
        folder = os.open(manifest.base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = openat2(folder, inside, os.O_PATH, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(folder)
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None


def _read_in_tree(tree: Tree, path: str) -> bytes:
    """The file at `path`, within the whole source: a revision is one thing, wherever in it the manifests begin."""
    try:
        return tree.read(tree.find(path))
    except (NotFound, Invalid, OverLimit) as error:
        raise Unreadable(*_words(path, error)) from None


def _words(path: str, error: AgentError) -> tuple[str, str]:
    """Message and advice as a fault has them: without the path, and as the end of a line."""
    hint = error.hint()
    return error.message.removeprefix(f"{path} "), hint[:1].lower() + hint[1:].rstrip(".")


def _bounded(shown: str) -> ManifestFile | Fault:
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        return Fault(shown, 0, 0, "", "is larger than 1 MiB", "split it into several files")
    return ManifestFile(shown, data)


def _path(path: str, seen: set[tuple[int, int]]) -> Iterator[ManifestFile | Fault]:
    """What one given path holds. A link given by name is followed: the person meant what it points to."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read: {getattr(error, 'strerror', None) or error}"
        yield Fault(path, 0, 0, "", reason, "check the path" if missing else "check the path and its permissions")
        return
    if not is_folder:
        real = os.path.realpath(path)
        yield from _file(path, os.path.dirname(real), os.path.basename(real), seen)
        return
    count = 0
    for found in _names(path, "", _MOST_FOLDERS_DEEP):
        count += 1
        if count > MOST_FILES:
            yield Fault(path, 0, 0, "", f"holds more than {MOST_FILES} manifest files", "give its parts one by one")
            return
        if isinstance(found, Fault):
            yield found
        else:
            yield from _file(os.path.join(path, found), path, found, seen)
    if count == 0:
        yield Fault(path, 0, 0, "", "holds no manifest file", f"put files in it that end in {', '.join(SUFFIXES)}")


def _names(base: str, inside: str, deep: int) -> Iterator[str | Fault]:
    """The manifest files below `base`/`inside` as paths below `base`, and faults for folders that cannot be read."""
    folder = os.path.join(base, inside) if inside else base
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith((".", "_"))), key=lambda e: e.name)
    except OSError as error:
        yield Fault(folder, 0, 0, "", f"cannot be read: {error.strerror}", "check its permissions")
        return
    for entry in found:
        below = os.path.join(inside, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if deep == 0:
                yield Fault(entry.path, 0, 0, "", "lies too many folders deep", "nest folders less")
            else:
                yield from _names(base, below, deep - 1)
        elif entry.is_symlink() and os.path.isdir(entry.path):
            yield Fault(entry.path, 0, 0, "", "is a link to a folder, which is not followed", "give that folder too")
        elif entry.name.endswith(SUFFIXES):
            yield below


def _file(shown: str, base: str, inside: str, seen: set[tuple[int, int]]) -> Iterator[ManifestFile | Fault]:
    try:
        data, identity = _read_beneath(base or ".", inside)
    except Unreadable as error:
        yield Fault(shown, 0, 0, "", error.message, error.advice)
        return
    if identity not in seen:
        seen.add(identity)
        yield ManifestFile(os.path.normpath(shown), data, base or ".", inside)


def _read_beneath(base: str, inside: str) -> tuple[bytes, tuple[int, int]]:
    """The bytes and identity (device, inode) of the regular file at `inside` below folder `base`."""
    try:
        folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
            # Without O_NONBLOCK, opening a FIFO would wait for its writer for ever.
            fd = openat2(folder, inside, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=resolve)
        finally:
            os.close(folder)
        with open(fd, "rb") as source:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("is not a regular file", "give a regular file, or its content on stdin (-f -)")
            data = source.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if len(data) > MOST_BYTES:
        raise Unreadable("is larger than 1 MiB", "split it into several files")
    return data, (status.st_dev, status.st_ino)


def _unreadable(error: OSError | ValueError) -> Unreadable:
    code = getattr(error, "errno", None)
    if code == errno.EXDEV:
        return Unreadable("leads out of the folder given", "keep what manifests name inside their folder")
    if code == errno.ENOENT:
        return Unreadable("does not exist", "check the path; it is relative to this file")
    if code == errno.ELOOP:
        return Unreadable("is a link that leads nowhere", "replace the link by the file")
    if code in (errno.EISDIR, errno.ENXIO, errno.ENODEV):
        return Unreadable("is not a regular file", "give a regular file")
    return Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}", "check its permissions")
