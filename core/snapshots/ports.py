"""The Snapshotter port.

Glossary of parameter names (the same in every driver):

- *key*: the name of an *active* or *view* snapshot, given by who will work on it: `<container id>` or `unpack-…`.
- *name*: the name of a *committed* snapshot: the chain id of the layers it holds (`sha256:…`).
- *parent*: the name of the committed snapshot underneath; None for the empty file system.

A worked story: `prepare("work", None)` gives mounts of an empty writable folder; a layer is applied to it;
`commit("sha256:aa…", "work")` makes it durable and immutable; `prepare("web-1a2b3c4d-1", "sha256:aa…")` gives a
writable root filesystem on top of it; `remove("web-1a2b3c4d-1")` drops that one, and only when nothing rests on it may
`remove("sha256:aa…")` drop the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from core.errors import Busy, Conflict, NotFound
from core.mounts import MountSpec
from core.values import dataclass


class SnapshotKind(StrEnum):
    """What a snapshot is for."""

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One line of the lineage ledger; `created` in seconds since 1970."""

    key: str
    parent: str | None
    kind: SnapshotKind
    created: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot itself holds, without its parents."""

    bytes: int
    inodes: int


class SnapshotExists(Conflict):
    """There is a snapshot of that key or name."""


class SnapshotMissing(NotFound):
    """There is no snapshot of that key or name."""


class SnapshotInUse(Busy):
    """Another snapshot rests on it."""


class Snapshotter(Protocol):
    """A driver. Every call may be made from any thread; a call that raises has changed nothing that can be seen."""

    @property
    def name(self) -> str:
        """The driver's name in manifests: overlayfs, native."""

    def prepare(self, key: str, parent: str | None) -> tuple[MountSpec, ...]:
        """A new writable snapshot on `parent`; raises `SnapshotExists`, `SnapshotMissing`, `NoSpace`."""

    def view(self, key: str, parent: str | None) -> tuple[MountSpec, ...]:
        """A new read-only snapshot of `parent`; raises as `prepare`."""

    def mounts(self, key: str) -> tuple[MountSpec, ...]:
        """The mounts of an active snapshot or view, again; raises `SnapshotMissing`."""

    def commit(self, name: str, key: str) -> None:
        """Make active `key` the immutable `name`, durable (syncfs) before it is published; raises `SnapshotExists`."""

    def remove(self, key: str) -> None:
        """Drop a snapshot and its files; raises `SnapshotMissing`, `SnapshotInUse`."""

    def stat(self, key: str) -> SnapshotInfo:
        """The ledger's line; raises `SnapshotMissing`."""

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every line, parents before children."""

    def usage(self, key: str) -> Usage:
        """Bytes and inodes of the snapshot itself; raises `SnapshotMissing`."""

    def folder(self, key: str) -> Path:
        """The folder of the snapshot's own files (to apply and compare layers); raises `SnapshotMissing`."""

    def sweep(self) -> list[str]:
        """Remove files that no line names and staging that no process holds; returns what was removed."""
