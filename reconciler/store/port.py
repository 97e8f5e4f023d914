"""The ObjectStore port: few methods; all else are functions over it (`reconciler.store.functions`).

Glossary: *version* counts the store's writes, one number for all objects; `expect` is the version at which the writer
read the object (0: it must not exist); *durable* means fsync-ed before the call returns. A status has no version of
its own: writing it moves the store's version and makes a change entry, and leaves `Object.version` alone, so that it
never stands in the way of who writes the rest.

Who may call from where: any thread, any process; each thread has a connection of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from core.errors import Busy, Conflict, Corrupt, Unsupported
from core.values import dataclass
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object


class WriteConflict(Conflict):
    """The object is not at the version expected: someone wrote first; read again and redo."""

    def __init__(self, key: Key, expected: int, found: int) -> None:
        super().__init__(f"{key} is at version {found}, not {expected}")
        self.key = key


class TooOld(Conflict):
    """The changes since that version are not known (no longer, or of another store): list all, then watch anew."""


class StoreCorrupt(Corrupt):
    """The store's file cannot be read as what it should be."""

    def hint(self) -> str:
        """Say who mends it."""
        return self.advice or "The agent sets it aside and fills it again when it starts: reconciler agent"


class StoreTooNew(Unsupported):
    """The store was written by a newer version of this program."""


class StoreTooOld(Busy):
    """The store was written by an older version, and was not to be brought up to ours: its agent may still run."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write `object` if it is at version `expect`; 0: only if there is none of that key.

    The store sets version; uid and created where the object is new; generation + 1 when spec or labels differ.
    Status in `object` is ignored (see `set_status`), except that a new object begins with it. `deleted`, once set,
    stays. A put that changes nothing writes nothing and keeps the version: beside other writes it is a guard
    ("only if that object is still as I read it").
    """

    object: Object
    expect: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the object of `key` if it is at version `expect`."""

    key: Key
    expect: int


Write = Put | Remove


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened: `gone` when the object was removed, else read it again."""

    version: int
    key: Key
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling. `count` > 1 when the same (key, reason, message) came again; times since 1970."""

    id: int
    key: Key
    type: str
    """`Normal` or `Warning`."""
    reason: str
    message: str
    first: float
    last: float
    count: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """A store of objects."""

    def get(self, key: Key) -> Object | None:
        """The object, with the newest status set by anyone in this process; None when there is none."""

    def list(self, kind: Kind | None = None) -> Sequence[Object]:
        """All objects, or those of one kind, ordered by kind (as in `Kind`) and name."""

    def owned(self, owner: Key) -> Sequence[Object]:
        """The objects that have `owner` among their owners, ordered as in `list`."""

    def commit(self, writes: Sequence[Write]) -> Sequence[Object]:
        """All writes or none, durable, in one transaction, one write a key; returns what was put, in order.

        Raises `WriteConflict`; `ValueError` or `TypeError` for two writes to a key and for what is not JSON; `NoSpace`,
        `Busy` or `Failed` when the disk would not have it: then nothing is promised to be stored, or not to be.
        """

    def set_status(self, key: Key, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of the object with that uid; a no-op when it is gone or unchanged.

        Buffered: `get` and `list` of this process show it at once; others, and the change log, after at most 250 ms or
        `flush`; may be lost by a crash.
        """

    def add_event(self, event: Event) -> None:
        """Tell something; buffered as `set_status`. The id of the argument is ignored.

        Equal ones (key, reason, message) are counted; the oldest go when there are over 1,000.
        """

    def events(self, since: int = 0) -> Sequence[Event]:
        """The events with an id over `since`, oldest first (a repeated event gets a new id)."""

    def flush(self, *, rest: bool = False) -> None:
        """Write what is buffered; with `rest`, and if there is anything, that nothing is left to do after it."""

    def rested(self) -> int:
        """The version at which the engine last had nothing left to do; 0 when that was never said."""

    def version(self) -> int:
        """The newest version."""

    def changes(self, since: int) -> Sequence[Change]:
        """What happened after version `since`, oldest first, one entry a key (its last); raises `TooOld`."""

    def wait(self, since: int, seconds: float) -> bool:
        """Wait up to `seconds` until the version is not `since`; True when so.

        At once for what this process writes, within 50 ms for others. Writes nothing, holds nothing.
        """

    def meta(self, name: str) -> str | None:
        """A word the engine keeps beside the objects (the boot id); None when it was never set."""

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word, durably."""

    def metas(self, prefix: str) -> Mapping[str, str]:
        """The words whose names begin with `prefix`, by name, in order of names."""

    def drop_meta(self, name: str) -> None:
        """Keep a word no longer; durable, harmless when it was never set."""

    def close(self) -> None:
        """Flush, and let go of all connections. The store is not to be used after that."""
