"""Dataclasses that cost little to make: what `dataclasses.dataclass` is to the type checker, and less at start-up.

Two hundred small classes were a quarter of what an idle command spent: the standard library compiles up to six methods
for each. Here only `__init__` is compiled; comparison, hash and repr are shared. That a frozen value is not changed is
the type checker's to see to (`frozen=True`, with slots, so that at least no new attribute can be set).
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        """As the standard library's; lean where it is frozen, with slots, and not ordered."""
        if cls is not None or options != {"frozen": True, "slots": True}:
            return dataclasses.dataclass(cls, **options)
        return _lean

    def _lean(cls: type) -> type:
        made = dataclasses.dataclass(slots=True, eq=False, repr=False)(cls)
        fields = dataclasses.fields(made)
        shown = tuple(field.name for field in fields if field.repr)
        values = _getter([field.name for field in fields if field.compare])
        hashed = _getter([field.name for field in fields if (field.compare if field.hash is None else field.hash)])

        def equal(self: Any, other: object) -> Any:
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        def represent(self: Any) -> str:
            pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
            return f"{self.__class__.__qualname__}({pairs})"

        given = cls.__dict__
        made.__eq__ = given.get("__eq__", equal)
        made.__hash__ = given.get("__hash__") or (lambda self: hash(hashed(self)))
        if "__repr__" not in given:
            made.__repr__ = represent
        return made


def _getter(names: list[str]) -> Any:
    """What takes an object's fields, as a tuple whatever their number."""
    if not names:
        return lambda obj: ()
    taken = attrgetter(*names)
    return taken if len(names) > 1 else lambda obj: (taken(obj),)
