"""Copies out of and into a task's root: each a process of its own, shut into that root, that ends with its stream.

Rules of this file: a path is followed name by name from the root, links as text, so that none leads out; from there on
`trees` goes. The process is a fork: nothing has to be started. For want of memory the kernel kills it first.
"""

from __future__ import annotations

import os
import posixpath
import signal
import stat
from typing import Final

from core.runtime import trees
from core.runtime.trees import CopyFailed
from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.tasks import Streams, Task

_MOST_LINKS: Final = 40
_BLOCK: Final = 64 << 10
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FIRST_OTHER: Final = 3
_MOST_OPEN: Final = 1 << 16


class Wanted:
    """The parameter `copy` of the call `exec`: `way` out, in or merge; `path`; `name` for in. Raises `Refused`."""

    def __init__(self, given: Given) -> None:
        self.way = given.text("way")
        self.path = given.text("path")
        self.name = given.text("name") if self.way == "in" else ""
        if self.way not in ("out", "in", "merge") or "/" in self.name:
            raise Refused("invalid", f"no copy {self.way[:40]!r}")


def begin(task: Task, streams: Streams, wanted: Wanted) -> int:
    """Start it; gives its pid. Raises `OSError`."""
    root = _root_of(task)
    try:
        if pid := os.fork():
            return pid
        _alone(root, streams, wanted)
    finally:
        os.close(root)
    return 0  # never: it has ended


def _root_of(task: Task) -> int:
    """The root as its first process sees it, or as it was left: that process may be gone, or see another root."""
    own = os.open(task.root, _FOLDER)
    if not task.process.alive():
        return own
    try:
        live = os.open(f"/proc/{task.process.pid}/root", _FOLDER)
    except OSError:
        return own
    same = os.path.sameopenfile(live, own)
    os.close(own if same else live)
    return live if same else own


def _alone(root: int, streams: Streams, wanted: Wanted) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _give_up)
        os.setsid()
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        stdin, stdout, _ = streams.theirs
        if stdin >= 0:
            os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.fchdir(root)
        os.chroot(".")
        os.closerange(_FIRST_OTHER, _MOST_OPEN)
        os.umask(0)
        code = _copy(wanted)
    finally:
        os._exit(code)  # whatever happens, it does not go on as a second agent


def _give_up(*_: object) -> None:
    raise SystemExit(1)  # what lies aside is removed on the way out


def _copy(wanted: Wanted) -> int:
    try:
        top = os.open("/", _FOLDER)
        _do(wanted, top)
    except CopyFailed as error:
        _write(trees.failed(error.category, error.message))
    except OSError as error:
        category = "no space" if error.errno in (28, 122) else "denied" if error.errno in (1, 13, 30) else "failed"
        named = error.filename if isinstance(error.filename, str) else wanted.path
        _write(trees.failed(category, f"{named}: {error.strerror}"))
    else:
        return 0
    return 1


def _do(wanted: Wanted, top: int) -> None:
    if wanted.way == "out":
        folder, name = _place(top, wanted.path)
        trees.Sender(_write, _unbounded).send(folder, name)
        return
    if wanted.way == "merge":
        trees.Receiver(_read, _unbounded, set_id=True, fresh=False).receive(_folder(top, wanted.path))
    else:
        folder, name = _target(top, wanted.path, wanted.name)
        trees.receive_new(_read, _unbounded, folder, name, set_id=True)
    _write(trees.Entry(trees.Kind.END).encoded())


def _unbounded(count: int) -> None:
    """The host counts: it is its budget."""


def _place(top: int, path: str) -> tuple[int, str]:
    """The open folder and the name of what is at `path`; a link at its end is meant itself."""
    folder, name = posixpath.split(posixpath.normpath("/" + path))
    return _folder(top, folder), name or "."


def _target(top: int, path: str, name: str) -> tuple[int, str]:
    """Where a copy called `name` goes: into the folder at `path`, else it is called `path`."""
    try:
        return _folder(top, path), name
    except CopyFailed:
        if path.endswith("/"):
            raise
        return _place(top, path)


def _folder(top: int, path: str) -> int:
    """The folder at `path`, opened; raises `CopyFailed`."""
    way, parts, links = [top], path.split("/")[::-1], 0
    try:
        while parts:
            name = parts.pop()
            if name == "..":
                os.close(way.pop()) if len(way) > 1 else None
            elif name not in ("", "."):
                fd = os.open(name, _PATH, dir_fd=way[-1])
                way.append(fd)
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    continue
                links += 1
                target = os.readlink("", dir_fd=fd)
                if links > _MOST_LINKS or not target:
                    raise CopyFailed("not found", f"{path} leads through too many links")
                os.close(way.pop())
                while target.startswith("/") and len(way) > 1:
                    os.close(way.pop())
                parts += target.split("/")[::-1]
        return os.open(".", _FOLDER, dir_fd=way[-1])
    except (FileNotFoundError, NotADirectoryError):
        raise CopyFailed("not found", f"{path} is no folder in the container") from None
    finally:
        for fd in way[1:]:
            os.close(fd)


def _read(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(0, min(_BLOCK, count - len(data)))
        if not piece:
            raise CopyFailed("failed", "the copy broke off")
        data += piece
    return bytes(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
