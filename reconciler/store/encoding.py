"""How an object is written down: key, uid, version and generation as columns, the rest as one JSON text, status apart.

Rules of this file: what is read back is what was written, as JSON has it (tuples come back as lists); names of fields
are never re-used for another meaning; empty fields are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin
from reconciler.store.port import StoreCorrupt, StoreTooNew

Row = tuple[str, str, str, int, int, str, str | None]
"""kind, name, uid, version, generation, body, status (None: never set)."""

KINDS: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind}


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r:.100}")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)


def encode_json(value: Mapping[str, Any]) -> str:
    """ASCII JSON on one line, in the mapping's own order; raises `TypeError` or `ValueError` for what is not JSON."""
    return _ENCODER.encode(value)


def encode(obj: Object) -> str:
    """The body: all of `obj` but key, uid, version, generation and status. Raises as `encode_json`."""
    body = {
        "labels": obj.labels,
        "annotations": obj.annotations,
        "spec": obj.spec,
        "record": obj.record,
        "manager": obj.manager,
        "finalizers": sorted(obj.finalizers),
        "owners": sorted(obj.owners),
        "created": obj.created,
        "deleted": obj.deleted,
        "origin": None if obj.origin is None else [obj.origin.file, obj.origin.line],
    }
    return _ENCODER.encode({name: value for name, value in body.items() if value or value == 0})


def decode(row: Row) -> Object:
    """The object that `row` holds; raises `StoreCorrupt`, or `StoreTooNew` for a kind that is not known here."""
    kind, name, uid, version, generation, text, status = row
    if (known := KINDS.get(kind)) is None:
        raise StoreTooNew(
            f"the store holds {kind}/{name}, a kind that this version does not know",
            advice="Use the newer version that wrote it, or delete the object with that version first.",
        )
    try:
        body = json.loads(text)
        owners, origin = body.get("owners"), body.get("origin")
        return Object(
            Key(known, name),
            uid,
            version,
            generation,
            body.get("labels", {}),
            body.get("annotations", {}),
            body.get("spec", {}),
            body.get("record", {}),
            {} if status is None else json.loads(status),
            body.get("manager", ""),
            frozenset(body.get("finalizers", ())),
            frozenset(Key(KINDS[of], owner) for of, owner in owners) if owners else frozenset(),
            body.get("created", 0.0),
            body.get("deleted"),
            Origin(*origin) if origin else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreCorrupt(f"the store's row of {kind}/{name} cannot be read: {error}") from error


def in_order(rows: list[Row]) -> list[Row]:
    """`rows`, which are in order of name, in the order of `Kind` and then name."""
    return sorted(rows, key=lambda row: _RANK.get(row[0], len(_RANK)))


_RANK: Final[Mapping[str, int]] = {kind.value: rank for rank, kind in enumerate(Kind)}
