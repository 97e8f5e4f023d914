"""`reconciler cp`: files out of a container, and into one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from core.errors import NotFound, Unsupported
from reconciler.cli.context import Node, container_key, pass_node
from reconciler.cli.terminal import tell
from reconciler.cli.texts import counted

if TYPE_CHECKING:
    from pathlib import Path

    from core.proc import ProcessId
    from core.runtime.copying import Budget, Place

_ROOT: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
STREAM: Final = "-"
_INSIDE: Final = re.compile(r"((?:containers?/)?[a-z0-9][-a-z0-9.]*):(.*)", re.DOTALL)


class Inside(NamedTuple):
    """A path in a container."""

    container: str
    path: str


@click.command("cp")
@click.option("--most", default="16Gi", metavar="SIZE", help="Give up when there is more than this [16Gi].")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@pass_node
def command(node: Node, most: str, source: str, target: str) -> int:
    """Copy files, folders and links: one of the two is CONTAINER:PATH, the other a path here, or - for a tar stream.

    Owners, modes and times are kept; devices, sockets and fifos are left out. Links are copied, never followed.

    \b
    Examples:
      reconciler cp web:/etc/nginx ./nginx
      reconciler cp index.html web:/var/www/
      reconciler cp web:/data - | tar -tv
    """
    from core.runtime.copying import Budget
    from reconciler.model.kinds.quantities import parse_bytes

    given, wanted = _read(source), _read(target)
    if (given is None) == (wanted is None):
        raise click.UsageError("One of SOURCE and TARGET is CONTAINER:PATH, the other a path here or -.")
    budget = Budget(bytes=parse_bytes(most))
    if given is not None:
        with root_of(node, given.container) as root:
            _out(root, given.path, target, budget)
    elif wanted is not None:
        budget.keep_set_id = True
        with root_of(node, wanted.container) as root:
            _into(root, wanted.path, source, budget)
    if budget.skipped:
        tell(f"left out: {counted(budget.skipped, 'device, socket or fifo')}")
    return 0


def _read(text: str) -> Inside | None:
    found = _INSIDE.fullmatch(text)
    return None if found is None else Inside(found[1], found[2] or "/")


@contextlib.contextmanager
def root_of(node: Node, container: str) -> Iterator[int]:
    """The root of a container as its processes see it, or as they left it; raises `NotFound` when there is none."""
    from core.runtime.ports import Reaching
    from reconciler.wiring import runtime_of

    key = container_key(container)
    node.wanted(key)
    shim, id = runtime_of(node.paths, node.store_to_write(), key.name)
    if isinstance(shim, Reaching):
        advice = f"Pack them with tar: reconciler exec {key.name} -- tar -c PATH; or use a volume."
        raise Unsupported(f"copying: the files of {key} are in its virtual machine", advice=advice)
    pid = shim.state(id).pid
    bundle = node.paths.state / "bundles" / id / "rootfs"
    fd = None if pid is None else _live_root(pid, bundle)
    if fd is None:
        if not os.path.ismount(bundle):
            raise NotFound(f"{key} has no files now", advice=f"Wait until it runs: reconciler describe {key}")
        fd = os.open(bundle, _ROOT)
    try:
        yield fd
    finally:
        os.close(fd)


def _live_root(process: ProcessId, bundle: Path) -> int | None:
    """The root of a process; None when it is gone, or sees another root than the task's: ours still, or a sentry's."""
    from core import proc
    from core.runtime import rootfs

    try:
        fd = os.open(f"/proc/{process.pid}/root", _ROOT)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Looked at after it was opened: a number that was given to another process meanwhile is no use.
    if process.alive(proc.boot_id()) and rootfs.is_same(fd, bundle):
        return fd
    os.close(fd)
    return None


def _out(root: int, path: str, target: str, budget: Budget) -> None:
    from core.runtime import copying

    with copying.inside(root, path) as source:
        name = source.name if source.name != "." else "root"
        if target == STREAM:
            copying.pack(source, name, sys.stdout.buffer, budget)
            return
        with _here(target, name) as place:
            copying.copy(source, place, budget)


def _into(root: int, path: str, source: str, budget: Budget) -> None:
    from core.runtime import copying

    if source == STREAM:
        copying.unpack(sys.stdin.buffer, root, path, budget)
        return
    folder, name = os.path.split(os.path.abspath(source))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with copying.target_inside(root, path, name or "root") as place:
            copying.copy(copying.Place(fd, name or "."), place, budget)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _here(target: str, name: str) -> Iterator[Place]:
    """Where a copy called `name` goes on this side: into the folder `target`, else it is called so."""
    from core.runtime.copying import Place

    folder, called = (target, name) if os.path.isdir(target) else os.path.split(os.path.abspath(target))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Place(fd, called)
    finally:
        os.close(fd)
