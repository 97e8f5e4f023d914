"""Looking things up, and making them, inside a mounted root that somebody else filled.

Rules of this file: every path of the image is opened with openat2(2), RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, so
that no link leads out; what was opened is what is used, by descriptor. Names of users come from the image's own
/etc/passwd and /etc/group (passwd(5), group(5)), as numbers below 2^31 (CVE-2024-40635).
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from core import fsio, syscalls
from core.errors import Denied, Invalid, NotFound, OverLimit, from_os_error
from core.runtime.spec import DEFAULT_PATH, User

_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_FILE_LIMIT: Final = 1 << 20
_ID_LIMIT: Final = 1 << 31
_BLOCK: Final = 1 << 20
_DEPTH_LIMIT: Final = 200


@contextlib.contextmanager
def opened(root: Path) -> Iterator[int]:
    """A descriptor of the mounted root for the block."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def is_same(root: int, mounted: Path) -> bool:
    """Whether an open root is the one that is mounted there; False also where nothing is."""
    try:
        return os.path.samestat(os.fstat(root), os.stat(mounted))
    except FileNotFoundError:
        return False


def open_inside(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` of the image, links read as its own processes would read them; raises `OSError`."""
    return syscalls.openat2(root, path, flags, mode=mode, resolve=_IN_ROOT)


def _lines(root: int, path: str) -> list[str]:
    try:
        fd = open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise from_os_error(error, f"{path} of the image") from None
    with open(fd, "rb") as source:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        data = source.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise OverLimit(f"{path} of the image is larger than {_FILE_LIMIT} bytes")
    return data.decode("utf-8", "replace").splitlines()


def _table(root: int, path: str, columns: int) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for line in _lines(root, path):
        fields = line.strip().split(":")
        if len(fields) >= columns and not line.startswith("#"):
            table.setdefault(fields[0], fields)
    return table


def _number(text: str, what: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or int(text) >= _ID_LIMIT:
        raise Invalid(f"{what} {text[:20]} is not below 2^31")
    return int(text)


def _unknown(what: str, name: str, table: dict[str, list[str]]) -> Invalid:
    known = ", ".join(sorted(table)[:30]) or "none"
    return Invalid(
        f"{what} {name[:100]!r} is not in the image; it has: {known}", advice="Write a number, or a name that it has."
    )


def resolve_user(root: int, text: str) -> User:
    """The numbers of `user`, `uid`, `user:group`, `uid:gid` (any mix; empty: root) by the image's own files.

    Without a group it is the user's own (0 for a number that the image does not know), with the supplementary groups
    that /etc/group gives the user; with one, only that one. Raises `Invalid`.
    """
    name, colon, group = text.partition(":")
    users = _table(root, "/etc/passwd", 4)
    groups = _table(root, "/etc/group", 3)
    uid, gid, login = _user(name, users)
    if not colon:
        return User(uid, gid, tuple(sorted(_groups_of(login, groups) - {gid})))
    found = _number(group, "group")
    if found is None:
        if group not in groups:
            raise _unknown("group", group, groups)
        found = _number(groups[group][2], "group") or 0
    return User(uid, found)


def _user(name: str, users: dict[str, list[str]]) -> tuple[int, int, str]:
    uid = _number(name, "user") if name else 0
    if uid is None:
        if name not in users:
            raise _unknown("user", name, users)
        fields = users[name]
    else:
        fields = next((row for row in users.values() if row[2] == str(uid)), [])
        if not fields:
            return uid, 0, ""
    numbers = _number(fields[2], "user"), _number(fields[3], "group")
    if numbers[0] is None or numbers[1] is None:
        raise Invalid(f"/etc/passwd of the image gives {fields[0][:100]!r} no numbers")
    return numbers[0], numbers[1], fields[0]


def _groups_of(login: str, groups: dict[str, list[str]]) -> set[int]:
    if not login:
        return set()
    mine = (row for row in groups.values() if len(row) > 3 and login in row[3].split(","))
    return {gid for row in mine if (gid := _number(row[2], "group")) is not None}


def find_command(root: int, command: str, env: Sequence[str], cwd: str = "/") -> str:
    """Where `command` is in the image, as execvp(3) looks for it: by PATH, or relative to `cwd` when it has a slash.

    Raises `NotFound` with the PATH looked through, `Denied` when it is there and nobody may execute it.
    """
    path = next((pair[5:] for pair in reversed(env) if pair.startswith("PATH=")), DEFAULT_PATH)
    if "/" in command:
        candidates = [posixpath.join(cwd, command)]
    else:
        candidates = [posixpath.join(cwd, folder or ".", command) for folder in path.split(":")]
    denied = ""
    for candidate in candidates:
        executable = _executable(root, candidate)
        if executable:
            return candidate
        if executable is False:
            denied = denied or candidate
    if denied:
        raise Denied(f"{denied} in the image is not an executable file", advice="chmod +x it when the image is built.")
    where = "" if "/" in command else f" (PATH {path})"
    raise NotFound(
        f"command not found in the image: {command}{where}", advice="Correct `command`, or use an image that has it."
    )


def _executable(root: int, path: str) -> bool | None:
    try:
        fd = open_inside(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise from_os_error(error, f"{path} in the image") from None
    try:
        mode = os.fstat(fd).st_mode
        return stat.S_ISREG(mode) and bool(mode & 0o111)
    finally:
        os.close(fd)


def make_folder(root: int, path: str, user: User) -> None:
    """Make folder `path` and its parents in the root where they are missing, owned by `user`.

    Raises `Invalid` when something else than a folder is in the way.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    done = ""
    try:
        for part in (part for part in path.split("/") if part):
            done += f"/{part}"
            below = _enter(root, here, done, part, user)
            os.close(here)
            here = below
    finally:
        os.close(here)


def _enter(root: int, parent: int, path: str, name: str, user: User) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return open_inside(root, path, flags)
    except FileNotFoundError:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            raise Invalid(f"{path} in the image is a link to nothing") from None
        made = open_inside(root, path, flags)
        os.fchown(made, user.uid, user.gid)
        return made
    except NotADirectoryError:
        raise Invalid(f"{path} in the image is not a folder") from None


def copy_up(root: int, path: str, target: Path) -> bool:
    """Give an empty volume folder `target` the owner, mode and content of the image's folder at `path`.

    False, and nothing done, when the volume holds something already or the image has no such folder. No link is
    followed on either side; devices and sockets are left out. All or nothing: the copy is made in a staging folder
    beside `target`, which it then replaces. Raises `OSError`, `OverLimit`.
    """
    if any(target.iterdir()):
        return False
    try:
        source = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with fsio.staging(target.parent, target.name) as work:
            into = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _copy_folder(source, into, 0)
                syscalls.syncfs(into)
            finally:
                os.close(into)
            fsio.publish(work, target)
    finally:
        os.close(source)
    return True


def _copy_folder(source: int, into: int, depth: int) -> None:
    if depth > _DEPTH_LIMIT:
        raise OverLimit(f"folders are nested more than {_DEPTH_LIMIT} deep")
    for name in os.listdir(source):
        seen = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(seen.st_mode):
            os.mkdir(name, 0o700, dir_fd=into)
            with _at(source, name) as below, _at(into, name) as copy:
                _copy_folder(below, copy, depth + 1)
        elif stat.S_ISLNK(seen.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=into)
            os.chown(name, seen.st_uid, seen.st_gid, dir_fd=into, follow_symlinks=False)
        elif stat.S_ISREG(seen.st_mode):
            _copy_file(source, into, name)
    _copy_metadata(source, into)


@contextlib.contextmanager
def _at(parent: int, name: str) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_file(source: int, into: int, name: str) -> None:
    with contextlib.ExitStack() as stack:
        given = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        stack.callback(os.close, given)
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into)
        stack.callback(os.close, copy)
        while os.sendfile(copy, given, None, _BLOCK):
            pass
        _copy_metadata(given, copy)


def _copy_metadata(source: int, into: int) -> None:
    seen = os.fstat(source)
    os.fchown(into, seen.st_uid, seen.st_gid)
    os.fchmod(into, stat.S_IMODE(seen.st_mode))
    for name in os.listxattr(source):
        if name.startswith(("user.", "security.capability")):
            os.setxattr(into, name, os.getxattr(source, name))
    os.utime(into, ns=(seen.st_atime_ns, seen.st_mtime_ns))
