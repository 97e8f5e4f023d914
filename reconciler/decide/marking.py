"""What of content and snapshots is needed: marked from objects; what is not marked may go.

An Image needs the blobs and the chain in its record; a Snapshot its chain; and any object whose record has `keeps` (a
revision that one may go back to) what is listed there, in the form of `keep_of`. What a container's root rests on is
kept by the snapshotter itself, which removes nothing that has something on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from core.errors import Invalid
from core.transfer import reference
from core.values import dataclass
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import ORPHAN, Object

_KEPT: Final = ("wish", "target", "blobs", "driver", "chain")


@dataclass(frozen=True, slots=True)
class Needed:
    """Blobs by digest, and the tops of chains as (driver, chain)."""

    blobs: frozenset[str]
    tops: frozenset[tuple[str, str]]

    def chains(self, driver: str, parents: Mapping[str, str | None]) -> set[str]:
        """All chains of a driver that are needed: the tops, and what they rest on."""
        found: set[str] = set()
        for owner, top in self.tops:
            chain: str | None = top if owner == driver else None
            while chain is not None and chain not in found:
                found.add(chain)
                chain = parents.get(chain)
        return found


def needed(objects: Iterable[Object], going: Key | None = None) -> Needed:
    """What the objects need that stay: `going`, and those that are being deleted, need nothing any more.

    Two that go side by side must not each leave what they share to the other.
    """
    blobs: set[str] = set()
    tops: set[tuple[str, str]] = set()
    for obj in objects:
        if obj.deleted is not None or obj.key == going:
            continue
        for record in _needs(obj):
            blobs.update(record.get("blobs", ()))
            if record.get("chain"):
                tops.add((str(record["driver"]), str(record["chain"])))
    return Needed(frozenset(blobs), frozenset(tops))


def _needs(obj: Object) -> Iterator[Mapping[str, Any]]:
    if obj.kind is Kind.IMAGE:
        yield obj.record
    elif obj.kind is Kind.SNAPSHOT:
        yield obj.spec
    yield from obj.record.get("keeps", ())


def keep_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of an Image's record another object's `keeps` has to name, so that it can be had again later.

    All of it is here still: the Image is wanted, or is about to let go of it.
    """
    return {name: record[name] for name in _KEPT if name in record}


def held_records(objects: Iterable[Object]) -> Iterator[Mapping[str, Any]]:
    """The records by which an image may be held on the node: of Images, and of what is kept."""
    for obj in objects:
        if obj.kind is Kind.IMAGE and obj.record:
            yield obj.record
        yield from obj.record.get("keeps", ())


def keepers(objects: Iterable[Object], record: Mapping[str, Any]) -> list[Object]:
    """The Revisions that name the image of a record, and do not keep it yet: one may go back to them."""
    ref = _normal(str(record.get("wish", {}).get("ref", "")))
    return [
        obj
        for obj in objects
        if obj.kind is Kind.REVISION
        and obj.deleted is None
        and ref in map(_normal, obj.spec.get("images", ()))
        and all(one.get("blobs") != record.get("blobs") for one in obj.record.get("keeps", ()))
    ]


def _normal(ref: str) -> str:
    try:
        return str(reference.parse(ref))
    except Invalid:
        return ref


def orphans(objects: Iterable[Object]) -> list[str]:
    """The containers that run here and no store remembers: it may have forgotten more than these."""
    return [obj.name for obj in objects if obj.manager == ORPHAN]
