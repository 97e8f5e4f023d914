"""What a WASM task sees of files: its module out of the image, and the folders that are opened for it.

Rules of this file: a module gets folders and nothing above them, so that a single file is given in a folder of its own,
as a copy that cannot be written; two things at one path are refused. The image itself is not seen by the module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.errors import Invalid, OverLimit, Unsupported, from_os_error
from core.mounts import MountSpec
from core.runtime import rootfs
from core.runtime.bundle import Bundles
from core.runtime.wasm_cache import MOST_MODULE
from core.values import dataclass

_MOST_FILE: Final = 64 << 20
_KERNEL: Final = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Preopen:
    """A folder `host` that the module finds at `guest`."""

    host: str
    guest: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """`folders` to open as they are, and single files: path in the task to path on the node."""

    folders: tuple[Preopen, ...]
    files: Mapping[str, str]


def plan(spec: Mapping[str, Any]) -> Plan:
    """The folders and files of an OCI spec's mounts. Raises `Unsupported` (a tmpfs), `Invalid`."""
    folders: dict[str, Preopen] = {}
    files: dict[str, str] = {}
    for mount in spec["mounts"]:
        path = str(mount["destination"])
        if any(path == one or path.startswith(f"{one}/") for one in _KERNEL):
            continue
        if mount["type"] != "bind":
            raise Unsupported(f"mount {path}: {mount['type']} for a module", advice="Give it a Volume instead.")
        if os.path.isdir(mount["source"]):
            folders[path] = Preopen(mount["source"], path, "ro" not in mount["options"])
        else:
            files[path] = mount["source"]
    for path in files:
        if (folder := posixpath.dirname(path)) in folders:
            raise Invalid(f"mount {path}: a folder is mounted at {folder} already", advice="Choose another folder.")
    return Plan(tuple(folders.values()), files)


def fill(wanted: Plan, work: Path, final: Path) -> list[Preopen]:
    """Copy the single files into `work`, the bundle before it is called `final`; returns all that is to be opened."""
    places: dict[str, str] = {}
    for path, source in wanted.files.items():
        folder = posixpath.dirname(path)
        name = places.setdefault(folder, f"files-{len(places)}")
        (work / name).mkdir(mode=0o755, exist_ok=True)
        if os.path.getsize(source) > _MOST_FILE:
            raise OverLimit(f"mount {path}: a file over {_MOST_FILE} bytes", advice="Mount its folder instead.")
        target = work / name / posixpath.basename(path)
        shutil.copyfile(source, target)
        target.chmod(0o444)
    made = [Preopen(str(final / name), folder, False) for folder, name in places.items()]
    return [*wanted.folders, *made]


def copy_module(bundles: Bundles, root: Sequence[MountSpec], command: str, cwd: str, target: Path) -> None:
    """Copy the file that `command` names in the image; nothing when it is not there. Raises `OverLimit`, `OSError`."""
    with _seen(bundles, root) as top, rootfs.opened(top) as fd:
        try:
            found = rootfs.open_inside(fd, posixpath.join(cwd, command), os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return
            raise from_os_error(error, f"{command} in the image") from error
        with open(found, "rb") as source:
            seen = os.fstat(found)
            if not stat.S_ISREG(seen.st_mode):
                return
            if seen.st_size > MOST_MODULE:
                raise OverLimit(f"{command} is larger than {MOST_MODULE} bytes")
            with open(target, "xb") as out:
                shutil.copyfileobj(source, out)


@contextlib.contextmanager
def _seen(bundles: Bundles, root: Sequence[MountSpec]) -> Iterator[Path]:
    """The image's files: as they lie where it is one folder, which needs no root; else mounted for the block."""
    if len(root) == 1 and root[0].type == "bind":
        yield Path(root[0].source)
    else:
        with bundles.looking(root) as top:
            yield top
