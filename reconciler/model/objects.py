"""The stored object: what is wanted (`spec`), what must not be forgotten (`record`), what is seen (`status`).

Rules of this file: an object is immutable; a change is a new value. `generation` moves only with spec and labels.
`record` is written by the object's one controller, durably, before the deed it records (an attempt's number before
`create`); `status` is derived from facts, may be lost, and is never read to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, Final

from core.values import dataclass
from reconciler.model.identity import API_VERSION, Key, Kind

Json = Mapping[str, Any]
_NOTHING: Final[Json] = MappingProxyType({})


ORPHAN: Final = "orphan"
"""The manager of a workload that runs and that no store remembered: anybody may take it over."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object's spec came from; `line` counts from 1.

    `revision`: of a Source, the revision that last changed what the file asks for there; "": no Source asked for it.
    """

    file: str
    line: int = 0
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Object:
    """One object as the store holds it. Mappings inside are not to be changed in place."""

    key: Key
    uid: str = ""
    version: int = 0
    """The store's counter at the last write of anything but status; 0 while it is not stored."""
    generation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Json = field(default_factory=dict)
    record: Json = field(default_factory=dict)
    status: Json = field(default_factory=dict)
    local: Json = field(default_factory=dict)
    """What a person at this node asked of the object beside its spec, for a while and with a reason: a stop, a hold.
    Never part of a manifest, so that no apply and no revision takes it away; does not move `generation`."""
    manager: str = ""
    """`hand`, `set/<name>`, `source/<name>`, or `engine` for what the agent makes itself."""
    finalizers: frozenset[str] = frozenset()
    owners: frozenset[Key] = frozenset()
    """The object goes with the last of them; empty: it stands by itself."""
    created: float = 0.0
    deleted: float | None = None
    """When deletion was asked for (seconds since 1970): the object is being torn down. None: it is wanted."""
    origin: Origin | None = None
    trace: str = ""
    """The traceparent (W3C) of who asked for the spec as it is; the work on it goes on from there. "": nobody did."""

    @property
    def kind(self) -> Kind:
        """The kind in the key."""
        return self.key.kind

    @property
    def name(self) -> str:
        """The name in the key."""
        return self.key.name

    def to_json(self, *, with_record: bool = False) -> dict[str, Any]:
        """The shape that `get -o json` prints: apiVersion, kind, metadata, spec, status."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "uid": self.uid,
            "generation": self.generation,
            "resourceVersion": self.version,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "manager": self.manager,
            "createdAt": self.created,
        }
        if self.owners:
            metadata["owners"] = sorted(str(owner) for owner in self.owners)
        if self.finalizers:
            metadata["finalizers"] = sorted(self.finalizers)
        if self.deleted is not None:
            metadata["deletedAt"] = self.deleted
        if self.origin is not None:
            metadata["origin"] = str(self.origin)
            if self.origin.revision:
                metadata["revision"] = self.origin.revision
        whole: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": self.kind.value,
            "metadata": metadata,
            "spec": dict(self.spec),
            "status": dict(self.status),
        }
        if self.local:
            whole["local"] = dict(self.local)
        if with_record:
            whole["record"] = dict(self.record)
        return whole


def with_finalizer(obj: Object, name: str) -> Object:
    """`obj` that may not vanish before `name` is done with it."""
    return replace(obj, finalizers=obj.finalizers | {name})


def without_finalizer(obj: Object, name: str) -> Object:
    """`obj` that `name` is done with."""
    return replace(obj, finalizers=obj.finalizers - {name})


def with_record(obj: Object, changes: Json) -> Object:
    """`obj` whose record has `changes` merged at its top level; a value of None removes its key."""
    merged = {**obj.record, **changes}
    return replace(obj, record={name: value for name, value in merged.items() if value is not None})


def with_local(obj: Object, changes: Json) -> Object:
    """`obj` whose `local` has `changes` merged at its top level; a value of None removes its key."""
    merged = {**obj.local, **changes}
    return replace(obj, local={name: value for name, value in merged.items() if value is not None})


def may_vanish(obj: Object) -> bool:
    """Two facts, one predicate: it is being deleted, and nobody has work left to do on it."""
    return obj.deleted is not None and not obj.finalizers
