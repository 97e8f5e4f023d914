"""Runtimes of the CRI plugin whose type, keys or options containerd 2.0 does not have, to what replaced them.

Rules of this file: it works where version 2 keeps runtimes. What an option says already wins over the older key that
means the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from migrations.config.plugins import AUFS, CRI, GONE, IMAGES, LINUX
from migrations.config.tree import Path
from migrations.config.work import Outcome, Work

RUNC: Final = "io.containerd.runc.v2"
_OLD_TYPES: Final = ("io.containerd.runc.v1", LINUX)
_BASE: Final = ("plugins", CRI, "containerd")
_ALL: Final = (*_BASE, "runtimes")
_OPTIONS: Final = {"runtime_engine": "BinaryName", "runtime_root": "Root"}


def replace_gone(work: Work) -> None:
    """All of it, in the order in which containerd itself used to read these keys."""
    _named(work, "default_runtime", "default")
    _named(work, "untrusted_workload_runtime", "untrusted")
    first = work.value(*_BASE, "default_runtime_name") or "runc"
    for name in work.names(*_ALL):
        for key, option in _OPTIONS.items():
            _option(work, (*_ALL, name, key), (*_ALL, name), option)
    _linux(work, first)
    for name in work.names(*_ALL):
        one = (*_ALL, name)
        _criu(work, (*one, "options", "CriuPath"))
        if work.value(*one, "runtime_type") in _OLD_TYPES:
            work.translate((*one, "runtime_type"), (*one, "runtime_type"), RUNC, "that shim went with containerd 2.0")
    _option(work, ("plugins", CRI, "systemd_cgroup"), (*_ALL, first), "SystemdCgroup")
    _pivot(work, first)


def _named(work: Work, key: str, name: str) -> None:
    """A runtime that had a place of its own becomes one of the others."""
    old = (*_BASE, key)
    if work.get(*old) is None:
        return
    if not work.value(*old, "runtime_type"):
        _drop_unused(work, old)
        return
    if work.get(*_ALL, name) is not None:
        work.drop((*_ALL, name), f"{key} was in force in its stead", Outcome.INERT)
    if key == "default_runtime":
        work.drop((*_BASE, "default_runtime_name"), "default_runtime was in force in its stead", Outcome.INERT)
    work.move(old, (*_ALL, name), how=f"a runtime named {name}")
    if key == "default_runtime":
        work.add((*_BASE, "default_runtime_name"), name, work.get(*_ALL, name, "runtime_type"))


def _drop_unused(work: Work, old: Path) -> None:
    for path in list(_leaves(work, old)):
        empty = not work.value(*path)
        why = "empty, as the whole table is" if empty else "it had no effect, as its table names no runtime_type"
        work.drop(path, why, Outcome.DEFAULT if empty else Outcome.INERT)
    work.drop(old, "empty", Outcome.DEFAULT)


def _leaves(work: Work, at: Path) -> Iterator[Path]:
    for name in work.names(*at):
        if work.names(*at, name):
            yield from _leaves(work, (*at, name))
        else:
            yield (*at, name)


def _option(work: Work, old: Path, one: Path, option: str) -> None:
    """Move an old key to an option of the runtime at `one`; one that says nothing goes."""
    if work.get(*old) is None:
        return
    if not work.value(*old):
        work.drop(old, f"the default; {option} of the runtime's options says it now", Outcome.DEFAULT)
        return
    if not work.value(*one, "options", option):
        work.drop((*one, "options", option), f"{old[-1]} says it", Outcome.DEFAULT)
    _typed(work, one)
    work.translate(old, (*one, "options", option), work.value(*old), "an option of the runtime now")


def _typed(work: Work, one: Path) -> None:
    """Options are read for a runtime whose type is known only."""
    if not work.value(*one, "runtime_type"):
        work.drop((*one, "runtime_type"), "empty", Outcome.DEFAULT)
        work.add((*one, "runtime_type"), RUNC)


def _linux(work: Work, first: str) -> None:
    """What the first shim's own section said goes to the runtimes that used it."""
    users = [name for name in work.names(*_ALL) if work.value(*_ALL, name, "runtime_type") == LINUX]
    if not users and not work.names(*_ALL):
        users = [first]
    for key, option, default in (("runtime", "BinaryName", "runc"), ("runtime_root", "Root", "")):
        old = ("plugins", LINUX, key)
        node = work.get(*old)
        if node is None or node.value in ("", default):
            continue
        for name in users[1:]:
            if not work.value(*_ALL, name, "options", option):
                work.add((*_ALL, name, "options", option), node.value, node)
        if users:
            _option(work, old, (*_ALL, users[0]), option)


def _criu(work: Work, path: Path) -> None:
    if work.value(*path):
        work.drop(path, "the shim has no such option any more: put criu on PATH")
    else:
        work.drop(path, "empty; the shim has no such option any more", Outcome.DEFAULT)


def _pivot(work: Work, first: str) -> None:
    """`no_pivot` was for all runtimes of runc's kind."""
    old = (*_BASE, "no_pivot")
    node = work.get(*old)
    if node is not None and node.value:
        kinds: list[Any] = [n for n in work.names(*_ALL) if work.value(*_ALL, n, "runtime_type") in (RUNC, "", None)]
        for name in [name for name in kinds if name != first]:
            if work.get(*_ALL, name, "options", "NoPivotRoot") is None:
                work.add((*_ALL, name, "options", "NoPivotRoot"), True, node)
    _option(work, old, (*_ALL, first), "NoPivotRoot")


def snapshotter(work: Work, one: Path, name: str) -> None:
    """A runtime's own snapshotter, said to the plugin of images too: containerd 2.0 to 2.2 read it there only."""
    if not work.value(*one, "snapshotter") and work.value(*one, "snapshot"):
        work.drop((*one, "snapshotter"), "empty", Outcome.DEFAULT)
        work.move((*one, "snapshot"), (*one, "snapshotter"), how="the key's name is snapshotter")
    else:
        work.drop((*one, "snapshot"), "the key's name is snapshotter", Outcome.INERT)
    if work.value(*one, "snapshotter") == "aufs":
        work.translate((*one, "snapshotter"), (*one, "snapshotter"), "overlayfs", GONE[AUFS])
    node, there = work.get(*one, "snapshotter"), ("plugins", IMAGES, "runtime_platforms", name, "snapshotter")
    if node is not None and node.value and work.get(*there) is None:
        work.add(there, node.value, node)
