"""Bundles: the folder of one task, made aside and published whole, removed whole.

Rules of this file: a bundle under its own name is complete (root mounted, config.json and object.json written), since
it gets its name by rename only. Nothing here is fsynced: the state folder may vanish with the node. What a killed
engine left lies in a staging folder, which its lock tells from one that is being filled.

What lies in a bundle, beside `config.json`, `object.json` and `rootfs/`: `task.json` (what the driver must know again,
with this boot's id), `create` (an empty file: the runtime has been asked), `made.json` (it has answered: who runs).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core import fsio, mounts
from core.errors import Invalid
from core.mounts import MountSpec
from core.proc import ProcessId
from core.runtime.ports import NewTask
from core.values import dataclass

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}")
_GROUP: Final = re.compile(r"(/[a-zA-Z0-9][a-zA-Z0-9._:-]*)+")


def checked_name(id: str) -> str:
    """`id`, which may become a path and a cgroup; raises `Invalid` on anything that could be more than a name."""
    if not _NAME.fullmatch(id):
        raise Invalid(f"not a name for a task or sandbox: {id[:100]!r}")
    return id


def checked_group(path: str, under: str) -> str:
    """`path`, a cgroup below `under`; raises `Invalid` on any other, and on one that climbs out."""
    if not _GROUP.fullmatch(path) or not path.startswith(under.rstrip("/") + "/"):
        raise Invalid(f"cgroup {path[:200]!r} is not below {under}")
    return path


@dataclass(frozen=True, slots=True)
class Record:
    """What a driver must know of its task in a later life. `cgroup` is a path in every hierarchy."""

    boot: str
    cgroup: str
    log: Path
    sandbox: str
    terminal: bool
    stdin: bool
    log_limit: int

    @classmethod
    def of(cls, task: NewTask, cgroup: str, boot: str) -> Record:
        """The record of a task about to be prepared."""
        return cls(boot, cgroup, task.log, task.sandbox, task.terminal, task.stdin, task.log_limit)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`."""
        return cls(**{**data, "log": Path(data["log"])})

    def to_json(self) -> dict[str, Any]:
        """A form for `task.json`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"log": str(self.log)}


@dataclass(frozen=True, slots=True)
class Made:
    """Who runs, once the runtime has answered: the task's first process and its monitor."""

    first: ProcessId
    monitor: ProcessId


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the files of one bundle say. `created` tells that the runtime has been asked."""

    record: Record
    created: bool
    made: Made | None


class Bundles:
    """The bundles below one state folder. Whole ones are remembered: they never change again."""

    def __init__(self, state: Path) -> None:
        self.folder = fsio.make_private(state / "bundles")
        self._seen: dict[str, tuple[int, int, Bundle]] = {}

    def path(self, id: str) -> Path:
        """The folder of task `id`, there or not; raises `Invalid` on what is no name."""
        return self.folder / checked_name(id)

    def make(self, task: NewTask, record: Record, fill: Callable[[Path], None] | None = None) -> None:
        """Fill a staging folder, mount the root in it and publish it; raises `OSError`, leaving nothing.

        With `fill`, which is given the staging folder, that is done in place of mounting the root.
        """
        final = self.path(task.id)
        with self._staging(task.id) as work:
            (work / "rootfs").mkdir(mode=0o755)
            _write_json(work / "config.json", task.spec)
            _write_json(work / "object.json", task.object)
            _write_json(work / "task.json", record.to_json())
            if fill is None:
                mounts.attach(task.rootfs, work / "rootfs")
            else:
                fill(work)
            os.rename(work, final)

    @contextlib.contextmanager
    def looking(self, rootfs: Sequence[MountSpec]) -> Iterator[Path]:
        """A root mounted for the block only: to look up its users and commands before its spec can be written."""
        with self._staging("look") as work:
            root = work / "rootfs"
            root.mkdir(mode=0o755)
            mounts.attach(rootfs, root)
            yield root

    @contextlib.contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        with fsio.staging(self.folder, name) as work:
            try:
                yield work
            finally:
                if work.exists():
                    mounts.detach_below(work)

    def begin(self, id: str) -> None:
        """Mark that the runtime is about to be asked to create it."""
        (self.path(id) / "create").touch(mode=0o600)

    def complete(self, id: str, made: Made) -> None:
        """Record who runs: from now on the task is whole."""
        data = {"first": made.first.to_json(), "monitor": made.monitor.to_json()}
        fsio.write_atomic(self.path(id) / "made.json", json.dumps(data).encode(), durable=False)

    def read(self, id: str) -> Bundle | None:
        """What the bundle's files say; None when there is none."""
        path = self.path(id)
        try:
            seen = os.stat(path)
        except FileNotFoundError:
            self._seen.pop(id, None)
            return None
        remembered = self._seen.get(id)
        if remembered is not None and remembered[:2] == (seen.st_ino, seen.st_ctime_ns):
            return remembered[2]
        bundle = _read(path)
        if bundle is not None and bundle.made is not None:
            self._seen[id] = (seen.st_ino, seen.st_ctime_ns, bundle)
        return bundle

    def described(self, id: str) -> Mapping[str, Any] | None:
        """The content of `object.json`; None when it is not there or not JSON."""
        try:
            found: Mapping[str, Any] = json.loads((self.path(id) / "object.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def ids(self) -> Iterator[str]:
        """The names of all published bundles."""
        for entry in sorted(os.listdir(self.folder)):
            if not entry.startswith("."):
                yield entry

    def remove(self, id: str) -> None:
        """Unmount and remove it; harmless when it is not there."""
        path = self.path(id)
        self._seen.pop(id, None)
        if not path.exists():
            return
        mounts.detach(path / "rootfs")
        if (path / "mounts").exists():
            mounts.detach_below(path)
        # Aside first: a bundle that lost only some of its files would tell lies.
        aside = path.with_name(f"{fsio.STAGING}{id}-gone")
        fsio.remove_tree(aside)
        os.rename(path, aside)
        fsio.remove_tree(aside)


def sweep(folder: Path) -> None:
    """Unmount and remove what killed engines left half-made in `folder`; leaves what another process is filling."""
    for entry in sorted(folder.glob(f"{fsio.STAGING}*")):
        fd = os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            mounts.detach_below(entry)
            fsio.remove_tree(entry)
        finally:
            os.close(fd)


def _read(path: Path) -> Bundle | None:
    try:
        record = Record.from_json(json.loads((path / "task.json").read_bytes()))
    except FileNotFoundError:
        return None
    try:
        data = json.loads((path / "made.json").read_bytes())
    except FileNotFoundError:
        return Bundle(record, (path / "create").exists(), None)
    return Bundle(record, True, Made(ProcessId.from_json(data["first"]), ProcessId.from_json(data["monitor"])))


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as out:
        out.write(json.dumps(data))  # json.dump is the slow one: it leaves the encoder in C aside
