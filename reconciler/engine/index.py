"""Who needs whom, over all objects: kept as objects change, so that a change wakes those that it concerns.

Rules of this file: no lock. One assignment into a dict is atomic, and a reader takes a copy of the items first;
a reader that misses the newest entry by a moment is woken again by the change itself.
"""

from __future__ import annotations

from reconciler.decide.references import references
from reconciler.model.identity import Key, Kind, source_of
from reconciler.model.objects import Object


class Index:
    """References, owners and Source of every object."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[int, frozenset[Key], frozenset[Key], frozenset[Key]]] = {}

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._seen)

    def update(self, obj: Object) -> bool:
        """Take note of an object; False when it is at the version known already (only its status has changed)."""
        known = self._seen.get(obj.key)
        if known is not None and known[0] == obj.version:
            return False
        source = source_of(obj.manager)
        tells = frozenset() if source is None else frozenset({source})
        tells |= known[3] if known is not None else frozenset()  # one that was taken over is still missed there
        self._seen[obj.key] = (obj.version, references(obj), obj.owners, tells)
        return True

    def drop(self, key: Key) -> None:
        """The object is gone."""
        self._seen.pop(key, None)

    def users(self, key: Key) -> frozenset[Key]:
        """The objects that name `key` in their spec."""
        return frozenset(other for other, (_, needed, _, _) in list(self._seen.items()) if key in needed)

    def owned_by(self, key: Key) -> frozenset[Key]:
        """The objects that name `key` among their owners."""
        return frozenset(other for other, (_, _, owners, _) in list(self._seen.items()) if key in owners)

    def concerned(self, key: Key) -> frozenset[Key]:
        """Whom a change of `key` concerns: those that need it, those it needs (free now?), owners and owned, and the
        Sources that asked for it (which themselves concern none of its objects: they have it only for a manager).
        """
        known = self._seen.get(key)
        around = frozenset() if known is None else known[1] | known[2] | known[3]
        held = self.keys(Kind.SOURCE) if key.kind is Kind.NODE else frozenset()  # a hold is on the whole node
        return (self.users(key) | self.owned_by(key) | around | held) - {key}

    def keys(self, kind: Kind) -> frozenset[Key]:
        """The keys of one kind."""
        return frozenset(key for key in list(self._seen) if key.kind is kind)
