"""What an engine works on: everything, or (a one-shot) some objects, what they need and own, and what is going."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.decide.references import references
from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore


class Scope:
    """Grows as objects are looked at: what one needs or owns is in scope too. `keys` None: everything is."""

    def __init__(self, store: ObjectStore, keys: Iterable[Key] | None) -> None:
        self._store = store
        self._keys: set[Key] | None = None if keys is None else set(keys)
        for key in tuple(self._keys or ()):
            self._follow(key)

    def accepts(self, key: Key) -> bool:
        """Whether the engine works on `key`."""
        if self._keys is None or key in self._keys:
            return True
        obj = self._store.get(key)
        if obj is None or not (obj.deleted is not None or obj.owners & self._keys):
            return False
        self._follow(key)
        return True

    def _follow(self, key: Key) -> None:
        assert self._keys is not None
        self._keys.add(key)
        obj = self._store.get(key)
        for needed in _around(obj):
            if needed not in self._keys:
                self._follow(needed)


def _around(obj: Object | None) -> frozenset[Key]:
    return frozenset() if obj is None else references(obj)
