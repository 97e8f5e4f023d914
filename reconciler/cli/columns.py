"""What a row of `get` says of an object, for each kind: tables of columns, each a function of object and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from reconciler.cli.texts import amount, since
from reconciler.decide.summary import condition, is_true
from reconciler.model.identity import Kind
from reconciler.model.modules import network_mode
from reconciler.model.objects import Object

COMPLETED: Final = "Completed"


class Column(NamedTuple):
    """A heading, and what stands below it for an object at a wall time; `wide`: only with `-o wide`."""

    head: str
    show: Callable[[Object, float], Any]
    wide: bool = False


def ready(obj: Object) -> str:
    """`True`, `False` or `Unknown`: whether the object as it is wanted now is ready."""
    found = condition(obj.status, "Ready")
    if found is None or obj.status.get("observedGeneration") != obj.generation:
        return "Unknown"
    return str(found["status"])


def is_ready(obj: Object) -> bool:
    """Whether nothing more is expected of the object: ready, or completed as it should, and nothing is stuck."""
    if obj.deleted is not None or is_true(obj.status, "Stalled"):
        return False
    found = condition(obj.status, "Ready")
    return ready(obj) == "True" or (ready(obj) == "False" and found is not None and found["reason"] == COMPLETED)


def state(obj: Object) -> str:
    """One word: `Deleting`, `Pending` (not looked at yet), what holds it up, or what it does."""
    if obj.deleted is not None:
        return "Deleting"
    found = condition(obj.status, "Ready")
    if found is None or obj.status.get("observedGeneration") != obj.generation:
        return "Pending"
    blocked = condition(obj.status, "Stalled") if is_true(obj.status, "Stalled") else None
    if found["status"] == "True" and "state" in obj.status:
        return str(obj.status["state"])
    return str((blocked or found)["reason"])


def message(obj: Object) -> str:
    """What people need to know of an object of which something is still expected; empty when there is nothing."""
    if obj.deleted is None and (error := obj.status.get("lastError")):
        return f"{error['phase']}: {error['category']}: {error['message']}"
    return wait_of(obj) or ("" if is_ready(obj) else _text(condition(obj.status, "Ready"), ("message",)))


def wait_of(obj: Object) -> str:
    """What the object is waiting for, or is at; empty when it is at rest."""
    for kind in ("Stalled", "Reconciling"):
        if is_true(obj.status, kind):
            return _text(condition(obj.status, kind), ("message", "reason"))
    return ""


def _text(found: Mapping[str, Any] | None, fields: Sequence[str]) -> str:
    return next((str(found[field]) for field in fields if found[field]), "") if found is not None else ""


def at(*path: str) -> Callable[[Object, float], Any]:
    """A column that shows a value of `spec` or `status`, by its path."""

    def show(obj: Object, _: float) -> Any:
        value: Any = obj.spec if path[0] == "spec" else obj.status
        for part in path[1:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return show


def _bytes_at(*path: str) -> Callable[[Object, float], str]:
    read = at(*path)
    return lambda obj, now: "-" if read(obj, now) is None else amount(int(read(obj, now)))


def _short_digest(obj: Object, _: float) -> str:
    return str(obj.status.get("digest") or "")[:19]


def _keys(obj: Object, _: float) -> int:
    return sum(len(part) for part in obj.spec.values() if isinstance(part, Mapping))


def _short(revision: Any) -> str:
    """The first 12 digits of a revision."""
    scheme, colon, digits = str(revision or "").rpartition(":")
    return f"{scheme}{colon}{digits[:12]}"


def _of_all(obj: Object) -> str:
    counts = obj.status.get("objects")
    return f"{counts['ready']}/{counts['total']}" if counts else ""


_NAME: Final = Column("NAME", lambda obj, _: obj.name)
_KEY: Final = Column("NAME", lambda obj, _: str(obj.key))
_READY: Final = Column("READY", lambda obj, _: ready(obj))
_STATUS: Final = Column("STATUS", lambda obj, _: state(obj))
_AGE: Final = Column("AGE", lambda obj, now: since(obj.created or None, now))
_MESSAGE: Final = Column("MESSAGE", lambda obj, _: message(obj))
_MANAGER: Final = Column("MANAGER", lambda obj, _: obj.manager, wide=True)
_ORIGIN: Final = Column("ORIGIN", lambda obj, _: obj.origin, wide=True)
_TAIL: Final = (_AGE, _MANAGER, _ORIGIN)

_OF_KIND: Final[Mapping[Kind, Sequence[Column]]] = {
    Kind.IMAGE: (
        Column("SIZE", _bytes_at("status", "size")),
        Column("REF", at("spec", "ref")),
        Column("DIGEST", _short_digest, wide=True),
        Column("PLATFORM", at("status", "platform"), wide=True),
        Column("SNAPSHOT", at("status", "snapshot"), wide=True),
    ),
    Kind.SANDBOX: (
        Column("RUNTIME", at("spec", "runtime")),
        Column("NETWORK", lambda obj, _: network_mode(obj.spec)),
        Column("IP", at("status", "ip")),
        Column("ID", at("status", "id"), wide=True),
    ),
    Kind.CONTAINER: (
        Column("RESTARTS", lambda obj, _: obj.status.get("restarts", 0)),
        Column("IMAGE", at("spec", "image")),
        Column("SANDBOX", lambda obj, _: obj.status.get("sandbox") or obj.spec.get("sandbox"), wide=True),
        Column("PID", at("status", "pid"), wide=True),
        Column("EXIT", at("status", "exitCode"), wide=True),
    ),
    Kind.VOLUME: (
        Column("RETAIN", lambda obj, _: str(obj.spec.get("retain", True)).lower()),
        Column("PATH", at("status", "path"), wide=True),
    ),
    Kind.SECRET: (Column("KEYS", _keys),),
    Kind.SOURCE: (
        Column("REVISION", lambda obj, _: _short(obj.status.get("observedRevision"))),
        Column("OBJECTS", lambda obj, _: _of_all(obj)),
        Column("FETCHED", lambda obj, now: since(obj.status.get("lastFetchAt"), now)),
        Column("FROM", lambda obj, _: obj.spec.get("folder") or at("spec", "git", "url")(obj, 0)),
        Column("PATH", at("spec", "path"), wide=True),
        Column("NEWEST", lambda obj, _: _short(obj.status.get("revision")), wide=True),
    ),
    Kind.REVISION: (
        Column("SOURCE", at("spec", "source")),
        Column("REVISION", lambda obj, _: _short(obj.spec.get("revision"))),
        Column("OBJECTS", at("spec", "objects")),
        Column("FROM", at("spec", "from"), wide=True),
    ),
    Kind.SNAPSHOT: (
        Column("DRIVER", at("spec", "driver")),
        Column("LAYERS", at("spec", "layers")),
        Column("SIZE", _bytes_at("status", "usage", "bytes")),
        Column("CHAIN", at("spec", "chain"), wide=True),
    ),
    Kind.NODE: (Column("VERSION", at("status", "version")),),
}


def columns_of(kind: Kind | None, *, wide: bool) -> list[Column]:
    """The columns of a table of `kind`; None: of all kinds, where the message says what holds an object up."""
    if kind is None:
        every = [_KEY, _READY, _STATUS, *_TAIL, _MESSAGE]
    else:
        every = [_NAME, _READY, _STATUS, *_OF_KIND[kind], *_TAIL, Column(*_MESSAGE[:2], wide=True)]
    return [column for column in every if wide or not column.wide]


def row_of(obj: Object, columns: Sequence[Column], now: float) -> list[Any]:
    """The cells of one object."""
    return [column.show(obj, now) for column in columns]
