"""`reconciler cp`: files out of a container, and into one."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from core.errors import NotFound
from reconciler.cli.context import Node, container_key, pass_node
from reconciler.cli.terminal import tell
from reconciler.cli.texts import counted

if TYPE_CHECKING:
    from pathlib import Path

    from core.proc import ProcessId
    from core.runtime.copying import Budget, Place
    from core.runtime.further import Carrying
    from core.runtime.ports import Shim
    from reconciler.model.identity import Key

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
    from core.runtime.further import Carrying
    from reconciler.model.kinds.quantities import parse_bytes

    given, wanted = _read(source), _read(target)
    if (given is None) == (wanted is None):
        raise click.UsageError("One of SOURCE and TARGET is CONTAINER:PATH, the other a path here or -.")
    budget = Budget(bytes=parse_bytes(most))
    budget.keep_set_id = wanted is not None
    task = _task(node, (given or wanted).container)  # type: ignore[union-attr]  # one of the two is there
    if isinstance(task.shim, Carrying):
        if given is not None:
            _out_of_machine(task.shim, task.id, given.path, target, budget)
        elif wanted is not None:
            _into_machine(task.shim, task.id, wanted.path, source, budget)
    else:
        with _root_of(node, task) as root:
            if given is not None:
                _out(root, given.path, target, budget)
            elif wanted is not None:
                _into(root, wanted.path, source, budget)
    if budget.skipped:
        tell(f"left out: {counted(budget.skipped, 'device, socket or fifo')}")
    return 0


def _read(text: str) -> Inside | None:
    found = _INSIDE.fullmatch(text)
    return None if found is None else Inside(found[1], found[2] or "/")


class _Task(NamedTuple):
    key: Key
    shim: Shim
    id: str


def _task(node: Node, container: str) -> _Task:
    from reconciler.wiring import runtime_of

    key = container_key(container)
    node.wanted(key)
    return _Task(key, *runtime_of(node.paths, node.store_to_write(), key.name))


@contextlib.contextmanager
def _root_of(node: Node, task: _Task) -> Iterator[int]:
    """The root of a container as its processes see it, or as they left it; raises `NotFound` when there is none."""
    key, shim, id = task
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
    with _opened_source(source) as place, copying.target_inside(root, path, _called(place)) as made:
        copying.copy(place, made, budget)


def _out_of_machine(shim: Carrying, id: str, path: str, target: str, budget: Budget) -> None:
    from core.runtime import carried

    name = os.path.basename(os.path.normpath("/" + path)) or "root"
    with shim.copying(id, "out", path) as copy:
        if target == STREAM:
            carried.pack(copy.read, name, sys.stdout.buffer, budget)
            return
        with _here(target, name) as place:
            carried.lay_out(copy.read, place, budget)


def _into_machine(shim: Carrying, id: str, path: str, source: str, budget: Budget) -> None:
    from core.runtime import carried

    if source == STREAM:
        with shim.copying(id, "merge", path) as copy, carried.told():
            carried.unpack(sys.stdin.buffer, copy.write, budget)
            copy.finish()
        return
    with _opened_source(source) as place, shim.copying(id, "in", path, _called(place)) as copy, carried.told():
        carried.send(copy.write, place, budget)
        copy.finish()


def _called(place: Place) -> str:
    return place.name if place.name != "." else "root"


@contextlib.contextmanager
def _opened_source(source: str) -> Iterator[Place]:
    from core.runtime.copying import Place

    folder, name = os.path.split(os.path.abspath(source))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Place(fd, name or ".")
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
