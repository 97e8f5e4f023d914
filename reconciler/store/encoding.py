"""How an object is written down: key, uid, version and generation as columns, the rest as one JSON text, status apart.

Rules of this file: what is read back is what was written, as JSON has it (tuples come back as lists); names of fields
are never re-used for another meaning; empty fields are left out. Commands that must start fast read it: records of
this room's own are named tuples, as making a dataclass costs each process a millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object, Origin
from reconciler.store.port import StoreCorrupt, StoreTooNew

Row = tuple[str, str, str, int, int, str, str | None]
"""kind, name, uid, version, generation, body, status (None: never set)."""

EMPTY: Final = "{}"
KINDS: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind}


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r:.100}")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)


def encode_json(value: Mapping[str, Any]) -> str:
    """ASCII JSON on one line, in the mapping's own order; raises `TypeError` or `ValueError` for what is not JSON."""
    return _ENCODER.encode(value)


def encode(obj: Object, *, created: float, deleted: float | None) -> str:
    """The body: all of `obj` but key, uid, version, generation and status, and these times. Raises as `encode_json`."""
    body = {
        "labels": obj.labels,
        "annotations": obj.annotations,
        "spec": obj.spec,
        "record": obj.record,
        "local": obj.local,
        "manager": obj.manager,
        "finalizers": sorted(obj.finalizers),
        "owners": sorted(obj.owners),
        "created": created,
        "deleted": deleted,
        "origin": None if obj.origin is None else _place(obj.origin),
        "trace": obj.trace,
    }
    return _ENCODER.encode({name: value for name, value in body.items() if value or value == 0})


def _place(origin: Origin) -> list[str | int]:
    return [origin.file, origin.line, *([origin.revision] if origin.revision else [])]


class Beside(NamedTuple):
    """What lies beside the body, in columns."""

    key: Key
    uid: str
    version: int
    generation: int


def assemble(beside: Beside, body: Mapping[str, Any], status: Mapping[str, Any]) -> Object:
    """The object of which `body` is the parsed body; raises `StoreCorrupt` when it is none."""
    try:
        owners, origin = body.get("owners"), body.get("origin")
        return Object(
            *beside,
            body.get("labels", {}),
            body.get("annotations", {}),
            body.get("spec", {}),
            body.get("record", {}),
            status,
            body.get("local", {}),
            body.get("manager", ""),
            frozenset(body.get("finalizers", ())),
            frozenset(Key(KINDS[of], owner) for of, owner in owners) if owners else frozenset(),
            body.get("created", 0.0),
            body.get("deleted"),
            Origin(*origin) if origin else None,
            body.get("trace", ""),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreCorrupt(f"the store's row of {beside.key} cannot be read: {error}") from error


def decode(row: Row) -> Object:
    """The object that `row` holds; raises `StoreCorrupt`, or `StoreTooNew` for a kind that is not known here."""
    beside = _beside(row)
    try:
        body, status = json.loads(row[5]), json.loads(row[6] or EMPTY)
    except ValueError as error:
        raise StoreCorrupt(f"the store's row of {beside.key} cannot be read: {error}") from error
    return assemble(beside, body, status)


def decode_all(rows: Sequence[Row]) -> list[Object]:
    """The objects of `rows`, parsed as one text (half the time of one by one); raises as `decode`."""
    try:
        parsed = json.loads(f"[{','.join(f'[{row[5]},{row[6] or EMPTY}]' for row in rows)}]")
        pairs = [(body, status) for body, status in parsed]
    except ValueError:
        pairs = []
    if len(pairs) != len(rows):
        return [decode(row) for row in rows]
    return [assemble(_beside(row), body, status) for row, (body, status) in zip(rows, pairs, strict=True)]


def _beside(row: Row) -> Beside:
    kind, name, uid, version, generation = row[:5]
    if (known := KINDS.get(kind)) is None:
        raise StoreTooNew(
            f"the store holds {kind}/{name}, a kind that this version does not know",
            advice="Use the newer version that wrote it, or delete the object with that version first.",
        )
    return Beside(Key(known, name), uid, version, generation)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """`rows`, which are in order of name, in the order of `Kind` and then name."""
    return sorted(rows, key=lambda row: _RANK.get(row[0], len(_RANK)))


_RANK: Final[Mapping[str, int]] = {kind.value: rank for rank, kind in enumerate(Kind)}
